/** Presence: which session of a device counts, and for how long. */
import { expect, test } from 'vitest';
import { createPresence } from '../../src/bridge/presence.ts';
import { eventually } from '../support/eventually.ts';
import { deviceId, distinct, logIn, startBridgeRig } from './bridge-rig.ts';
import { acked, startWorkerRig } from './worker-rig.ts';

test('the epoch is the time of Redis in microseconds, or one more than the old epoch', async () => {
  const rig = await startBridgeRig();
  const { bridge } = await rig.gateway('g1');
  const micros = async () => {
    const [seconds, rest] = await rig.redis.time();
    return Number(seconds) * 1_000_000 + Number(rest);
  };
  const before = await micros();
  const first = await logIn(bridge);
  expect(first).toBeGreaterThanOrEqual(before);
  expect(first).toBeLessThanOrEqual(await micros());
  // A clock that was set back. Lua by itself would print this number rounded to 9.0071992547e+15.
  const ahead = 9_007_199_254_740_001;
  await rig.redis.hset(rig.keys.presence(deviceId), 'epoch', String(ahead));
  expect(await logIn(bridge)).toBe(ahead + 1);
  const { epoch } = await rig.redis.hgetall(rig.keys.presence(deviceId));
  expect(epoch).toBe(String(ahead + 1));
});

test('the epoch is set in the same script as the presence', async () => {
  const rig = await startBridgeRig();
  const { bridge } = await rig.gateway('g1');
  const done = await rig.watch();
  const epoch = await logIn(bridge);
  const presence = rig.keys.presence(deviceId);
  const wrote = await eventually(() => {
    const writes = done.filter(({ name, args }) => name === 'hset' && args[0] === presence);
    expect(writes).toHaveLength(1);
    return writes[0]!;
  });
  expect(wrote.by).toBe('script');
  expect(wrote.args).toEqual(expect.arrayContaining(['gatewayId', 'g1', 'epoch', String(epoch)]));
  const held = await rig.redis.hgetall(presence);
  expect(held).toMatchObject({ gatewayId: 'g1', epoch: String(epoch), protocol: 'bkv' });
  expect(Number(held['since'])).toBe(epoch);
});

test('a gateway holds one lease of about 10 s, and renews it', async () => {
  const rig = await startBridgeRig();
  let skewMs = 0;
  const { bridge } = await rig.gateway('g1', { clock: () => performance.now() + skewMs });
  const entry = await rig.redis.hgetall(rig.keys.gateways());
  expect(Object.keys(entry)).toEqual(['g1']);
  expect(JSON.parse(entry['g1']!)).toMatchObject({ leaseMs: 10_000 });
  skewMs = 9_000;
  expect(bridge.holdsLease()).toBe(true);
  skewMs = 10_000;
  expect(bridge.holdsLease()).toBe(false);
  // The next heartbeat comes within a quarter of a lease.
  await eventually(() => expect(bridge.holdsLease()).toBe(true), { withinMs: 5_000 });
});

test('after a flush gateways register their sessions again with their original epochs', async () => {
  const rig = await startBridgeRig();
  const sessions: { deviceId: string; protocol: string; epoch: number }[] = [];
  const { bridge } = await rig.gateway('g1', { leaseMs: 1_000, sessions: () => sessions });
  const devices = [deviceId, '82200520004870', '82200520004871'];
  for (const id of devices) {
    sessions.push({ deviceId: id, protocol: 'bkv', epoch: await logIn(bridge, id) });
  }
  const all = await rig.redis.keys(`*${rig.prefix}*`);
  expect(all.length).toBeGreaterThan(devices.length);
  await rig.redis.del(all);
  const presence = createPresence({ redis: await rig.client('commands'), keys: rig.keys });
  await eventually(async () => {
    const found = await presence.findMany(devices);
    expect([...found.values()].map(({ epoch }) => epoch)).toEqual(
      sessions.map(({ epoch }) => epoch),
    );
  });
});

test('every delivery carries the epoch of the session that it is meant for', async () => {
  const rig = await startWorkerRig({
    play: (delivery, gateway) => gateway.ended(delivery, acked()),
  });
  await rig.start();
  const epochs: number[] = [];
  for (const n of [1, 2]) {
    epochs.push(await logIn(rig.gateway));
    const { id } = await rig.accept();
    await eventually(async () => expect(await rig.stateOf({ id })).toBe('completed'));
    expect(distinct(rig.heard)).toHaveLength(n);
  }
  expect(distinct(rig.heard).map(({ epoch }) => epoch)).toEqual(epochs);
  expect(epochs[1]).toBeGreaterThan(epochs[0]!);
});
