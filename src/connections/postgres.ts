/** The only maker of PostgreSQL pools. */
import pg from 'pg';
import type { Log } from '../log/log.ts';

export type PostgresConnection = {
  url: string;
  /** Shown by pg_stat_activity. */
  applicationName: string;
  max?: number;
  /** So many connections are kept open, and opened ahead. */
  min?: number;
  /** The server ends a statement that takes longer. */
  statementTimeoutMs?: number;
  log?: Log;
};

const MAX_CONNECTIONS = 20;
const CONNECT_TIMEOUT_MS = 5_000;
const STATEMENT_TIMEOUT_MS = 15_000;
/** How much longer than the server we wait before we call the socket dead. */
const REPLY_GRACE_MS = 5_000;
const IDLE_TIMEOUT_MS = 30 * 60_000;
const LIFETIME_S = 60 * 60;
const KEEP_ALIVE_MS = 10_000;
const HEALTH_CHECK_EVERY_MS = 60_000;

/** A pool that outlives its connections. It connects when first asked, or ahead when `min` is set. */
export function connectPostgres({
  url,
  applicationName,
  max = MAX_CONNECTIONS,
  min = 0,
  statementTimeoutMs = STATEMENT_TIMEOUT_MS,
  log,
}: PostgresConnection): pg.Pool {
  const pool = new pg.Pool({
    connectionString: url,
    application_name: applicationName,
    max,
    min: Math.min(min, max),
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: statementTimeoutMs,
    query_timeout: statementTimeoutMs + REPLY_GRACE_MS,
    idle_in_transaction_session_timeout: statementTimeoutMs,
    idleTimeoutMillis: IDLE_TIMEOUT_MS,
    maxLifetimeSeconds: LIFETIME_S,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_MS,
  });
  pool.on('error', (error) => log?.warn({ error }, 'postgres connection lost'));
  pool.on('connect', (client) => {
    // A connection may also break while it is checked out; its query rejects, this only listens.
    client.on('error', (error) => log?.debug({ error }, 'postgres client error'));
    client.on('notice', (notice) => {
      log?.info({ severity: notice.severity, notice: notice.message }, 'postgres notice');
    });
  });
  if (min > 0) keepWarm(pool, min, log);
  return pool;
}

/** Opens the connections that are missing to `min`, and finds dead idle ones, once a minute. */
function keepWarm(pool: pg.Pool, min: number, log: Log | undefined): void {
  const check = async () => {
    const clients = await Promise.allSettled(
      Array.from({ length: Math.max(min - pool.totalCount, 1) }, () => pool.connect()),
    );
    for (const client of clients) {
      if (client.status === 'rejected') {
        log?.debug({ error: client.reason }, 'postgres health check failed');
        continue;
      }
      // The empty query asks for nothing but an answer.
      await client.value.query('').then(
        () => client.value.release(),
        (error: Error) => client.value.release(error),
      );
    }
  };
  const timer = setInterval(() => {
    if (pool.ending || pool.ended) clearInterval(timer);
    else void check();
  }, HEALTH_CHECK_EVERY_MS);
  timer.unref();
  void check();
}
