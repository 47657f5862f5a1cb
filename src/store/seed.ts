/** Fills a database with devices, ports, orders and log rows, made inside PostgreSQL, for benchmarks. */

import { connectPostgres } from '../connections/postgres.ts';
import { DownlinkError } from '../errors.ts';
import { createDatabase, type Database } from './database.ts';
import { createLogDays } from './log-days.ts';

export type SeedWanted = {
  url: string;
  devices: number;
  orders: number;
  log: number;
  /** The present moment of the seeded world. */
  now: number;
  /** The days that the log is spread over. */
  days?: number;
  /** Seed although the database holds what was not seeded. */
  besideForeign?: boolean;
  onProgress?: (progress: SeedProgress) => void;
};

export type SeedTable = 'devices' | 'ports' | 'orders' | 'command_log';
export type SeedProgress = { table: SeedTable; done: number; of: number };

const rowsAtOnce = 50_000;
const statementTimeoutMs = 300_000;
const defaultDays = 14;
const maxDays = 30;
const orderDays = 90;

/** Seeded devices: even numbers speak BKV, odd ones AP3000; no device of either maker bears such ids. */
const deviceOf = (n: string) => `CASE WHEN ${n} % 2 = 0 THEN '8299' || lpad((${n})::text, 10, '0')
  ELSE 'f9' || lpad(to_hex(${n}), 6, '0') END`;
const protocolOf = (n: string) => `CASE WHEN ${n} % 2 = 0 THEN 'bkv' ELSE 'ap3000' END`;
const seededId = "'^(8299[0-9]{10}|f9[0-9a-f]{6})$'";
/** The AP3000 ids have room for so many. */
const maxDevices = 10_000_000;
/** From 0 to 1, the same for a number whenever it is asked, so that seeding again adds nothing. */
const chance = (n: string, salt: number) =>
  `((hashint8extended(${n}, ${salt}) & 1048575) / 1048576.0)::double precision`;
/** Some devices are busier than others: the busiest tenth has about a third of what happens. */
const busyDevice = (n: string, salt: number) =>
  `floor($3::double precision * power(${chance(n, salt)}, 2))::bigint`;

/** A third was seen within the last five minutes, the others within a month. $3: now. */
const devicesSql = `
  INSERT INTO devices (device_id, protocol, first_seen_at, last_seen_at, facts)
  SELECT ${deviceOf('n')}, ${protocolOf('n')}, $3::bigint - 31 * 86400000::bigint,
    $3::bigint - (CASE WHEN n % 3 = 0 THEN 300000 ELSE 2592000000 END * ${chance('n', 1)})::bigint,
    jsonb_build_object('iccid', '8986' || lpad(n::text, 16, '0'), 'csq', n % 32, 'version', '2.' || n % 9)
  FROM generate_series($1::bigint, $2::bigint) AS n
  ON CONFLICT DO NOTHING`;

/** Two sockets of two holes, or ten ports. $3: now. */
const portsSql = `
  INSERT INTO ports (device_id, socket, port, state, code, power_w, voltage_v, updated_at)
  SELECT ${deviceOf('n')}, CASE WHEN n % 2 = 0 THEN 1 + p / 2 ELSE 0 END,
    CASE WHEN n % 2 = 0 THEN p % 2 ELSE p END, CASE WHEN busy THEN 'charging' ELSE 'idle' END,
    CASE WHEN busy THEN 1 ELSE 0 END, CASE WHEN busy THEN 60 + 240 * ${chance('n * 16 + p', 2)} END,
    CASE WHEN busy THEN 215 + 20 * ${chance('n * 16 + p', 3)} END,
    $3::bigint - (300000 * ${chance('n * 16 + p', 4)})::bigint
  FROM generate_series($1::bigint, $2::bigint) AS n
  CROSS JOIN LATERAL generate_series(0, CASE WHEN n % 2 = 0 THEN 3 ELSE 9 END) AS p
  CROSS JOIN LATERAL (SELECT ${chance('n * 16 + p', 5)} < 0.2 AS busy) AS use
  ON CONFLICT DO NOTHING`;

/** $3: devices, $4: now, $5: orders in all, which lie evenly over ${orderDays} days; the last half hour charges. */
const ordersSql = `
  INSERT INTO orders (device_id, order_key, era, socket, port, order_no, status, source, start_told_at,
    ended_at, created_at, updated_at, energy_wh, duration_s, max_power_w, amount_cents, end_reason)
  SELECT ${deviceOf('device')}, 'seed:' || n, 1, 0, (n % 4)::integer, 'SEED' || n,
    CASE WHEN ended THEN 'ended' ELSE 'charging' END, 'server', began,
    CASE WHEN ended THEN began + took END, began, CASE WHEN ended THEN began + took ELSE $4::bigint END,
    round(took / 3600000.0 * 180), took / 1000, 240, CASE WHEN ended THEN took / 60000 END,
    CASE WHEN ended THEN (ARRAY['full', 'time-up', 'unplugged'])[1 + n % 3] END
  FROM (
    SELECT n, ${busyDevice('n', 6)} AS device,
      $4::bigint - ((1 - n / $5::double precision) * ${orderDays} * 86400000)::bigint AS began,
      (1800000 + 12600000 * ${chance('n', 7)})::bigint AS took
    FROM generate_series($1::bigint, $2::bigint) AS n
  ) AS session
  CROSS JOIN LATERAL (SELECT began + took <= $4::bigint AS ended) AS fate
  ON CONFLICT DO NOTHING`;

/** $3: devices, $4: now, $5: rows in all, $6: days. Each chunk lies in a day or two. */
const logSql = `
  INSERT INTO command_log (at, entry_id, device_id, direction, protocol, name, weight, msg_id,
    command_id, fields, frame)
  SELECT $4::bigint - ((1 - n / $5::double precision) * $6::double precision * 86400000)::bigint - 1,
    'seed:' || n, ${deviceOf('device')}, CASE WHEN n % 3 = 0 THEN 'down' ELSE 'up' END,
    ${protocolOf('device')}, (ARRAY['port.query', 'status.report', 'charge.end'])[1 + n % 3],
    (ARRAY['command', 'state', 'money'])[1 + n % 3], n % 65536,
    CASE WHEN n % 3 = 0 THEN 'seed-' || n END,
    jsonb_build_object('socket', 1 + n % 2, 'port', n % 2, 'powerW', n % 300, 'businessNo', n % 65536),
    repeat(lpad(to_hex(n), 8, '0'), 8)
  FROM (
    SELECT n, ${busyDevice('n', 8)} AS device FROM generate_series($1::bigint, $2::bigint) AS n
  ) AS entry
  ON CONFLICT DO NOTHING`;

const foreignSql = `
  SELECT 'commands' AS "table" WHERE EXISTS (SELECT FROM commands)
  UNION ALL SELECT 'devices' WHERE EXISTS (SELECT FROM devices WHERE device_id !~ ${seededId})
  UNION ALL SELECT 'orders' WHERE EXISTS (SELECT FROM orders WHERE device_id !~ ${seededId})
  UNION ALL SELECT 'command_log' WHERE EXISTS (SELECT FROM command_log WHERE device_id !~ ${seededId})`;

/** Seeding again with the same numbers and moment adds nothing. Refuses a database that is in use. */
export async function seed(wanted: SeedWanted): Promise<void> {
  const { url, devices, orders, log, now, days = defaultDays, onProgress } = wanted;
  assertCount('devices', devices, 1, maxDevices);
  assertCount('orders', orders, 0, Number.MAX_SAFE_INTEGER);
  assertCount('log', log, 0, Number.MAX_SAFE_INTEGER);
  assertCount('days', days, 1, maxDays);
  const pool = connectPostgres({
    url,
    applicationName: 'downlink-seed',
    max: 2,
    statementTimeoutMs,
  });
  const database = createDatabase({ pool, statementTimeoutMs });
  const statement = (text: string, values: unknown[] = []) =>
    database.query<{ table: string }>('seed', text, values, { prepare: false });

  async function fill(table: SeedTable, text: string, of: number, values: unknown[]) {
    for (let done = 0; done < of; ) {
      const last = Math.min(done + rowsAtOnce, of);
      await statement(text, [done, last - 1, ...values]);
      done = last;
      onProgress?.({ table, done, of });
    }
  }

  try {
    if (!wanted.besideForeign) await assertUnused(statement);
    await makeDays(database, now, days);
    // The log is most of it, and a second processor may see to it meanwhile.
    await Promise.all([
      fill('command_log', logSql, log, [devices, now, log, days]),
      (async () => {
        await fill('devices', devicesSql, devices, [now]);
        await fill('ports', portsSql, devices, [now]);
        await fill('orders', ordersSql, orders, [devices, now, orders]);
      })(),
    ]);
    for (const table of ['devices', 'ports', 'orders', 'command_log']) {
      await statement(`VACUUM (ANALYZE) ${table}`);
    }
  } finally {
    database.close();
    await pool.end();
  }
}

async function assertUnused(
  statement: (text: string) => Promise<{ rows: { table: string }[] }>,
): Promise<void> {
  const tables = (await statement(foreignSql)).rows.map(({ table }) => table);
  if (tables.length === 0) return;
  throw new DownlinkError(
    'CONFLICT',
    `this database is in use (${tables.join(', ')}): seed an empty one, or say that you want it here`,
    { details: { tables } },
  );
}

async function makeDays(database: Database, now: number, daysBack: number): Promise<void> {
  await createLogDays({ database }).makeLogDays({ now, daysBack });
}

function assertCount(name: string, count: number, least: number, most: number): void {
  if (Number.isSafeInteger(count) && count >= least && count <= most) return;
  throw new DownlinkError('BAD_REQUEST', `${name} must be ${least} to ${most}, not ${count}`);
}
