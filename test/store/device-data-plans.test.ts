/** At 50,000 rows of each kind every read of what devices told goes by an index. */
import { beforeAll, describe, expect, it } from 'vitest';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { listLogSql } from '../../src/store/command-log.ts';
import { recentlySeenSql } from '../../src/store/devices.ts';
import { listOrdersSql } from '../../src/store/orders.ts';
import { listPortsSql } from '../../src/store/ports.ts';
import { seed } from '../../src/store/seed.ts';
import { freshDatabase } from '../support/stores.ts';

const now = Date.now();
const device = '82990000000002';
const dayMs = 86_400_000;

type Plan = {
  'Node Type': string;
  'Relation Name'?: string;
  'Index Name'?: string;
  Plans?: Plan[];
};

let url: string;

beforeAll(async () => {
  ({ url } = await freshDatabase());
  // So many devices have over 50,000 ports among them.
  await seed({ url, devices: 7_500, orders: 50_000, log: 50_000, now });
  const pool = connectPostgres({ url, applicationName: 'store-test', max: 1 });
  await pool.query(
    `INSERT INTO devices (device_id, protocol, first_seen_at, last_seen_at)
     SELECT 'more-' || n, 'bkv', 0, $1::bigint - n * 20000 FROM generate_series(1, 50000) AS n`,
    [now],
  );
  await pool.query('ANALYZE devices');
  await pool.end();
}, 120_000);

/** As a prepared statement runs: planned for its values, and planned once for all values. */
async function plansOf(text: string, values: readonly unknown[]): Promise<Plan[][]> {
  const pool = connectPostgres({ url, applicationName: 'store-test', max: 1 });
  try {
    const plans: Plan[][] = [];
    for (const mode of ['force_custom_plan', 'force_generic_plan']) {
      await pool.query(`SET plan_cache_mode = ${mode}`);
      const name = `plan-${mode}`;
      const literals = values.map((value) => (value === null ? 'NULL' : `'${value}'`)).join(', ');
      await pool.query(`PREPARE "${name}" AS ${text}`);
      const { rows } = await pool.query<{ 'QUERY PLAN': [{ Plan: Plan }] }>(
        `EXPLAIN (FORMAT JSON) EXECUTE "${name}"(${literals})`,
      );
      plans.push(nodesOf(rows[0]!['QUERY PLAN'][0].Plan));
    }
    return plans;
  } finally {
    await pool.end();
  }
}

function nodesOf(plan: Plan): Plan[] {
  return [plan, ...(plan.Plans ?? []).flatMap(nodesOf)];
}

const big = Number.MAX_SAFE_INTEGER;
const reads = [
  {
    read: 'devices seen in the last five minutes',
    text: recentlySeenSql,
    values: [now - 300_000, big, '', null, 101],
    index: /^devices_last_seen$/,
  },
  {
    read: 'the next page of those of one protocol',
    text: recentlySeenSql,
    values: [now - 300_000, now - 60_000, device, 'bkv', 101],
    index: /^devices_last_seen$/,
  },
  {
    read: 'the ports of a device',
    text: listPortsSql,
    values: [device],
    index: /^ports_pkey$/,
  },
  {
    read: 'the latest orders of a device',
    text: listOrdersSql,
    values: [device, 0, big, 0, null, 101],
    index: /^orders_device$/,
  },
  {
    read: 'the ended orders of a device before a moment',
    text: listOrdersSql,
    values: [device, 0, now - dayMs, 5, 'ended', 101],
    index: /^orders_device$/,
  },
  {
    read: 'the command log of a device in a time range',
    text: listLogSql,
    values: [device, now - 2 * dayMs, now, '', null, null, 101],
    index: /^command_log_(\d{8}|default)_pkey$/,
  },
];

describe('at 50,000 rows', () => {
  it.each(reads)('$read: by its index, without a scan of the table', async (given) => {
    for (const nodes of await plansOf(given.text, given.values)) {
      const kinds = nodes.map((node) => node['Node Type']);
      expect(kinds).not.toContain('Seq Scan');
      const indexes = nodes.flatMap((node) => node['Index Name'] ?? []);
      expect(indexes.length).toBeGreaterThan(0);
      for (const index of indexes) expect(index).toMatch(given.index);
    }
  });

  it('a time range of the log opens the days in it alone', async () => {
    const [custom] = await plansOf(listLogSql, [device, now - dayMs, now - 1, '', null, null, 101]);
    const opened = new Set(custom!.flatMap((node) => node['Relation Name'] ?? []));
    expect(opened.size).toBe(2);
    expect([...opened]).not.toContain('command_log_default');
  });
});
