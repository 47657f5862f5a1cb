/** Keys: each script finds all that it needs on one slot, and needs nothing else. */
import { expect, test } from 'vitest';
import { shardOf } from '../../src/bridge/keys.ts';
import { eventually } from '../support/eventually.ts';
import { deviceId, logIn, startBridgeRig, watchCommands } from './bridge-rig.ts';
import { acked, startWorkerRig } from './worker-rig.ts';

const absent = '82200520004870';

/** A worker that has had to do with all there is: a line, parked, unanswered and ended commands. */
async function busyWorker(shards: number) {
  const rig = await startWorkerRig({
    shards,
    play(delivery, gateway) {
      if (delivery.params['socket'] !== 2) return gateway.ended(delivery, acked());
      const endedAt = Date.now();
      const reason = 'no-ack';
      gateway.ended(delivery, { kind: 'ambiguous', reason, writtenAt: endedAt - 5, endedAt });
    },
  });
  const done = await watchCommands(rig.redis, rig.keys.prefix);
  await logIn(rig.gateway);
  await rig.start();
  const deadline = Date.now() + 600_000;
  const open = { backoffMs: 60_000, orderKey: 'mine', deadline };
  const sent = {
    ended: await rig.accept(),
    unanswered: await rig.accept({ params: { socket: 2 }, ...open }),
    behind: await rig.accept(open),
    parked: await rig.accept({ deviceId: absent }),
    kept: await rig.accept({ deviceId: absent }),
  };
  const statuses = { ended: 'succeeded', unanswered: 'queued', parked: 'parked' } as const;
  for (const [name, status] of Object.entries(statuses)) {
    const { id } = sent[name as keyof typeof statuses];
    await eventually(async () => expect((await rig.ledger.find(id))?.status).toBe(status));
  }
  await rig.routes.setPaused(absent, Date.now());
  await rig.redis.set(rig.keys.keptOutcome(absent, sent.kept.id), '{}', 'EX', 60);
  return { ...rig, sent, done };
}

test("every device and command key carries its shard's hash tag", async () => {
  const { redis, keys, sent } = await busyWorker(4);
  await eventually(async () => expect(await redis.exists(keys.unanswered(deviceId))).toBe(1));
  const owners = new Map<string, string>([
    [deviceId, deviceId],
    [absent, absent],
    ...Object.values(sent).map(({ id, deviceId: owner }) => [id, owner] as const),
  ]);
  const all = await redis.keys(`*${keys.prefix}*`);
  let tagged = 0;
  for (const [named, owner] of owners) {
    const own = all.filter((key) => key.includes(named));
    expect(own, `keys of ${named}`).not.toEqual([]);
    const tag = `{${keys.prefix}-${shardOf(owner, 4)}}`;
    for (const key of own) expect(key.split(':')[0]).toBe(tag);
    tagged += own.length;
  }
  expect(tagged).toBeGreaterThan(10);
});

test('gateway leases are known from heartbeats, never read in a script', async () => {
  const { done, keys } = await busyWorker(1);
  const byScripts = done.filter(({ by }) => by === 'script');
  expect(byScripts.length).toBeGreaterThan(20);
  const leases = ({ args }: { args: readonly string[] }) => args.includes(keys.gateways());
  expect(done.some(leases)).toBe(true);
  expect(byScripts.filter(leases)).toEqual([]);

  const rig = await startBridgeRig();
  const worker = await rig.worker('w1');
  expect(worker.isLive('g1')).toBe(false);
  const watched = await rig.watch();
  await rig.gateway('g1');
  await eventually(() => expect(worker.isLive('g1')).toBe(true));
  expect(watched.filter(({ name }) => name === 'hgetall')).toEqual([]);
});
