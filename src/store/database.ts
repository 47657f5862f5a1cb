/** The one way to PostgreSQL: every statement is timed, bounded, and refused at once while the server is away. */
import type { Pool, QueryConfig, QueryResult, QueryResultRow } from 'pg';
import { DownlinkError, messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { faultOf, isDataFault, unavailable } from './sql-faults.ts';

export type DatabaseDeps = {
  pool: Pool;
  log?: Log | undefined;
  metrics?: Pick<Metrics, 'dbQueryLatency'> | undefined;
  statementTimeoutMs?: number | undefined;
};

export type Database = {
  /**
   * Runs one statement. `name` is its label in the metrics and, unless `prepare` is false, the name of
   * its prepared form. Values that can never be stored reject with PostgreSQL's own error, everything
   * else with LEDGER_UNAVAILABLE.
   */
  query<Row extends QueryResultRow>(
    name: string,
    text: string,
    values: readonly unknown[],
    options?: { prepare?: boolean },
  ): Promise<QueryResult<Row>>;
  /** Runs a question of a caller; values that no column can hold reject with BAD_REQUEST. */
  read<Row extends QueryResultRow>(
    name: string,
    text: string,
    values: readonly unknown[],
    options?: { prepare?: boolean },
  ): Promise<Row[]>;
  /** Ends the probing of a server that is away; the pool is its maker's to end. */
  close(): void;
};

const defaultStatementTimeoutMs = 5_000;
/** Tries in all of a statement that was rolled back for the sake of another one. */
const tries = 4;
const firstProbeMs = 100;
const maxProbeMs = 1_000;
const probeTimeoutMs = 1_000;
const probeSql = 'SELECT 1';

export function createDatabase({
  pool,
  log,
  metrics,
  statementTimeoutMs = defaultStatementTimeoutMs,
}: DatabaseDeps): Database {
  /** Why the server counts as away; null while it is not. */
  let away: { cause: unknown } | null = null;
  let probeTimer: NodeJS.Timeout | null = null;
  let closed = false;

  async function query<Row extends QueryResultRow>(
    name: string,
    text: string,
    values: readonly unknown[],
    { prepare = true }: { prepare?: boolean } = {},
  ): Promise<QueryResult<Row>> {
    if (away) throw unavailable('PostgreSQL is away', away.cause);
    const startedAt = performance.now();
    try {
      return await attempt<Row>({ text, values, ...(prepare ? { name } : {}) });
    } catch (error) {
      throw judged(name, error);
    } finally {
      metrics?.dbQueryLatency.observe({ query: name }, (performance.now() - startedAt) / 1000);
    }
  }

  async function attempt<Row extends QueryResultRow>(statement: Statement) {
    for (let triesLeft = tries - 1; ; triesLeft -= 1) {
      try {
        return await send<Row>(statement, statementTimeoutMs);
      } catch (error) {
        if (triesLeft === 0 || faultOf(error) !== 'retry') throw error;
      }
    }
  }

  /** Waiting for a free connection counts too, hence a timer around pg's own. */
  async function send<Row extends QueryResultRow>(statement: Statement, timeoutMs: number) {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(tooLate(timeoutMs)), timeoutMs);
    });
    try {
      const config: QueryConfig & { query_timeout: number } = {
        ...statement,
        values: [...statement.values],
        query_timeout: timeoutMs,
      };
      return await Promise.race([pool.query<Row>(config), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  function judged(name: string, error: unknown): unknown {
    const fault = faultOf(error);
    if (fault === 'data') return error;
    if (fault === 'away') leave(error);
    return unavailable(`statement ${name} failed`, error);
  }

  function leave(cause: unknown): void {
    if (away || closed) return;
    away = { cause };
    log?.warn({ error: cause }, 'postgres is away');
    probeIn(firstProbeMs);
  }

  function probeIn(delayMs: number): void {
    probeTimer = setTimeout(() => void probe(delayMs), delayMs);
    probeTimer.unref();
  }

  async function probe(delayMs: number): Promise<void> {
    try {
      await send({ text: probeSql, values: [] }, probeTimeoutMs);
      away = null;
      log?.info('postgres is back');
    } catch (error) {
      if (closed || pool.ending) return;
      away = { cause: error };
      probeIn(Math.min(delayMs * 2, maxProbeMs));
    }
  }

  return {
    query,
    async read<Row extends QueryResultRow>(
      name: string,
      text: string,
      values: readonly unknown[],
      options?: { prepare?: boolean },
    ) {
      try {
        return (await query<Row>(name, text, values, options)).rows;
      } catch (error) {
        if (!isDataFault(error)) throw error;
        throw new DownlinkError(
          'BAD_REQUEST',
          `no row can have such a value: ${messageOf(error)}`,
          {
            cause: error,
          },
        );
      }
    },
    close() {
      closed = true;
      if (probeTimer) clearTimeout(probeTimer);
    },
  };
}

type Statement = { text: string; values: readonly unknown[]; name?: string };

function tooLate(timeoutMs: number): DownlinkError {
  return new DownlinkError('TIMEOUT', `PostgreSQL did not answer within ${timeoutMs} ms`);
}
