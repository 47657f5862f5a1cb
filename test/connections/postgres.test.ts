import { afterEach, expect, test, vi } from 'vitest';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { emptyDatabase, privatePostgres } from '../support/stores.ts';

const open: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

test('a pool survives the loss of its server and serves again when it is back', async () => {
  const postgres = await privatePostgres();
  open.push(postgres.stop);
  const pool = connectPostgres({ url: postgres.url, applicationName: 'test', max: 2 });
  open.push(() => pool.end());
  await pool.query('SELECT 1');

  await postgres.server.kill('SIGQUIT');
  await expect(pool.query('SELECT 1')).rejects.toThrow();

  await postgres.server.start();
  expect((await pool.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

test('a connection that breaks while it is checked out rejects its query and nothing else', async () => {
  const { url } = await emptyDatabase();
  const pool = connectPostgres({ url, applicationName: 'test', max: 2 });
  open.push(() => pool.end());
  const client = await pool.connect();
  const { rows } = await client.query('SELECT pg_backend_pid() AS pid');
  await pool.query('SELECT pg_terminate_backend($1)', [rows[0].pid]);
  await expect(client.query('SELECT 1')).rejects.toThrow();
  client.release(true);
  expect((await pool.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

test('a pool with a minimum opens its connections ahead', async () => {
  const { url } = await emptyDatabase();
  const pool = connectPostgres({ url, applicationName: 'test', max: 5, min: 3 });
  open.push(() => pool.end());
  await vi.waitUntil(() => pool.idleCount >= 3, { timeout: 5000 });
});

test('the server ends a statement that takes too long', async () => {
  const { url } = await emptyDatabase();
  const pool = connectPostgres({ url, applicationName: 'test', statementTimeoutMs: 100 });
  open.push(() => pool.end());
  await expect(pool.query('SELECT pg_sleep(5)')).rejects.toThrow(/statement timeout/);
});
