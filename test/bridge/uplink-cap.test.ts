/** What becomes of reports when nobody takes them out of the uplink stream: heartbeats yield, all else is kept. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { GatewayBridge, Report } from '../../src/bridge/gateway-bridge.ts';
import { createKeys, type Keys } from '../../src/bridge/keys.ts';
import { createGatewayBridge } from '../../src/bridge/redis-gateway-bridge.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { createLog } from '../../src/log/log.ts';
import { eventually } from '../support/eventually.ts';
import { freshRedis } from '../support/stores.ts';

const maxUplinkEntries = 5;

let keys: Keys;
let redis: Redis;
let bridge: GatewayBridge;
let closers: (() => Promise<void>)[] = [];

beforeEach(async () => {
  const { url, prefix } = await freshRedis();
  keys = createKeys(prefix, 4);
  const client = (purpose: 'commands' | 'subscriber') => {
    const made = connectRedis({ url, purpose, name: 'test' });
    closers.push(() => closeRedis(made));
    return made;
  };
  redis = client('commands');
  bridge = createGatewayBridge({
    gatewayId: 'g1',
    redis: client('commands'),
    subscriber: client('subscriber'),
    keys,
    log: createLog({ level: 'silent', role: 'test' }),
    // It looks at the stream at every third renewal of its lease, of which there are four in this time.
    leaseMs: 400,
    maxUplinkEntries,
  });
  await bridge.start({
    deliver: () => undefined,
    withdraw: () => undefined,
    settled: () => undefined,
    evict: () => undefined,
    remember: () => undefined,
    sessions: () => [],
    load: () => ({ connections: 0, sessions: 0 }),
  });
  closers.push(() => bridge.stop());
});

afterEach(async () => {
  for (const close of closers.reverse()) await close();
  closers = [];
});

function report(weight: Report['weight'], msgId = 0): Promise<void> {
  return bridge.report({
    deviceId: '82200520004869',
    protocol: 'bkv',
    name: weight,
    weight,
    at: 1_790_000_000_000,
    msgId,
    fields: {},
    frame: 'fcfe',
  });
}

const waiting = () => redis.xlen(keys.uplink());

/** Of each weight, how many lie in the stream. */
async function kept(): Promise<Record<string, number>> {
  const entries = await redis.xrange(keys.uplink(), '-', '+');
  const weights = entries.map(([, [, text]]) => (JSON.parse(text!) as Report).weight);
  return Object.fromEntries([...Map.groupBy(weights, (one) => one)].map(([k, v]) => [k, v.length]));
}

/** Heartbeats come until one of them is, or is not, put into the stream. */
async function untilHeartbeats(expected: 'dropped' | 'stored'): Promise<void> {
  await eventually(async () => {
    const before = await waiting();
    await report('heartbeat');
    expect((await waiting()) > before ? 'stored' : 'dropped').toBe(expected);
  });
}

test('past the cap of the stream heartbeats are dropped, states and money never, until there is room', async () => {
  for (let n = 0; n < maxUplinkEntries; n += 1) await report('heartbeat');
  expect(await waiting()).toBe(maxUplinkEntries);
  await report('money');
  await untilHeartbeats('dropped');

  const before = await kept();
  for (let n = 0; n < 20; n += 1) {
    await Promise.all([report('heartbeat', n), report('state', n), report('money', n)]);
  }
  const after = await kept();
  expect(after['heartbeat']).toBe(before['heartbeat']);
  expect(after['state']).toBe(20);
  expect(after['money']).toBe(before['money']! + 20);

  await redis.xtrim(keys.uplink(), 'MAXLEN', 0);
  await untilHeartbeats('stored');
});

test('at the cap, and not past it, heartbeats are kept', async () => {
  for (let n = 0; n < maxUplinkEntries; n += 1) await report('state');
  const seen = Number(JSON.parse((await redis.hget(keys.gateways(), 'g1'))!).at);
  // Several looks at the stream later nothing has changed.
  await eventually(async () => {
    const { at } = JSON.parse((await redis.hget(keys.gateways(), 'g1'))!) as { at: number };
    expect(at - seen).toBeGreaterThan(800);
  });
  await report('heartbeat');
  expect(await kept()).toEqual({ state: maxUplinkEntries, heartbeat: 1 });
});
