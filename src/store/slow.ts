/** Statements that take long, from PostgreSQL's own count of them. */
import { connectPostgres } from '../connections/postgres.ts';
import { DownlinkError } from '../errors.ts';

export type SlowStatement = {
  /** With placeholders for the values, cut to a bounded length. */
  query: string;
  calls: number;
  meanMs: number;
  maxMs: number;
  totalMs: number;
  rows: number;
};

export type SlowAnswer =
  | { available: true; statements: SlowStatement[] }
  /** PostgreSQL does not count them; the sentence says how to turn that on. */
  | { available: false; hint: string };

export const maxSlowLimit = 200;
const maxQueryLength = 2_000;

/** Where the view stands, whichever schema the extension was put in, and whether its library is loaded. */
const presenceSql = `
  SELECT
    (SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
      WHERE extname = 'pg_stat_statements') AS schema,
    current_setting('pg_stat_statements.max', true) IS NOT NULL AS loaded,
    EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements') AS installed`;

const statementsSql = (schema: string) => `
  SELECT left(query, ${maxQueryLength}) AS query, calls::double precision AS calls,
    mean_exec_time AS "meanMs", max_exec_time AS "maxMs", total_exec_time AS "totalMs",
    rows::double precision AS rows
  FROM ${schema}.pg_stat_statements
  WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND mean_exec_time >= $1
  ORDER BY mean_exec_time DESC LIMIT $2`;

const reload = "restart PostgreSQL with shared_preload_libraries = 'pg_stat_statements'";
const create = 'run CREATE EXTENSION pg_stat_statements in this database as a superuser';

/** Statements of this database whose mean is at least `meanMs`, the slowest first. */
export async function slowStatements({
  url,
  meanMs,
  limit,
}: {
  url: string;
  meanMs: number;
  limit: number;
}): Promise<SlowAnswer> {
  if (!(meanMs >= 0))
    throw new DownlinkError('BAD_REQUEST', `mean must be 0 ms or more, not ${meanMs}`);
  if (!Number.isInteger(limit) || limit < 1 || limit > maxSlowLimit) {
    throw new DownlinkError('BAD_REQUEST', `limit must be 1 to ${maxSlowLimit}, not ${limit}`);
  }
  const pool = connectPostgres({ url, applicationName: 'downlink-slow', max: 1 });
  try {
    const { rows } = await pool.query<{
      schema: string | null;
      loaded: boolean;
      installed: boolean;
    }>(presenceSql);
    const { schema = null, loaded = false, installed = false } = rows[0] ?? {};
    if (!installed) {
      return {
        available: false,
        hint: `pg_stat_statements is not installed: install PostgreSQL's contrib package, ${reload}, and ${create}`,
      };
    }
    if (schema === null || !loaded) {
      const steps = [...(loaded ? [] : [reload]), ...(schema === null ? [create] : [])];
      return { available: false, hint: `statements are not counted: ${steps.join(', then ')}` };
    }
    const answer = await pool.query<SlowStatement>(statementsSql(schema), [meanMs, limit]);
    return { available: true, statements: answer.rows };
  } catch (error) {
    throw new DownlinkError('LEDGER_UNAVAILABLE', 'PostgreSQL did not tell its slow statements', {
      cause: error,
    });
  } finally {
    await pool.end();
  }
}
