import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { GatewayBridge } from '../../src/bridge/gateway-bridge.ts';
import { createKeys, type Keys } from '../../src/bridge/keys.ts';
import {
  type Delivery,
  type Event,
  parseBatch,
  parseStreamedOutcome,
  type Receipt,
  type Remember,
  type Unanswered,
  type Withdraw,
} from '../../src/bridge/messages.ts';
import { createOutbox, type Outbox } from '../../src/bridge/outbox.ts';
import {
  createGatewayBridge,
  type GatewayBridgeDeps,
} from '../../src/bridge/redis-gateway-bridge.ts';
import { createWithdrawals } from '../../src/bridge/withdrawals.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { createLog } from '../../src/log/log.ts';
import type { Outcome } from '../../src/outcome.ts';
import { createPacer } from '../../src/pacer.ts';
import { createManualClock } from '../gateway/manual-clock.ts';
import { eventually } from '../support/eventually.ts';
import { freshRedis } from '../support/stores.ts';

const log = createLog({ level: 'silent', role: 'test' });
const device = '82200520004869';
const deviceNo = (n: number) => `822005200${String(n).padStart(5, '0')}`;
const acked: Outcome = { kind: 'acked', result: {}, writtenAt: 1, endedAt: 2, frameIn: 'fc' };
const refused: Outcome = { kind: 'refused', reason: 'withdrawn', detail: 'taken back' };

let url: string;
let keys: Keys;
let store: Redis;
let closers: (() => Promise<void>)[] = [];

beforeEach(async () => {
  const redis = await freshRedis();
  url = redis.url;
  keys = createKeys(redis.prefix, 4);
  store = client('commands');
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

type Session = { deviceId: string; protocol: string; epoch: number };
type TestGateway = {
  bridge: GatewayBridge;
  remembered: Remember[];
  evicted: number[];
  sessions: Session[];
  logIn(deviceId: string): Promise<number>;
};

async function gateway(
  gatewayId: string,
  options: Partial<GatewayBridgeDeps> & { withdraw?: (withdraw: Withdraw) => void } = {},
): Promise<TestGateway> {
  const { withdraw = () => undefined, ...deps } = options;
  const bridge = createGatewayBridge({
    gatewayId,
    redis: client('commands'),
    subscriber: client('subscriber'),
    keys,
    log,
    ...deps,
  });
  const remembered: Remember[] = [];
  const evicted: number[] = [];
  const sessions: Session[] = [];
  await bridge.start({
    deliver: () => undefined,
    withdraw,
    settled: () => undefined,
    evict: ({ epoch }) => evicted.push(epoch),
    remember: (remember) => remembered.push(remember),
    sessions: () => sessions,
    load: () => ({ connections: 0, sessions: 0 }),
  });
  closers.push(() => bridge.stop());
  return {
    bridge,
    remembered,
    evicted,
    sessions,
    async logIn(deviceId) {
      const login = await bridge.login(deviceId, 'bkv');
      if (!login.granted) throw new Error(login.reason);
      await login.recalled;
      sessions.push({ deviceId, protocol: 'bkv', epoch: login.epoch });
      return login.epoch;
    },
  };
}

/** Everything that is said on a channel of workers. */
async function listen(channel: string): Promise<{ receipts: Receipt[]; woken: string[] }> {
  const subscriber = client('subscriber');
  const receipts: Receipt[] = [];
  const woken: string[] = [];
  subscriber.on('message', (_channel, text: string) => {
    if (channel !== keys.eventsChannel()) receipts.push(...parseBatch('receipt', text).messages);
    else
      for (const event of parseBatch('event', text).messages)
        if (isWake(event)) woken.push(event.deviceId);
  });
  await subscriber.subscribe(channel);
  return { receipts, woken };
}

const isWake = (event: Event): event is Extract<Event, { t: 'wake' }> => event.t === 'wake';

function deliveryOf(id: string, given: Partial<Delivery> = {}): Delivery {
  return {
    t: 'deliver',
    id,
    attempt: 1,
    workerId: 'w1',
    deviceId: device,
    epoch: 5,
    protocol: 'bkv',
    command: 'port.query',
    params: { socket: 1 },
    wireId: 7,
    frame: 'fcff',
    priority: 5,
    deadline: Date.now() + 60_000,
    ackTimeoutMs: 10_000,
    ...given,
  };
}

describe('frames left unanswered elsewhere', () => {
  const keep = (id: string, forMs = 60_000) => {
    const entry = { delivery: deliveryOf(id), writtenAt: 9, until: Date.now() + forMs };
    return store.hset(keys.unanswered(device), id, JSON.stringify(entry satisfies Unanswered));
  };

  test('are known when the login that recalls them says so', async () => {
    await keep('c1');
    await keep('c2');
    const one = await gateway('g1');
    const login = await one.bridge.login(device, 'bkv');
    if (!login.granted) throw new Error(login.reason);
    await login.recalled;
    expect(one.remembered.map(({ delivery }) => delivery.id).toSorted()).toEqual(['c1', 'c2']);
    const [{ delivery, writtenAt, forMs }] = one.remembered as [Remember];
    expect({ delivery, writtenAt }).toEqual({
      delivery: deliveryOf(delivery.id, delivery),
      writtenAt: 9,
    });
    expect(forMs).toBeLessThanOrEqual(60_000);
    expect(forMs).toBeGreaterThan(30_000);
  });

  test('that are over or unreadable are left out, and a login without any recalls nothing', async () => {
    await keep('over', -1);
    await store.hset(keys.unanswered(device), 'broken', '{"delivery":{}}');
    const one = await gateway('g1');
    await one.logIn(device);
    expect(one.remembered).toEqual([]);
    expect(await one.bridge.login(deviceNo(1), 'bkv')).not.toHaveProperty('recalled');
  });

  test('of one device are recalled within a bound', async () => {
    for (let n = 0; n < 2_000; n += 1) await keep(`c${n}`);
    const one = await gateway('g1');
    await one.logIn(device);
    expect(one.remembered.length).toBeGreaterThan(0);
    expect(one.remembered.length).toBeLessThan(200);
  });

  test('that cannot be read hold up no login', async () => {
    await keep('c1');
    const redis = client('commands');
    redis.hgetall = () => Promise.reject(new Error('redis is away'));
    const one = await gateway('g1', { redis });
    await one.logIn(device);
    expect(one.remembered).toEqual([]);
  });

  test('of hundreds of devices are recalled a bounded number at a time', async () => {
    const devices = Array.from({ length: 300 }, (_, n) => deviceNo(n));
    for (const deviceId of devices) {
      const entry = {
        delivery: deliveryOf('c', { deviceId }),
        writtenAt: 9,
        until: Date.now() + 60_000,
      };
      await store.hset(keys.unanswered(deviceId), 'c', JSON.stringify(entry));
    }
    const redis = client('commands');
    const hgetall = redis.hgetall.bind(redis) as Redis['hgetall'];
    let [atOnce, most] = [0, 0];
    redis.hgetall = (async (key: string) => {
      atOnce += 1;
      most = Math.max(most, atOnce);
      const all = await hgetall(key);
      atOnce -= 1;
      return all;
    }) as Redis['hgetall'];
    const one = await gateway('g1', { redis });
    await Promise.all(devices.map((deviceId) => one.logIn(deviceId)));
    expect(one.remembered).toHaveLength(300);
    expect(most).toBeGreaterThan(1);
    expect(most).toBeLessThanOrEqual(64);
  });

  test('are told to the gateway that holds the device by whoever learns of them', async () => {
    const one = await gateway('g1');
    const remember = { t: 'remember', delivery: deliveryOf('c1'), writtenAt: 9, forMs: 1_000 };
    createOutbox({ redis: store, from: 'w1' }).send(keys.gatewayChannel('g1'), remember);
    await eventually(() => expect(one.remembered).toEqual([remember]));
  });

  test('are recalled again when the gateway had been deaf', async () => {
    const one = await gateway('g1', { leaseMs: 400 });
    await one.logIn(device);
    await keep('c1');
    await store.hdel(keys.gateways(), 'g1');
    await eventually(() => expect(one.remembered).toMatchObject([{ delivery: { id: 'c1' } }]));
  });
});

describe('the flush of returning devices', () => {
  const park = (n: number, score: number) => store.zadd(keys.parked(deviceNo(n)), score, 'c1');
  const paced = () => {
    const clock = createManualClock();
    return { clock, flushPacer: createPacer({ perSecond: 10, burst: 1, clock }) };
  };

  test('announces each at its slot, most urgent first', async () => {
    const { clock, flushPacer } = paced();
    const [one, { woken }] = [
      await gateway('g1', { flushPacer }),
      await listen(keys.eventsChannel()),
    ];
    for (const [n, score] of [4, 4, 6, 0, 1_002].entries()) {
      await park(n, score);
      await one.logIn(deviceNo(n));
    }
    await eventually(() => expect(woken).toEqual([deviceNo(0)]));
    expect(flushPacer.size()).toBe(4);
    for (const n of [3, 1, 2, 4]) {
      clock.pass(100);
      await eventually(() => expect(woken.at(-1)).toBe(deviceNo(n)));
    }
    expect(woken).toHaveLength(5);
    expect(flushPacer.size()).toBe(0);
  });

  test('passes over a device that left, and one whose commands wait for an older one', async () => {
    const { clock, flushPacer } = paced();
    const [one, { woken }] = [
      await gateway('g1', { flushPacer }),
      await listen(keys.eventsChannel()),
    ];
    for (const n of [0, 1, 2]) await park(n, 4);
    await park(3, 2_004);
    const epochs: number[] = [];
    for (const n of [0, 3, 1, 2]) epochs.push(await one.logIn(deviceNo(n)));
    expect(flushPacer.size()).toBe(2);
    await one.bridge.logout(deviceNo(1), epochs[2]!);
    clock.pass(100);
    await eventually(() => expect(woken).toEqual([deviceNo(0), deviceNo(2)]));
    expect(flushPacer.size()).toBe(0);
  });

  test('passes over a device that another gateway took, unless it came back since', async () => {
    const { flushPacer } = paced();
    const one = await gateway('g1', { flushPacer });
    const two = await gateway('g2');
    for (const n of [0, 1]) await park(n, 4);
    await one.logIn(deviceNo(0));
    await one.logIn(deviceNo(1));
    expect(flushPacer.size()).toBe(1);
    await two.logIn(deviceNo(1));
    await eventually(() => expect(flushPacer.size()).toBe(0));
    const epoch = await one.logIn(deviceNo(1));
    const evict = { t: 'evict', deviceId: deviceNo(1), epoch };
    createOutbox({ redis: store, from: 'g2' }).send(keys.gatewayChannel('g1'), evict);
    await one.bridge.logout(deviceNo(1), epoch - 1);
    await eventually(() => expect(one.evicted).toContain(epoch));
    expect(flushPacer.size()).toBe(1);
  });

  test('does not make a lane with room wait for its slot', async () => {
    const { flushPacer } = paced();
    const [one, { woken }] = [
      await gateway('g1', { flushPacer }),
      await listen(keys.eventsChannel()),
    ];
    for (const n of [0, 1]) await park(n, 4);
    await one.logIn(deviceNo(0));
    const epoch = await one.logIn(deviceNo(1));
    one.bridge.roomFor(deviceNo(2), epoch);
    await eventually(() => expect(woken).toEqual([deviceNo(0), deviceNo(2)]));
  });

  test('holds for sessions that are registered again, too', async () => {
    const { clock, flushPacer } = paced();
    const one = await gateway('g1', { flushPacer, leaseMs: 400 });
    for (const n of [0, 1, 2, 3]) await one.logIn(deviceNo(n));
    for (const [n, score] of [4, 7, 0, 2_001].entries()) await park(n, score);
    const { woken } = await listen(keys.eventsChannel());
    await store.hdel(keys.gateways(), 'g1');
    await eventually(() => expect(woken.length + flushPacer.size()).toBe(3));
    expect(woken.length).toBeLessThanOrEqual(1);
    clock.pass(1_000);
    await eventually(() => expect(woken.toSorted()).toEqual([0, 1, 2].map(deviceNo)));
  });

  test('says again what no worker heard, at a slot as well', async () => {
    const { clock, flushPacer } = paced();
    const one = await gateway('g1', { flushPacer, leaseMs: 400 });
    for (const n of [0, 1]) await park(n, 4);
    for (const n of [0, 1]) await one.logIn(deviceNo(n));
    clock.pass(100);
    await eventually(() => expect(flushPacer.size()).toBe(2));
    const { woken } = await listen(keys.eventsChannel());
    clock.pass(1_000);
    await eventually(() => expect(woken.toSorted()).toEqual([0, 1].map(deviceNo)));
  });

  test('of a thousand devices queues each once and is over with the drain', async () => {
    const { flushPacer } = paced();
    const one = await gateway('g1', { flushPacer });
    const all = Array.from({ length: 1_000 }, (_, n) => n);
    await Promise.all(all.map((n) => park(n, n % 10)));
    await Promise.all(all.map((n) => one.logIn(deviceNo(n))));
    await Promise.all(all.slice(0, 100).map((n) => one.bridge.login(deviceNo(n), 'bkv')));
    expect(flushPacer.size()).toBeGreaterThanOrEqual(999);
    expect(flushPacer.size()).toBeLessThanOrEqual(1_000);
    one.bridge.drain();
    expect(flushPacer.size()).toBe(0);
    await one.bridge.login(deviceNo(1), 'bkv');
    expect(flushPacer.size()).toBe(0);
  });
});

describe('a withdrawal by a process that delivered nothing', () => {
  const withdraw: Withdraw = {
    t: 'withdraw',
    id: 'c1',
    attempt: 1,
    workerId: 'api-1',
    deviceId: device,
  };

  async function asker(
    outbox: Outbox = createOutbox({ redis: client('commands'), from: 'api-1' }),
  ) {
    const withdrawals = createWithdrawals({ from: 'api-1', outbox, keys, timeoutMs: 5_000 });
    const subscriber = client('subscriber');
    subscriber.on('message', (_channel, text: string) => {
      for (const receipt of parseBatch('receipt', text).messages) withdrawals.receive(receipt);
    });
    await subscriber.subscribe(keys.workerChannel('api-1'));
    return withdrawals;
  }

  test.each([
    ['withdrawn', refused],
    ['written', { kind: 'written', at: 123 }],
    ['ended', acked],
  ] as const)('is answered: %s', async (expected, answer) => {
    const one = await gateway('g1', { withdraw: (given) => one.bridge.answer(given, answer) });
    const withdrawals = await asker();
    const target = { gatewayId: 'g1', deviceId: device, id: 'c1', attempt: 1 };
    expect(await withdrawals.withdraw(target)).toBe(expected);
  });

  test('takes nothing from the receipts of the worker that delivered', async () => {
    const one = await gateway('g1');
    const [worker, api] = [
      await listen(keys.workerChannel('w1')),
      await listen(keys.workerChannel('api-1')),
    ];
    one.bridge.written('w1', 'c1', 1, 123);
    one.bridge.answer(withdraw, { kind: 'written', at: 123 });
    await eventually(() => expect(api.receipts).toMatchObject([{ t: 'written', at: 123 }]));
    await eventually(() => expect(worker.receipts).toMatchObject([{ t: 'written', at: 123 }]));
    one.bridge.ended(deliveryOf('c1'), acked);
    await eventually(() => expect(worker.receipts.at(-1)).toMatchObject({ t: 'ended' }));
    expect(api.receipts).toHaveLength(1);
  });

  test('leaves an end with its worker: it is sent there again until it is settled', async () => {
    let ticks = 0;
    const one = await gateway('g1', { clock: () => ticks });
    const [worker, api] = [
      await listen(keys.workerChannel('w1')),
      await listen(keys.workerChannel('api-1')),
    ];
    one.bridge.ended(deliveryOf('c1'), acked);
    one.bridge.answer(withdraw, acked);
    await eventually(() => expect(worker.receipts).toHaveLength(1));
    ticks = 2_500;
    await eventually(() => expect(worker.receipts).toHaveLength(2));
    expect(api.receipts).toHaveLength(1);
  });

  test('whose asker is gone puts nothing into the outcomes stream', async () => {
    const one = await gateway('g1');
    await listen(keys.workerChannel('w1'));
    one.bridge.ended(deliveryOf('c1'), acked);
    one.bridge.answer({ ...withdraw, workerId: 'gone' }, acked);
    // What would be kept for want of a listener is kept in the order of the publishes.
    one.bridge.ended(deliveryOf('c2', { workerId: 'gone' }), acked);
    await eventually(async () => expect(await store.xlen(keys.outcomes())).toBeGreaterThan(0));
    const entries = await store.xrange(keys.outcomes(), '-', '+');
    const streamed = entries.map(([, [, text]]) => parseStreamedOutcome(text!));
    expect(streamed).toMatchObject([{ id: 'c2', epoch: 5, wireId: 7, frame: 'fcff' }]);
  });
});
