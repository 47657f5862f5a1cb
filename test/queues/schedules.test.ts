/** The engine of schedules on a real Redis. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createScheduleQueue, readTick, type ScheduleQueue } from '../../queues/schedules.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { freshRedis } from '../support/stores.ts';

let redis: Redis;
let engine: ScheduleQueue;
const hourly = { key: 'a', cron: null, everyMs: 3_600_000, timeZone: 'UTC' };
const daily = { key: 'a', cron: '0 8 * * *', everyMs: null, timeZone: 'Asia/Shanghai' };

beforeAll(async () => {
  const { url, prefix } = await freshRedis();
  redis = connectRedis({ url, purpose: 'commands', name: 'test' });
  engine = createScheduleQueue({
    redis,
    keys: createKeys(prefix, 4),
    onError: () => undefined,
  });
});
beforeEach(async () => {
  for (const key of await engine.keys()) await engine.disarm(key);
});
afterAll(async () => {
  await engine?.close();
  await closeRedis(redis);
});

/** Moments of all ticks that wait. */
async function waiting(): Promise<number[]> {
  const jobs = await engine.queue.getJobs(['delayed', 'waiting', 'prioritized']);
  return jobs.map((job) => readTick(job)?.at ?? Number.NaN).sort();
}

test('an armed schedule waits for its next tick and for no other', async () => {
  expect(await engine.arm(hourly)).toBe('armed');
  const [tick, ...others] = await waiting();
  expect(others).toEqual([]);
  expect(tick! % hourly.everyMs).toBe(0);
  expect(tick! - Date.now()).toBeGreaterThan(-1_000);
  expect(tick! - Date.now()).toBeLessThanOrEqual(hourly.everyMs + 1_000);
});

test('arming it again changes nothing', async () => {
  await engine.arm(daily);
  const before = await waiting();
  expect(await engine.arm(daily)).toBe('unchanged');
  expect(await waiting()).toEqual(before);
});

test('another timing takes the place of the old one, whose tick is gone', async () => {
  await engine.arm(hourly);
  expect(await engine.arm(daily)).toBe('armed');
  const [tick, ...others] = await waiting();
  expect(others).toEqual([]);
  expect(new Date(tick!).toISOString()).toMatch(/T00:00:00\.000Z$/);
  expect(await engine.arm({ ...daily, timeZone: 'UTC' })).toBe('armed');
  expect((await waiting()).map((at) => new Date(at).getUTCHours())).toEqual([8]);
});

test('a tick that is overdue, since no worker was there, is kept by arming again', async () => {
  const soon = { ...hourly, everyMs: 1_000 };
  await engine.arm(soon);
  const [due] = await waiting();
  while (Date.now() <= due! + 1_500) await new Promise((resolve) => setTimeout(resolve, 50));
  expect(await engine.arm(soon)).toBe('unchanged');
  expect(await waiting()).toEqual([due]);
});

test('a schedule whose next tick was lost is found out, and armed again on its old beat', async () => {
  await engine.arm(hourly);
  const [due] = await waiting();
  const jobKey = engine.queue.toKey(`repeat:a:${due}`);
  await redis.multi().zrem(engine.queue.toKey('delayed'), `repeat:a:${due}`).del(jobKey).exec();
  expect(await waiting()).toEqual([]);
  expect(await engine.arm(hourly)).toBe('armed');
  expect(await waiting()).toEqual([due]);
});

test('a disarmed schedule leaves nothing behind', async () => {
  await engine.arm(daily);
  expect(await engine.disarm('a')).toBe(true);
  expect(await waiting()).toEqual([]);
  expect(await engine.keys()).toEqual([]);
  expect(await engine.disarm('a')).toBe(false);
});

test('what is no tick is told from one', () => {
  const data = { cron: null, everyMs: 1_000, timeZone: 'UTC' };
  expect(readTick({ id: 'repeat:a:1700000000000', data })).toEqual({
    key: 'a',
    at: 1_700_000_000_000,
    timing: data,
  });
  for (const [id, given] of [
    ['1', data],
    ['repeat:a:soon', data],
    [undefined, data],
    ['repeat:a:1', null],
    ['repeat:a:1', { cron: 3 }],
  ] as const) {
    expect(readTick({ id, data: given })).toBeNull();
  }
});
