/** A table so full that a plan without an index shows. */
import { connectPostgres } from '../../src/connections/postgres.ts';
import { freshDatabase } from '../support/stores.ts';

/** 20,000 commands of 500 devices, most of them ended, accepted and settled at the moment of their number. */
export async function manyCommands(): Promise<{ url: string }> {
  const { url } = await freshDatabase();
  const pool = connectPostgres({ url, applicationName: 'store-test', max: 1 });
  await pool.query(
    `INSERT INTO commands (id, device_id, protocol, command, params, priority, accepted_at,
       not_before, deadline, ack_timeout_ms, attempts, backoff_ms, order_key, on_ambiguous, labels,
       api_key, status, version, late, inferred, settled_at, trail, ledger_only)
     SELECT lpad(n::text, 12, '0'), 'device-' || n % 500, 'bkv', 'port.query', '{}', 5, n, n,
       n + 60000, 10000, 4, 3000, 'port:1:0', 'resend', '{}', 'operator', status, 1, false, false,
       CASE WHEN status <> 'queued' THEN n END, '{}', n % 1000 = 0
     FROM (SELECT n, CASE WHEN n % 100 = 0 THEN 'queued' WHEN n % 97 = 0 THEN 'failed'
       WHEN n % 89 = 0 THEN 'unknown' ELSE 'succeeded' END AS status
       FROM generate_series(1, 20000) AS n) AS numbers`,
  );
  await pool.query('ANALYZE commands');
  await pool.end();
  return { url };
}

export async function explain(url: string, text: string, values: unknown[]): Promise<string> {
  const pool = connectPostgres({ url, applicationName: 'store-test', max: 1 });
  try {
    const { rows } = await pool.query<{ 'QUERY PLAN': string }>(`EXPLAIN ${text}`, values);
    return rows.map((row) => row['QUERY PLAN']).join('\n');
  } finally {
    await pool.end();
  }
}
