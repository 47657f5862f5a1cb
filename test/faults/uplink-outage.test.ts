/** PostgreSQL dies while devices report: what a device was told to be stored stands in the tables afterwards, once. */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { createKeys } from '../../src/bridge/keys.ts';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { createFeed } from '../bench/feed.ts';
import { createReportSource, mixedDeviceIds } from '../bench/reports.ts';
import { eventually } from '../support/eventually.ts';
import { ap3000Size, bkvSize, connectPlain, type PlainDevice } from '../support/plain-device.ts';
import { type FaultyStack, startFaultyStack } from '../support/stack.ts';

const outageMs = 10_000;
const reportsPerSecond = 500;
const calmMs = 1_500;
/** Each reports so often over a connection of its own. */
const talkEveryMs = 20;
const talkers = 10;

let stack: FaultyStack;
const devices: PlainDevice[] = [];

beforeAll(async () => {
  stack = await startFaultyStack();
});

afterEach(async () => {
  await Promise.all(devices.splice(0).map((device) => device.close()));
});

afterAll(() => stack?.stop());

/** Resolves when it answers again, with how many reports waited at the end of the outage. */
async function killPostgresFor(ms: number): Promise<number> {
  const { server } = stack.postgres;
  await server.kill('SIGKILL');
  await delay(ms);
  const count = await waiting();
  await server.start();
  return count;
}

async function query<Row extends object>(text: string, values: unknown[] = []): Promise<Row[]> {
  const pool = connectPostgres({ url: stack.postgres.url, applicationName: 'test', max: 1 });
  try {
    return (await pool.query<Row>(text, values)).rows;
  } finally {
    await pool.end();
  }
}

/** How many reports nobody has taken; an entry goes once it is stored. */
async function waiting(): Promise<number> {
  const redis = connectRedis({ url: stack.redisUrl, purpose: 'blocking', name: 'test' });
  try {
    return await redis.xlen(`${stack.prefix}:uplink`);
  } finally {
    await closeRedis(redis);
  }
}

const untilDrained = () =>
  eventually(async () => expect(await waiting()).toBe(0), { withinMs: 30_000, everyMs: 200 });

test('500 reports a second during an outage are all stored afterwards, and none twice', {
  timeout: 90_000,
}, async () => {
  const redis = connectRedis({ url: stack.redisUrl, purpose: 'commands', name: 'feed' });
  const source = createReportSource(mixedDeviceIds(200));
  const stream = createKeys(stack.prefix, 4).uplink();
  const feed = createFeed({ redis, stream, source });
  try {
    feed.start(reportsPerSecond);
    await delay(calmMs);
    const count = await killPostgresFor(outageMs);
    // It was an outage, and the reports outlived it in Redis.
    expect(count).toBeGreaterThan(((outageMs / 1000) * reportsPerSecond) / 2);
    await delay(calmMs);
    await feed.stop();
  } finally {
    await feed.stop().catch(() => undefined);
    await closeRedis(redis);
  }
  await untilDrained();

  const log = await query<{ entry_id: string }>('SELECT entry_id FROM command_log');
  const stored = new Set(log.map(({ entry_id }) => entry_id));
  expect(log).toHaveLength(stored.size);
  expect(stored).toEqual(new Set(feed.entryIds));
  const orders = await query<{ key: string; energy: number }>(
    `SELECT device_id || '|' || order_key AS key, energy_wh AS energy FROM orders WHERE status = 'ended'`,
  );
  expect(orders).toHaveLength(source.ended.size);
  expect(new Map(orders.map(({ key, energy }) => [key, energy]))).toEqual(source.ended);
  // What is known of a device's last word may lag behind it by half a minute.
  const seen = await query<{ id: string; at: string }>(
    'SELECT device_id AS id, last_seen_at AS at FROM devices',
  );
  const seenAt = new Map(seen.map(({ id, at }) => [id, Number(at)]));
  const behind = [...feed.heardAt].filter(([id, at]) => (seenAt.get(id) ?? 0) < at - 30_000);
  expect(behind).toEqual([]);
});

test('devices are answered all the while, and what was answered for is an order each', {
  timeout: 90_000,
}, async () => {
  const ids = Array.from({ length: talkers }, (_, n) =>
    n % 2 === 0
      ? `8220052200${String(n).padStart(4, '0')}`
      : `04ab3a${n.toString(16).padStart(2, '0')}`,
  );
  let over = false;

  /** Ends one charge after the other; resolves with the keys of those that were answered. */
  async function talk(deviceId: string): Promise<string[]> {
    const isBkv = deviceId.length === 14;
    const device = await connectPlain(stack.tcp, isBkv ? bkvSize : ap3000Size);
    devices.push(device);
    const source = createReportSource([deviceId]);
    const answered: string[] = [];
    while (!over) {
      const report = source.next(Date.now());
      device.send(report.frame);
      const ends = report.weight === 'money';
      // An AP3000 power report has no answer.
      if (report.name !== 'power') await device.frame();
      if (ends) answered.push([...source.ended.keys()].at(-1)!);
      await delay(talkEveryMs);
    }
    return answered;
  }

  const talking = Promise.all(ids.map(talk));
  talking.catch(() => undefined);
  await delay(calmMs);
  expect(await killPostgresFor(outageMs / 2)).toBeGreaterThan(0);
  await delay(calmMs);
  over = true;
  const answered = (await talking).flat();
  await untilDrained();
  expect(answered.length).toBeGreaterThan(talkers);
  const orders = await query<{ key: string; count: string }>(
    `SELECT device_id || '|' || order_key AS key, count(*) AS count FROM orders
     WHERE device_id = ANY($1) AND status = 'ended' GROUP BY 1`,
    [ids],
  );
  expect(orders.every(({ count }) => count === '1')).toBe(true);
  const found = new Set(orders.map(({ key }) => key));
  expect(answered.filter((key) => !found.has(key))).toEqual([]);
});
