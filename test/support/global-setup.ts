/** Servers for one run: the ones REDIS_URL and DATABASE_URL name, else private ones. */
import { randomBytes } from 'node:crypto';
import type { TestProject } from 'vitest/node';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { discover, type Stores } from '../../src/discovery/discovery.ts';
import { messageOf } from '../../src/errors.ts';

declare module 'vitest' {
  interface ProvidedContext {
    stores: RunStores;
  }
}

export type RunStores = {
  /** Begins the name of everything this run makes in the stores. */
  run: string;
  redisUrl: string;
  postgresUrl: string;
  /** A migrated database to clone; an error text where the migrations failed. */
  template: { name: string } | { error: string };
};

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { REDIS_URL: redisUrl, DATABASE_URL: databaseUrl } = process.env;
  const stores = await discover({ env: process.env, redisUrl, databaseUrl, durable: false });
  const run = `t${randomBytes(4).toString('hex')}`;
  const template = await makeTemplate(stores.postgres.url, `${run}_template`);
  project.provide('stores', {
    run,
    redisUrl: stores.redis.url,
    postgresUrl: stores.postgres.url,
    template,
  });
  return async () => {
    await cleanUp(stores, run);
    await stores.stop();
  };
}

async function makeTemplate(serverUrl: string, name: string): Promise<RunStores['template']> {
  const pool = connectPostgres({ url: serverUrl, applicationName: 'downlink-test', max: 1 });
  try {
    await pool.query(`CREATE DATABASE ${name}`);
    const { migrate } = await import('../../src/store/migrate.ts');
    await migrate({ url: databaseAt(serverUrl, name) });
    return { name };
  } catch (error) {
    // Told by the tests that need it: the others may run.
    return { error: messageOf(error) };
  } finally {
    await pool.end();
  }
}

/** The server's URL with another database. */
export function databaseAt(serverUrl: string, name: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.href;
}

/** Private servers take their data along; servers of somebody else get theirs back clean. */
async function cleanUp({ redis, postgres }: Stores, run: string): Promise<void> {
  if (redis.source === 'url') await removeKeys(redis.url, run);
  if (postgres.source === 'url') await dropDatabases(postgres.url, run);
}

async function removeKeys(url: string, run: string): Promise<void> {
  const client = connectRedis({ url, purpose: 'commands', name: 'downlink-test' });
  // Keys may begin with a hash tag, so the run's name stands anywhere in them.
  for await (const keys of client.scanStream({ match: `*${run}*`, count: 1000 })) {
    if (keys.length > 0) await client.unlink(...(keys as string[]));
  }
  await closeRedis(client);
}

async function dropDatabases(url: string, run: string): Promise<void> {
  const pool = connectPostgres({
    url,
    applicationName: 'downlink-test',
    max: 1,
    // Dropping a database ends with a checkpoint of the whole server.
    statementTimeoutMs: 60_000,
  });
  const { rows } = await pool.query<{ datname: string }>(
    'SELECT datname FROM pg_database WHERE datname LIKE $1',
    [`${run}\\_%`],
  );
  for (const { datname } of rows) await pool.query(`DROP DATABASE ${datname} WITH (FORCE)`);
  await pool.end();
}
