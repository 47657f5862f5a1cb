/** Brings a database to this version's schema: plain SQL files, each applied once, whoever starts first. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PG_MIGRATE_LOCK_ID, type RunnerOption, runner } from 'node-pg-migrate';
import pg from 'pg';
import { DownlinkError, messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import { loadSqlMigrations } from './sql-migrations.ts';

export type MigrationStatus = { applied: string[]; pending: string[] };

type MigrateDeps = { url: string; log?: Log };

/** Beside this file, in the sources and in the build. */
const folder = join(import.meta.dirname, 'migrations');
const table = 'downlink_migrations';
const connectTimeoutMs = 5_000;
const lockPollMs = 100;
/** Another starter may be building indexes on a large table. */
const lockTimeoutMs = 600_000;

/** Applies what is missing, oldest first; returns the names of what this call applied. */
export async function migrate({ url, log }: MigrateDeps): Promise<string[]> {
  const names = await withClient(url, (client) => run(client, { direction: 'up' }));
  for (const migration of names) log?.info({ migration }, 'migration applied');
  return names;
}

/** Takes back the newest `steps` migrations, the data in their tables included; returns their names. */
export async function rollback({
  url,
  steps,
  log,
}: MigrateDeps & { steps: number }): Promise<string[]> {
  if (!Number.isInteger(steps) || steps < 1) {
    throw new DownlinkError('BAD_REQUEST', `a rollback takes back 1 or more steps, not ${steps}`);
  }
  const names = await withClient(url, (client) => run(client, { direction: 'down', count: steps }));
  for (const migration of names) log?.info({ migration }, 'migration rolled back');
  return names;
}

/** What is applied and what is missing; changes nothing. */
export async function migrationStatus({ url }: { url: string }): Promise<MigrationStatus> {
  const files = (await readdir(folder)).filter((file) => file.endsWith('.sql')).sort();
  const applied = await withClient(url, appliedNames);
  const pending = files
    .map((file) => file.slice(0, -'.sql'.length))
    .filter((name) => !applied.includes(name));
  return { applied, pending };
}

async function withClient<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({
    connectionString: url,
    application_name: 'downlink-migrate',
    connectionTimeoutMillis: connectTimeoutMs,
  });
  // A lost connection rejects the statement under way; without a listener it would end the process too.
  client.on('error', () => {});
  try {
    await client.connect();
  } catch (error) {
    throw new DownlinkError(
      'LEDGER_UNAVAILABLE',
      `PostgreSQL cannot be reached for migrations: ${messageOf(error)}`,
      { cause: error },
    );
  }
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

const tryLockSql = 'SELECT pg_try_advisory_lock($1) AS held';
const unlockSql = 'SELECT pg_advisory_unlock($1)';

/**
 * Asks again and again instead of waiting inside PostgreSQL: a statement that waits for the lock holds
 * a snapshot, the index build of the lock's holder waits for old snapshots, and the two would deadlock.
 */
async function lock(client: pg.Client): Promise<void> {
  const giveUpAt = performance.now() + lockTimeoutMs;
  for (;;) {
    const { rows } = await client.query<{ held: boolean }>(tryLockSql, [PG_MIGRATE_LOCK_ID]);
    if (rows[0]?.held) return;
    if (performance.now() > giveUpAt) {
      throw new DownlinkError(
        'TIMEOUT',
        `another process has been migrating this database for over ${lockTimeoutMs} ms`,
      );
    }
    await sleep(lockPollMs);
  }
}

async function run(
  client: pg.Client,
  options: Pick<RunnerOption, 'direction' | 'count'>,
): Promise<string[]> {
  await lock(client);
  try {
    const ran = await runner({
      ...options,
      dbClient: client,
      dir: folder,
      ignorePattern: '(?!.*\\.sql$).*',
      migrationsTable: table,
      migrationLoaderStrategies: [{ extensions: ['.sql'], loader: loadSqlMigrations }],
      noLock: true,
      singleTransaction: false,
      logger: quiet,
    });
    return ran.map(({ name }) => name);
  } finally {
    await client.query(unlockSql, [PG_MIGRATE_LOCK_ID]).catch(() => {});
  }
}

/** What the runner would print is in what `migrate` returns, logs and throws. */
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

const tableExistsSql = 'SELECT to_regclass($1) IS NOT NULL AS present';
const appliedSql = `SELECT name FROM ${table} ORDER BY run_on, id`;

async function appliedNames(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ present: boolean }>(tableExistsSql, [table]);
  if (!rows[0]?.present) return [];
  const applied = await client.query<{ name: string }>(appliedSql);
  return applied.rows.map(({ name }) => name);
}
