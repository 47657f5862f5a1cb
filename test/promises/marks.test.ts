/** Marks: what was published stands in Redis before, so that nothing is published twice unseen. */
import { expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import {
  deaf,
  deliveryOf,
  deviceId,
  distinct,
  logIn,
  only,
  startBridgeRig,
  watchCommands,
} from './bridge-rig.ts';
import { acked, startWorkerRig } from './worker-rig.ts';

/** Of a worker that died between the mark and the publish, or after it. */
const routeOf = (id: string) => ({
  id,
  deviceId,
  line: null,
  priority: 7,
  attempt: 1,
  maxAttempt: 4,
  maxWireId: 0xffff,
  again: false,
  probing: false,
});

test('one route script per delivery reads the presence, gives the wire id and writes the mark', async () => {
  const rig = await startBridgeRig();
  const { bridge } = await rig.gateway('g1');
  const epoch = await logIn(bridge);
  await rig.route('first');
  const done = await rig.watch();
  const given = await rig.route('c1');
  const ofDevice = await eventually(() => {
    const all = done.filter(({ args }) => args.some((arg) => arg.includes(deviceId)));
    expect(all.at(-1)?.name).toBe('expire');
    return all;
  });
  only(ofDevice.filter(({ by }) => by === 'client'));
  const byScript = ofDevice.filter(({ by }) => by === 'script');
  const presence = rig.keys.presence(deviceId);
  const marks = rig.keys.marks(deviceId);
  const reads = byScript.findIndex(({ args }) => args[0] === presence);
  const writes = byScript.findIndex(({ name, args }) => name === 'hset' && args[0] === marks);
  expect(reads).toBeGreaterThan(-1);
  expect(writes).toBeGreaterThan(reads);
  expect(given.wireId).toBeGreaterThan(0);
  expect(await rig.routes.mark(deviceId, 'c1')).toEqual({
    attempt: 1,
    gatewayId: 'g1',
    epoch,
    wireId: given.wireId,
    written: false,
  });
});

test('the worker publishes only after the mark is written', async () => {
  const rig = await startWorkerRig({
    play: (delivery, gateway) => gateway.ended(delivery, acked()),
  });
  const done = await watchCommands(rig.redis, rig.keys.prefix);
  await rig.start();
  const { id } = await rig.accept();
  await eventually(async () => expect((await rig.ledger.find(id))?.status).toBe('succeeded'));
  const marked = done.findIndex(
    ({ by, name, args }) => by === 'script' && name === 'hset' && args[1] === id,
  );
  const published = done.findIndex(
    ({ name, args }) => name === 'publish' && args[1]?.includes('"t":"deliver"'),
  );
  expect(marked).toBeGreaterThan(-1);
  expect(published).toBeGreaterThan(marked);
});

test('a surely unwritten answer or the settlement removes the mark', async () => {
  let woken = false;
  const rig = await startWorkerRig({
    async play(delivery, gateway) {
      const mark = await rig.routes.mark(deviceId, delivery.id);
      expect(mark).toMatchObject({ attempt: 1, gatewayId: 'gateway-1' });
      if (woken) gateway.ended(delivery, acked());
      else gateway.ended(delivery, { kind: 'unwritten', reason: 'stale-epoch' });
    },
  });
  await rig.start();
  const { id } = await rig.accept();
  await eventually(async () => expect((await rig.ledger.find(id))?.status).toBe('parked'));
  expect(await rig.routes.mark(deviceId, id)).toBeNull();
  woken = true;
  await rig.outbound.wake(deviceId, id);
  await eventually(async () => expect(await rig.stateOf({ id })).toBe('completed'));
  expect(await rig.routes.mark(deviceId, id)).toBeNull();
});

test('a job that finds its mark publishes the same attempt to that gateway again', async () => {
  const rig = await startWorkerRig({
    play: (delivery, gateway) => gateway.ended(delivery, acked()),
  });
  const { id } = await rig.accept();
  const lost = await rig.routes.route(routeOf(id));
  if (lost.kind !== 'go') throw new Error(lost.kind);
  // Whatever session stands by now: the one under the mark may have written it.
  const newer = await logIn(rig.gateway);
  expect(newer).toBeGreaterThan(lost.epoch);
  await rig.start();
  await eventually(async () => expect(await rig.stateOf({ id })).toBe('completed'));
  const { wireId, epoch } = lost;
  expect(only(distinct(rig.heard))).toMatchObject({ id, attempt: 1, wireId, epoch });
});

test('if the gateway of a mark is gone, the outcome is ambiguous', async () => {
  const rig = await startWorkerRig({
    play: (delivery, gateway) => gateway.ended(delivery, acked()),
  });
  const presence = rig.keys.presence(deviceId);
  await rig.redis.hset(presence, { gatewayId: 'gone', epoch: '5', protocol: 'bkv' });
  const { id } = await rig.accept();
  const lost = await rig.routes.route(routeOf(id));
  if (lost.kind !== 'go') throw new Error(lost.kind);
  await logIn(rig.gateway);
  await rig.start();
  await eventually(async () => expect(await rig.stateOf({ id })).toBe('completed'));
  const { wireId } = lost;
  expect(only(distinct(rig.heard))).toMatchObject({ attempt: 2, wireId });
  // The rows of both attempts are on their way to the ledger.
  await eventually(async () =>
    expect((await rig.ledger.find(id))?.trail).toMatchObject({
      1: { gatewayId: 'gone', outcome: 'gateway-lost', wireId },
      2: { gatewayId: 'gateway-1', outcome: 'acked', wireId },
    }),
  );
});

test('no receivers means unwritten only on the first publish under a mark', async () => {
  const rig = await startBridgeRig();
  const worker = await rig.worker('w1');
  const { bridge, heard, subscriber } = await rig.gateway('g1');
  await logIn(bridge);
  await eventually(() => expect(worker.isLive('g1')).toBe(true));
  const first = await rig.route('c1');
  const lost = worker.deliver(deliveryOf('c1', first), first, deaf);
  await eventually(() => expect(heard).toHaveLength(1));
  // It hears nothing any more, and its lease stands.
  await subscriber.unsubscribe();
  const second = await rig.route('c2');
  expect(await worker.deliver(deliveryOf('c2', second), second, deaf)).toMatchObject({
    kind: 'unwritten',
    reason: 'offline',
  });
  expect(await lost).toMatchObject({ kind: 'ambiguous', reason: 'gateway-lost' });
  expect(worker.isLive('g1')).toBe(true);
});
