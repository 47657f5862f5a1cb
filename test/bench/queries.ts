/**
 * The reads of devices, ports, orders and the command log on a database of full size, while others write;
 * beside each its naive form: all columns of a table without an index.
 */
import type pg from 'pg';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { createCommandLog } from '../../src/store/command-log.ts';
import { createDatabase } from '../../src/store/database.ts';
import { createDevices } from '../../src/store/devices.ts';
import { createOrders } from '../../src/store/orders.ts';
import { createPorts } from '../../src/store/ports.ts';
import { seed } from '../../src/store/seed.ts';
import { percentile } from '../support/percentile.ts';
import { benchStores, postgresVersion } from './processes.ts';
import type { Report } from './report.ts';

export type QueriesWanted = {
  devices: number;
  orders: number;
  log: number;
  say: (line: string) => void;
};

const repeats = 1_000;
const naiveRepeats = 10;
const askedAhead = 500;
const dayMs = 86_400_000;
const recentMs = 300_000;
/** Of the writers: a batch of log rows and one of ports each so often. */
const writeEveryMs = 100;
const rowsAtOnce = 50;

type Read = {
  name: string;
  ours: (deviceId: string) => Promise<unknown>;
  naive: (deviceId: string) => { text: string; values: unknown[] };
};

export async function benchQueries({ devices, orders, log, say }: QueriesWanted): Promise<Report> {
  const stores = await benchStores();
  const { url } = stores.postgres;
  // A copy of the whole log is one statement.
  const pool = connectPostgres({ url, applicationName: 'bench', statementTimeoutMs: 600_000 });
  try {
    const now = Date.now();
    say(`seeding ${devices} devices, ${orders} orders, ${log} log rows`);
    const seededAt = performance.now();
    await seed({ url, devices, orders, log, now });
    const seedS = (performance.now() - seededAt) / 1_000;
    for (const table of ['devices', 'ports', 'orders', 'command_log']) {
      say(`copying ${table} without an index`);
      await pool.query(`CREATE UNLOGGED TABLE naive_${table} AS TABLE ${table}`);
      await pool.query(`ANALYZE ${table}`);
      await pool.query(`ANALYZE naive_${table}`);
    }
    const { rows: ids } = await pool.query<{ device_id: string }>(
      'SELECT device_id FROM devices ORDER BY hashtext(device_id) LIMIT $1',
      [askedAhead],
    );
    const writing = startWriting(url, now);
    const figures: Record<string, number> = { seed_s: seedS };
    for (const read of readsOf(pool, now)) {
      say(`reading: ${read.name}`);
      const ours = await timed(repeats, ids, (id) => read.ours(id));
      const naive = await timed(naiveRepeats, ids, (id) => {
        const { text, values } = read.naive(id);
        return pool.query(text, values);
      });
      figures[`${read.name}_p50_ms`] = percentile(ours, 0.5);
      figures[`${read.name}_p99_ms`] = percentile(ours, 0.99);
      figures[`${read.name}_naive_p50_ms`] = percentile(naive, 0.5);
      figures[`${read.name}_naive_p99_ms`] = percentile(naive, 0.99);
      figures[`${read.name}_ratio`] = percentile(naive, 0.5) / percentile(ours, 0.5);
    }
    figures['written_rows_per_s'] = await writing.stop();
    return {
      name: 'queries',
      figures,
      versions: { postgres: await postgresVersion(url) },
      notes: [
        `${devices} devices, ${orders} orders, ${log} log rows; ${repeats} reads each of ours and ${naiveRepeats} of the naive form, one at a time`,
        'ours: through the store, from the call to the rows as values · naive: all columns of a copy without an index',
        'ratio: naive P50 to our P50',
      ],
    };
  } finally {
    await pool.end();
    await stores.stop();
  }
}

function readsOf(pool: pg.Pool, now: number): Read[] {
  const database = createDatabase({ pool });
  const devices = createDevices({ database });
  const ports = createPorts({ database });
  const orders = createOrders({ database });
  const commandLog = createCommandLog({ database });
  return [
    {
      name: 'online',
      ours: () => devices.recentlySeen({ since: now - recentMs, limit: 100 }),
      naive: () => ({
        text: 'SELECT * FROM naive_devices WHERE last_seen_at >= $1 ORDER BY last_seen_at DESC LIMIT 100',
        values: [now - recentMs],
      }),
    },
    {
      name: 'device',
      ours: (id) => devices.find(id),
      naive: (id) => ({ text: 'SELECT * FROM naive_devices WHERE device_id = $1', values: [id] }),
    },
    {
      name: 'ports',
      ours: (deviceId) => ports.list(deviceId),
      naive: (id) => ({
        text: 'SELECT * FROM naive_ports WHERE device_id = $1 ORDER BY socket, port',
        values: [id],
      }),
    },
    {
      name: 'orders',
      ours: (deviceId) => orders.list({ deviceId, limit: 100 }),
      naive: (id) => ({
        text: 'SELECT * FROM naive_orders WHERE device_id = $1 ORDER BY created_at DESC LIMIT 100',
        values: [id],
      }),
    },
    {
      name: 'log',
      ours: (deviceId) =>
        commandLog.list({ deviceId, from: now - 2 * dayMs, to: now - dayMs, limit: 100 }),
      naive: (id) => ({
        text: `SELECT * FROM naive_command_log WHERE device_id = $1 AND at >= $2 AND at < $3
          ORDER BY at DESC LIMIT 100`,
        values: [id, now - 2 * dayMs, now - dayMs],
      }),
    },
  ];
}

/** What workers do meanwhile: reports into the log, and ports. */
function startWriting(url: string, now: number) {
  const pool = connectPostgres({ url, applicationName: 'bench-writer', max: 2 });
  const database = createDatabase({ pool });
  const commandLog = createCommandLog({ database });
  const ports = createPorts({ database });
  const startedAt = performance.now();
  let rows = 0;
  let stopped = false;

  async function write(batch: number): Promise<void> {
    const each = Array.from({ length: rowsAtOnce }, (_, i) => {
      const deviceId = `8299${String(2 * (batch * rowsAtOnce + i)).padStart(10, '0')}`;
      return { deviceId, at: now + batch, entryId: `bench-${batch}-${i}` };
    });
    const report = { direction: 'up' as const, protocol: 'bkv', name: 'socket.status', msgId: 0 };
    const rest = { weight: 'state', commandId: null, fields: { socket: 1 }, frame: 'fcfe' };
    await commandLog.add(each.map((row) => ({ ...row, ...report, ...rest })));
    const port = { kind: 'port' as const, socket: 1, port: 0, state: 'charging' as const, code: 1 };
    const readings = { powerW: batch % 300 };
    await ports.note(each.map(({ deviceId, at }) => ({ ...port, readings, deviceId, at })));
    rows += 2 * rowsAtOnce;
  }

  const running = (async () => {
    for (let batch = 0; !stopped; batch += 1) {
      await write(batch);
      await new Promise((resolve) => setTimeout(resolve, writeEveryMs));
    }
  })();

  return {
    async stop() {
      stopped = true;
      await running;
      await pool.end();
      return rows / ((performance.now() - startedAt) / 1_000);
    },
  };
}

async function timed(
  count: number,
  ids: readonly { device_id: string }[],
  read: (deviceId: string) => Promise<unknown>,
): Promise<number[]> {
  const ms: number[] = [];
  for (let i = 0; i < count; i += 1) {
    const { device_id: id } = ids[i % ids.length] ?? { device_id: '' };
    const startedAt = performance.now();
    await read(id);
    ms.push(performance.now() - startedAt);
  }
  return ms;
}
