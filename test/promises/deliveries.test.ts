/** What becomes of a delivery whose answer is late, lost, or told to nobody. */
import { expect, test } from 'vitest';
import { createEnds } from '../../src/bridge/ends.ts';
import { createOutbox } from '../../src/bridge/outbox.ts';
import { quietLog as log } from '../store/fixture.ts';
import { eventually } from '../support/eventually.ts';
import { deaf, deliveryOf, deviceId, logIn, startBridgeRig } from './bridge-rig.ts';
import { acked, startWorkerRig } from './worker-rig.ts';

test('the worker keeps a backstop 2 s longer than the ack timeout', async () => {
  const rig = await startBridgeRig();
  const worker = await rig.worker('w1');
  const { bridge, heard } = await rig.gateway('g1');
  await logIn(bridge);
  await eventually(() => expect(worker.isLive('g1')).toBe(true));
  const route = await rig.route('c1');
  const ackTimeoutMs = 200;
  const end = worker.deliver(deliveryOf('c1', route, { ackTimeoutMs }), route, deaf);
  await eventually(() => expect(heard).toHaveLength(1));
  const writtenAt = Date.now();
  bridge.written('w1', 'c1', 1, writtenAt);
  // The gateway lives, and says nothing more.
  const outcome = await end;
  expect(outcome).toMatchObject({ kind: 'ambiguous', reason: 'gateway-silent', writtenAt });
  const waitedMs = ('endedAt' in outcome ? outcome.endedAt : 0) - writtenAt;
  expect(waitedMs).toBeGreaterThan(ackTimeoutMs + 2_000);
  // It looks four times a second; one that was stalled itself gives 4 s more.
  expect(waitedMs).toBeLessThan(ackTimeoutMs + 8_000);
});

test('the gateway keeps an outcome until the worker says settled', async () => {
  const rig = await startBridgeRig();
  const outbox = createOutbox({ redis: rig.redis, from: 'g1' });
  const { redis, keys } = rig;
  let at = 0;
  const ends = createEnds({ gatewayId: 'g1', redis, keys, outbox, log, clock: () => at });
  const batches = await rig.listen();
  const told = () => batches.flatMap(({ types }) => types);
  ends.send(deliveryOf('c1', { wireId: 7, attempt: 1, epoch: 1 }), acked());
  await eventually(() => expect(told()).toEqual(['ended']));
  for (const times of [2, 3]) {
    at += 2_000;
    ends.resend();
    await eventually(() => expect(told()).toHaveLength(times));
  }
  ends.settled({ id: 'c1', attempt: 1 });
  at += 2_000;
  ends.resend();
  outbox.send(keys.workerChannel('w1'), { t: 'last' });
  await eventually(() => expect(told()).toContain('last'));
  expect(told()).toEqual(['ended', 'ended', 'ended', 'last']);
});

test('an outcome that nobody listens for goes to a stream that any worker consumes', async () => {
  const rig = await startWorkerRig();
  const { id } = await rig.accept();
  const lost = await rig.routes.route({
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
  if (lost.kind !== 'go') throw new Error(lost.kind);
  // Its worker died with the delivery out; this one has never heard of it.
  rig.gateway.ended(deliveryOf(id, lost, { workerId: 'dead' }), acked());
  const streamed = async () => expect(await rig.redis.xlen(rig.keys.outcomes())).toBe(1);
  await eventually(streamed, { withinMs: 5_000 });
  await rig.start();
  await eventually(async () =>
    expect(await rig.ledger.find(id)).toMatchObject({
      status: 'succeeded',
      trail: { 1: { outcome: 'acked', wireId: lost.wireId } },
    }),
  );
  expect(rig.heard.filter(({ attempt }) => attempt > 1)).toEqual([]);
});

test('a job that is started again looks for its outcome before it sends', async () => {
  const rig = await startWorkerRig();
  const record = await rig.accept();
  const { id } = record;
  // Its worker died after the outcome had been put where a further run finds it.
  const taken = await rig.outbound.take(deviceId, id);
  expect(taken).toBe('taken');
  await rig.outbound.enqueue({ command: record, base: { attempt: 0, version: 1 } });
  const streamed = {
    id,
    attempt: 1,
    deviceId,
    gatewayId: 'gateway-1',
    epoch: 1,
    wireId: 9,
    frame: 'fcff',
    late: false,
    outcome: acked(),
  };
  await rig.redis.set(rig.keys.keptOutcome(deviceId, id), JSON.stringify(streamed), 'EX', 60);
  await rig.start();
  await eventually(async () => expect(await rig.stateOf({ id })).toBe('completed'));
  expect(await rig.ledger.find(id)).toMatchObject({
    status: 'succeeded',
    trail: { 1: { outcome: 'acked', wireId: 9 } },
  });
  expect(rig.heard).toEqual([]);
});
