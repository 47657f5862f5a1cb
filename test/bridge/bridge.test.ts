import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { GatewayBridge, GatewayHandlers } from '../../src/bridge/gateway-bridge.ts';
import { createKeys, type Keys } from '../../src/bridge/keys.ts';
import type { Delivery } from '../../src/bridge/messages.ts';
import { createPresence } from '../../src/bridge/presence.ts';
import { createGatewayBridge } from '../../src/bridge/redis-gateway-bridge.ts';
import { createRoutes } from '../../src/bridge/routes.ts';
import { createWorkerBridge, type WorkerBridge } from '../../src/bridge/worker-bridge.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { createLog } from '../../src/log/log.ts';
import type { Outcome } from '../../src/outcome.ts';
import { eventually } from '../support/eventually.ts';
import { freshRedis } from '../support/stores.ts';

const log = createLog({ level: 'silent', role: 'test' });
const device = '82200520004869';
const acked: Outcome = {
  kind: 'acked',
  result: { businessNo: 104 },
  writtenAt: 1,
  endedAt: 2,
  frameIn: 'fc',
};

let url: string;
let keys: Keys;
let closers: (() => Promise<void>)[] = [];

beforeEach(async () => {
  const redis = await freshRedis();
  url = redis.url;
  keys = createKeys(redis.prefix, 4);
});

afterEach(async () => {
  for (const close of closers.reverse()) await close();
  closers = [];
});

function client(purpose: 'commands' | 'subscriber'): Redis {
  const redis = connectRedis({ url, purpose, name: 'test' });
  closers.push(() => closeRedis(redis));
  return redis;
}

type TestGateway = { bridge: GatewayBridge; heard: Delivery[]; evicted: string[]; redis: Redis };

async function gateway(
  gatewayId: string,
  options: { leaseMs?: number; sessions?: GatewayHandlers['sessions'] } = {},
): Promise<TestGateway> {
  const redis = client('commands');
  const { leaseMs = 10_000, sessions = () => [] } = options;
  const bridge = createGatewayBridge({
    gatewayId,
    redis,
    subscriber: client('subscriber'),
    keys,
    log,
    leaseMs,
  });
  const heard: Delivery[] = [];
  const evicted: string[] = [];
  await bridge.start({
    deliver: (delivery) => heard.push(delivery),
    withdraw: () => undefined,
    settled: () => undefined,
    remember: () => undefined,
    evict: ({ deviceId, epoch }) => evicted.push(`${deviceId}:${epoch}`),
    sessions,
    load: () => ({ connections: 0, sessions: 0 }),
  });
  closers.push(() => bridge.stop());
  return { bridge, heard, evicted, redis };
}

async function worker(
  workerId: string,
): Promise<{ bridge: WorkerBridge; woken: string[]; orphans: string[] }> {
  const woken: string[] = [];
  const orphans: string[] = [];
  const bridge = createWorkerBridge({
    workerId,
    redis: client('commands'),
    subscriber: client('subscriber'),
    keys,
    log,
    onWake: (deviceId) => woken.push(deviceId),
    onBack: () => undefined,
    onOrphan: ({ id }) => orphans.push(id),
  });
  await bridge.start();
  closers.push(() => bridge.stop());
  return { bridge, woken, orphans };
}

function deliveryOf(
  id: string,
  route: { wireId: number; attempt: number; epoch: number },
  workerId = 'w1',
): Delivery {
  return {
    t: 'deliver',
    id,
    attempt: route.attempt,
    workerId,
    deviceId: device,
    epoch: route.epoch,
    protocol: 'bkv',
    command: 'port.query',
    params: { socket: 1 },
    wireId: route.wireId,
    frame: 'fcff',
    priority: 5,
    deadline: Date.now() + 60_000,
    ackTimeoutMs: 10_000,
  };
}

const silent = { lined: () => undefined, written: () => undefined };

async function routed(id: string, attempt = 1) {
  const routes = createRoutes({ redis: client('commands'), keys, log });
  const route = await routes.route({
    id,
    deviceId: device,
    line: null,
    priority: 5,
    attempt,
    maxAttempt: 4,
    maxWireId: 0xffff,
    again: true,
    probing: false,
  });
  if (route.kind !== 'go') throw new Error(`routed as ${route.kind}`);
  return route;
}

describe('presence', () => {
  it('gives each login a higher epoch and tells the older gateway to close', async () => {
    const [one, two] = [await gateway('g1'), await gateway('g2')];
    const first = await one.bridge.login(device, 'bkv');
    const second = await two.bridge.login(device, 'bkv');
    if (!first.granted || !second.granted) throw new Error('login refused');
    expect(second.epoch).toBeGreaterThan(first.epoch);
    await eventually(() => expect(one.evicted).toEqual([`${device}:${second.epoch}`]));
  });

  it('is removed only by the login that made it', async () => {
    const [one, two] = [await gateway('g1'), await gateway('g2')];
    const first = await one.bridge.login(device, 'bkv');
    const second = await two.bridge.login(device, 'bkv');
    if (!first.granted || !second.granted) throw new Error('login refused');
    await one.bridge.logout(device, first.epoch);
    const presence = createPresence({ redis: client('commands'), keys });
    expect(await presence.find(device)).toMatchObject({ gatewayId: 'g2', epoch: second.epoch });
    await two.bridge.logout(device, second.epoch);
    expect(await presence.find(device)).toBeNull();
  });

  it('of a gateway without a lease counts as offline', async () => {
    const { bridge, redis } = await gateway('g1');
    await bridge.login(device, 'bkv');
    const presence = createPresence({ redis: client('commands'), keys });
    expect(await presence.find(device)).not.toBeNull();
    await redis.hset(keys.gateways(), 'g1', JSON.stringify({ at: 1, leaseMs: 10_000 }));
    const later = createPresence({ redis: client('commands'), keys });
    expect(await later.find(device)).toBeNull();
  });

  it('denies an id that keeps changing hands', async () => {
    const [one, two] = [await gateway('g1'), await gateway('g2')];
    const logins = [];
    for (let n = 0; n < 40; n += 1) {
      logins.push(await (n % 2 === 0 ? one : two).bridge.login(device, 'bkv'));
    }
    expect(logins.at(0)).toMatchObject({ granted: true });
    expect(logins.at(-1)).toMatchObject({ granted: false, reason: 'flapping' });
  });

  it('stands again with its epoch after Redis lost its memory', async () => {
    const sessions: { deviceId: string; protocol: string; epoch: number }[] = [];
    const one = await gateway('g1', { leaseMs: 400, sessions: () => sessions });
    const login = await one.bridge.login(device, 'bkv');
    if (!login.granted) throw new Error('login refused');
    sessions.push({ deviceId: device, protocol: 'bkv', epoch: login.epoch });
    await one.redis.del(keys.presence(device));
    // What a replaced server looks like to the gateway: its lease ran out unheard.
    const stalledUntil = Date.now() + 600;
    while (Date.now() < stalledUntil);
    const presence = createPresence({ redis: client('commands'), keys });
    await eventually(async () =>
      expect(await presence.find(device)).toMatchObject({ epoch: login.epoch }),
    );
  });
});

describe('a delivery', () => {
  it('travels to the gateway and its end travels back', async () => {
    const [{ bridge }, one] = [await worker('w1'), await gateway('g1')];
    await one.bridge.login(device, 'bkv');
    const route = await routed('c1');
    const writtenAt: number[] = [];
    const delivery = deliveryOf('c1', route);
    const end = bridge.deliver(delivery, route, {
      ...silent,
      written: (at) => writtenAt.push(at),
    });
    await eventually(() => expect(one.heard).toHaveLength(1));
    const [heard] = one.heard;
    expect(heard).toEqual(delivery);
    one.bridge.written('w1', 'c1', 1, 123);
    await eventually(() => expect(writtenAt).toEqual([123]));
    one.bridge.ended(heard!, acked);
    expect(await end).toEqual(acked);
  });

  it('is surely unwritten when nobody listened to its first publish', async () => {
    const { bridge } = await worker('w1');
    const route = { gatewayId: 'gone', again: false };
    const delivery = deliveryOf('c1', { wireId: 7, attempt: 1, epoch: 1 });
    expect(await bridge.deliver(delivery, route, silent)).toMatchObject({
      kind: 'unwritten',
      reason: 'offline',
    });
  });

  it('is ambiguous when nobody listened and it may have been published before', async () => {
    const { bridge } = await worker('w1');
    const delivery = deliveryOf('c1', { wireId: 7, attempt: 1, epoch: 1 });
    const outcome = await bridge.deliver(delivery, { gatewayId: 'gone', again: true }, silent);
    expect(outcome).toMatchObject({ kind: 'ambiguous', reason: 'gateway-lost' });
  });

  it('without any receipt is published again', async () => {
    const [{ bridge }, one] = [await worker('w1'), await gateway('g1')];
    await one.bridge.login(device, 'bkv');
    const route = await routed('c1');
    const end = bridge.deliver(deliveryOf('c1', route), route, silent);
    await eventually(() => expect(one.heard.length).toBeGreaterThan(1));
    one.bridge.ended(one.heard[0]!, acked);
    expect(await end).toEqual(acked);
  });

  it('is ambiguous once its gateway holds no lease any more', async () => {
    const [{ bridge }, one] = [await worker('w1'), await gateway('g1', { leaseMs: 1_500 })];
    await one.bridge.login(device, 'bkv');
    const route = await routed('c1');
    await eventually(() => expect(bridge.isLive('g1')).toBe(true));
    const end = bridge.deliver(deliveryOf('c1', route), route, silent);
    await eventually(() => expect(one.heard.length).toBeGreaterThan(0));
    await one.bridge.stop();
    expect(await end).toMatchObject({ kind: 'ambiguous', reason: 'gateway-lost' });
  });

  it('goes to the outcomes stream when its worker is gone', async () => {
    const one = await gateway('g1');
    one.bridge.ended(deliveryOf('c1', { wireId: 7, attempt: 1, epoch: 1 }, 'gone'), acked);
    await eventually(async () => expect(await one.redis.xlen(keys.outcomes())).toBe(1));
  });

  it('stays with the worker that waits when its job is started a second time', async () => {
    const [{ bridge }, one] = [await worker('w1'), await gateway('g1')];
    await one.bridge.login(device, 'bkv');
    const route = await routed('c1');
    const first = bridge.deliver(deliveryOf('c1', route), route, silent);
    const again = await routed('c1');
    const second = bridge.deliver(deliveryOf('c1', again), again, silent);
    await eventually(() => expect(one.heard.length).toBeGreaterThan(0));
    one.bridge.ended(one.heard[0]!, acked);
    expect(await Promise.all([first, second])).toEqual([acked, acked]);
  });
});

describe('a delivery whose job was started again as a later attempt', () => {
  it('ends without an outcome: what it would settle is no longer its own', async () => {
    const [{ bridge }, one] = [await worker('w1'), await gateway('g1')];
    await one.bridge.login(device, 'bkv');
    const first = await routed('c1');
    const overtaken = bridge.deliver(deliveryOf('c1', first), first, silent);
    const second = await routed('c1', 2);
    const current = bridge.deliver(deliveryOf('c1', second), second, silent);
    await expect(overtaken).rejects.toMatchObject({ code: 'CONFLICT' });
    await eventually(() => expect(one.heard.length).toBeGreaterThan(1));
    one.bridge.ended(one.heard.find(({ attempt }) => attempt === 2)!, acked);
    expect(await current).toEqual(acked);
  });
});

describe('a wake', () => {
  it('is announced at login when commands are parked for the device', async () => {
    const [{ woken }, one] = [await worker('w1'), await gateway('g1')];
    await one.redis.zadd(keys.parked(device), 4, 'c1');
    expect(await one.bridge.login(device, 'bkv')).toMatchObject({ granted: true, parked: 1 });
    await eventually(() => expect(woken).toEqual([device]));
  });
});
