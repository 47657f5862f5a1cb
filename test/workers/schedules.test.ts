/** Schedules that tick, on a real Redis and a real PostgreSQL; accept is written by hand. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { AcceptRequest } from '../../queues/accept-contract.ts';
import { createScheduleQueue, type ScheduleQueue } from '../../queues/schedules.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { DownlinkError } from '../../src/errors.ts';
import { createLog } from '../../src/log/log.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import type { Schedules } from '../../src/store/contract.ts';
import { createDatabase } from '../../src/store/database.ts';
import { createSchedules } from '../../src/store/schedules.ts';
import { createScheduleConsumer, type ScheduleConsumer } from '../../workers/schedules.ts';
import { eventually } from '../support/eventually.ts';
import { freshDatabase, freshRedis } from '../support/stores.ts';

const log = createLog({ level: 'silent', role: 'test' });
const body = { deviceId: '82200520004869', command: 'port.query', params: { socket: 1 } };
const second = { cron: null, everyMs: 1_000, timeZone: 'UTC' };
const daily = { cron: '0 8 * * *', everyMs: null, timeZone: 'Asia/Shanghai' };

let url: string;
let prefix: string;
let redis: Redis;
let engine: ScheduleQueue;
let schedules: Schedules;
let asked: { at: number; request: AcceptRequest }[];
let answer: (request: AcceptRequest) => Promise<string>;
let closers: (() => Promise<unknown>)[];
let metrics: ReturnType<typeof createMetrics>;

beforeEach(async () => {
  ({ url, prefix } = await freshRedis());
  const database = await freshDatabase();
  const pool = connectPostgres({ url: database.url, applicationName: 'test', max: 2 });
  redis = connectRedis({ url, purpose: 'commands', name: 'test' });
  engine = createScheduleQueue({ redis, keys: createKeys(prefix, 4), onError: () => undefined });
  schedules = createSchedules({ database: createDatabase({ pool }) });
  metrics = createMetrics('worker');
  asked = [];
  answer = async () => 'command-1';
  closers = [() => pool.end(), () => closeRedis(redis), () => engine.close()];
});
afterEach(async () => {
  for (const close of closers.reverse()) await close();
});

async function startConsumer(more: { schedules?: Schedules } = {}): Promise<ScheduleConsumer> {
  const blocking = connectRedis({ url, purpose: 'blocking', name: 'test:blocking' });
  const consumer = createScheduleConsumer({
    keys: createKeys(prefix, 4),
    blocking,
    queue: engine,
    schedules,
    accept: async (request) => {
      asked.push({ at: Date.now(), request });
      const id = await answer(request);
      return { record: { id } as never, durability: 'both', replayed: false };
    },
    metrics,
    log,
    ...more,
  });
  closers.push(async () => {
    await consumer.stop(2_000);
    await closeRedis(blocking);
  });
  await consumer.start();
  return consumer;
}

async function put(key: string, timing: object, arm = true): Promise<void> {
  await schedules.put({ key, ...second, ...timing, body, apiKey: 'app', updatedAt: Date.now() });
  if (arm) await engine.arm({ key, ...second, ...timing });
}

/** The moment of each tick that was handed to accept, as its key names it. */
const ticks = () => asked.map(({ request }) => Number(request.idempotencyKey?.split(':')[2]));
const endsOf = async (end: string) =>
  (await metrics.scheduleTicks.get()).values.find(({ labels }) => labels.end === end)?.value ?? 0;

test('each tick hands the body to accept under a key of its own, once', async () => {
  await put('blink', second);
  await startConsumer();
  await eventually(() => expect(asked.length).toBeGreaterThanOrEqual(3));
  const seen = ticks();
  expect(new Set(seen).size).toBe(seen.length);
  expect(seen.filter((at) => at % 1_000 !== 0)).toEqual([]);
  expect(asked[0]?.request).toEqual({
    body,
    apiKey: 'app',
    claimAs: 'schedules',
    idempotencyKey: `schedule:blink:${seen[0]}`,
  });
  // Never before it is due.
  for (const [i, { at }] of asked.entries()) expect(at).toBeGreaterThanOrEqual(seen[i]!);
  await eventually(async () => {
    const found = await schedules.find('blink');
    expect(found).toMatchObject({ lastCommandId: 'command-1', lastError: null });
    expect(seen).toContain(found?.lastTickAt);
  });
});

test('after a time without workers the ticks that were missed become one', async () => {
  await put('blink', second);
  const due = (await engine.queue.getJobScheduler('blink'))!.next!;
  while (Date.now() <= due + 3_000) await new Promise((resolve) => setTimeout(resolve, 50));
  // A duty that looks meanwhile neither adds one nor takes it away.
  expect(await engine.arm({ key: 'blink', ...second })).toBe('unchanged');
  const startedAt = Date.now();
  await startConsumer();
  await eventually(() => expect(asked.length).toBeGreaterThanOrEqual(3));
  const [missed, ...others] = ticks();
  expect(missed).toBe(due);
  expect(others.filter((at) => at < startedAt)).toEqual([]);
});

test('a tick whose worker died after accept is not handed on again', async () => {
  await put('blink', second);
  const due = (await engine.queue.getJobScheduler('blink'))!.next!;
  await schedules.ticked('blink', { at: due, commandId: 'command-0', error: null });
  await startConsumer();
  await eventually(() => expect(asked.length).toBeGreaterThan(0));
  expect(ticks()).not.toContain(due);
  expect(await endsOf('repeated')).toBe(1);
});

test('a refusal is noted with its reason, and not tried again', async () => {
  answer = async () => {
    throw new DownlinkError('TOO_MANY_WAITING', 'the device has enough to do');
  };
  await put('blink', second);
  await startConsumer();
  await eventually(() => expect(asked.length).toBeGreaterThanOrEqual(3));
  expect(new Set(ticks()).size).toBe(asked.length);
  await eventually(async () => {
    expect(await schedules.find('blink')).toMatchObject({
      lastCommandId: null,
      lastError: 'TOO_MANY_WAITING: the device has enough to do',
    });
  });
  expect(await endsOf('refused')).toBeGreaterThanOrEqual(2);
});

test('a tick that meets no ledger is tried again within its period, under the same key', async () => {
  let away = true;
  answer = async () => {
    if (!away) return 'command-2';
    away = false;
    throw new DownlinkError('LEDGER_UNAVAILABLE', 'the ledger is away');
  };
  await put('slow', { everyMs: 5_000 });
  await startConsumer();
  await eventually(() => expect(asked.length).toBeGreaterThanOrEqual(2), { withinMs: 12_000 });
  const [first, again] = ticks();
  expect(again).toBe(first);
  await eventually(async () => {
    expect(await schedules.find('slow')).toMatchObject({
      lastTickAt: first,
      lastCommandId: 'command-2',
      lastError: null,
    });
  });
});

test('once the next tick is due, the one that met no ledger is given up', async () => {
  answer = async () => {
    throw new DownlinkError('LEDGER_UNAVAILABLE', 'the ledger is away');
  };
  await put('blink', second);
  await startConsumer();
  await eventually(async () => {
    expect(await endsOf('missed')).toBeGreaterThanOrEqual(2);
  });
  for (const tick of new Set(ticks())) {
    expect(ticks().filter((at) => at === tick).length).toBeLessThanOrEqual(2);
  }
  expect((await schedules.find('blink'))?.lastError).toBe('missed: the ledger is away');
});

test('a tick of a schedule that was removed meanwhile does nothing', async () => {
  await put('blink', second);
  await schedules.remove('blink');
  await startConsumer();
  await eventually(async () => {
    expect(await endsOf('gone')).toBe(1);
    expect(await engine.keys()).toEqual([]);
  });
  expect(asked).toEqual([]);
});

test('a tick of a timing that was replaced meanwhile does nothing', async () => {
  await put('blink', second);
  await put('blink', daily, false);
  await startConsumer();
  await eventually(async () => expect(await endsOf('gone')).toBeGreaterThanOrEqual(1));
  expect(asked).toEqual([]);
});

test('reconciling arms what the ledger holds, and only that', async () => {
  const consumer = await startConsumer();
  await put('a', daily, false);
  await put('b', { everyMs: 3_600_000 }, false);
  await engine.arm({ key: 'orphan', ...daily });
  expect(await consumer.reconcile()).toEqual({ armed: 2, disarmed: 1 });
  expect((await engine.keys()).sort()).toEqual(['a', 'b']);
  expect(await consumer.reconcile()).toEqual({ armed: 0, disarmed: 0 });
});

test('a Redis that lost its memory is armed again, without a tick of its own', async () => {
  const consumer = await startConsumer();
  await put('a', { everyMs: 3_600_000 });
  const before = (await engine.queue.getJobScheduler('a'))?.next;
  await redis.del(...(await redis.keys(`{${prefix}-0}:schedules:*`)));
  expect(await consumer.reconcile()).toEqual({ armed: 1, disarmed: 0 });
  expect((await engine.queue.getJobScheduler('a'))?.next).toBe(before);
  expect((await engine.queue.getJobCounts('delayed'))['delayed']).toBe(1);
  expect(asked).toEqual([]);
});

test('nonsense in the queue is told and taken out, and the ticks go on', async () => {
  await startConsumer();
  await engine.queue.add('nonsense', { cron: 7 } as never);
  await engine.queue.add('nonsense', 'text' as never, { jobId: 'repeat-me' });
  await put('blink', second);
  await eventually(() => expect(asked.length).toBeGreaterThanOrEqual(1));
  await eventually(async () => expect(await endsOf('invalid')).toBe(2));
});
