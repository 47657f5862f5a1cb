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
  healthCheckEveryMs?: number;
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
const HEALTH_CHECK_TIMEOUT_MS = 2_000;

/** A pool that outlives its connections. It connects when first asked, or ahead when `min` is set. */
export function connectPostgres({
  url,
  applicationName,
  max = MAX_CONNECTIONS,
  min = 0,
  statementTimeoutMs = STATEMENT_TIMEOUT_MS,
  healthCheckEveryMs = HEALTH_CHECK_EVERY_MS,
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
  keepHealthy(pool, { min: Math.min(min, max), everyMs: healthCheckEveryMs, log });
  return pool;
}

type Upkeep = { min: number; everyMs: number; log: Log | undefined };

/** Opens the connections that are missing to `min`, and finds dead ones among the idle, now and then. */
function keepHealthy(pool: pg.Pool, { min, everyMs, log }: Upkeep): void {
  const look = async () => {
    // All at once: one after the other, the pool would hand out the same one again and again.
    const count = pool.idleCount + Math.max(min - pool.totalCount, 0);
    const looks = await Promise.allSettled(Array.from({ length: count }, () => askOne(pool)));
    const failures = looks.filter((one) => one.status === 'rejected');
    const [first] = failures;
    if (first) log?.debug({ failures: failures.length, error: first.reason }, 'postgres ailing');
  };
  const timer = setInterval(() => {
    if (pool.ending || pool.ended) clearInterval(timer);
    else void look();
  }, everyMs);
  timer.unref();
  if (min > 0) void look();
}

/** A connection that does not answer is closed, and the pool opens another when it is needed. */
async function askOne(pool: pg.Pool): Promise<void> {
  const client = await pool.connect();
  try {
    // The empty query asks for nothing but an answer.
    await client.query({ text: '', query_timeout: HEALTH_CHECK_TIMEOUT_MS } as pg.QueryConfig);
    client.release();
  } catch (error) {
    client.release(error as Error);
    throw error;
  }
}
