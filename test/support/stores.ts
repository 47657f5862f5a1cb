/** Real stores for tests: a prefix of one's own in the run's Redis, a database of one's own. */
import { randomBytes } from 'node:crypto';
import { inject } from 'vitest';
import { connectPostgres } from '../../src/connections/postgres.ts';
import {
  discoverOnlyPostgres,
  discoverOnlyRedis,
  type Found,
} from '../../src/discovery/discovery.ts';
import type { PrivateServer } from '../../src/discovery/private-server.ts';
import { databaseAt } from './global-setup.ts';

export type PrivateStore = Found & { server: PrivateServer };

/** The run's Redis and a key prefix that nobody else uses; removed when the run ends. */
export async function freshRedis(): Promise<{ url: string; prefix: string }> {
  const { run, redisUrl } = inject('stores');
  return { url: redisUrl, prefix: `${run}-${unique()}` };
}

/** A new database with all migrations; dropped when the run ends. */
export async function freshDatabase(): Promise<{ url: string }> {
  const { template } = inject('stores');
  if ('error' in template) throw new Error(`the migrations failed: ${template.error}`);
  return createDatabase(template.name);
}

/** A new database without any table. */
export async function emptyDatabase(): Promise<{ url: string }> {
  return createDatabase('template1');
}

/** A Redis of the test's own, to kill and start again. The test stops it. */
export async function privateRedis(): Promise<PrivateStore> {
  return owned(
    await discoverOnlyRedis({ env: process.env, allow: ['system', 'packages'], durable: false }),
  );
}

/** A PostgreSQL of the test's own, to kill and start again, without any table. The test stops it. */
export async function privatePostgres(): Promise<PrivateStore> {
  return owned(
    await discoverOnlyPostgres({ env: process.env, allow: ['system', 'packages'], durable: false }),
  );
}

async function createDatabase(template: string): Promise<{ url: string }> {
  const { run, postgresUrl } = inject('stores');
  const name = `${run}_${unique()}`;
  const pool = connectPostgres({ url: postgresUrl, applicationName: 'downlink-test', max: 1 });
  try {
    await pool.query(`CREATE DATABASE ${name} TEMPLATE ${template}`);
  } finally {
    await pool.end();
  }
  return { url: databaseAt(postgresUrl, name) };
}

function unique(): string {
  return randomBytes(4).toString('hex');
}

function owned(found: Found): PrivateStore {
  if (!found.server) throw new Error(`${found.url} is not a server of our own`);
  return { ...found, server: found.server };
}
