import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { Writable } from 'node:stream';
import { afterEach, expect, test, vi } from 'vitest';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { createLog } from '../../src/log/log.ts';
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

test('a connection that stopped answering while it was idle is found and replaced', async () => {
  const { url } = await emptyDatabase();
  const { proxy, silence } = await startProxy(url);
  const options = { url: proxy, applicationName: 'test', max: 3, min: 3, healthCheckEveryMs: 100 };
  const pool = connectPostgres(options);
  open.push(() => pool.end());
  await vi.waitUntil(() => pool.idleCount === 3, { timeout: 5_000 });
  let removed = 0;
  pool.on('remove', () => {
    removed += 1;
  });
  silence();
  await vi.waitUntil(() => removed >= 3, { timeout: 10_000 });
  await vi.waitUntil(() => pool.idleCount === 3, { timeout: 10_000 });
  expect((await pool.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

test('what the server remarks is logged, and its list of connections names the process', async () => {
  const { url } = await emptyDatabase();
  let log = '';
  const destination = new Writable({
    write(chunk, _encoding, done) {
      log += chunk;
      done();
    },
  });
  const pool = connectPostgres({
    url,
    applicationName: 'api-7',
    log: createLog({ level: 'info', role: 'test', destination }),
  });
  open.push(() => pool.end());
  await pool.query("DO $$ BEGIN RAISE NOTICE 'mind the gap'; END $$");
  await vi.waitUntil(() => log.includes('mind the gap'), { timeout: 5_000 });
  const { rows } = await pool.query("SELECT current_setting('application_name') AS name");
  expect(rows).toEqual([{ name: 'api-7' }]);
});

test('a pool is bounded as it was designed', () => {
  const pool = connectPostgres({
    url: 'postgres://nobody@127.0.0.1:1/nothing',
    applicationName: 'x',
  });
  open.push(() => pool.end());
  expect(pool.options).toMatchObject({
    max: 20,
    maxLifetimeSeconds: 3_600,
    idleTimeoutMillis: 1_800_000,
    statement_timeout: 15_000,
  });
});

/** Between pool and server, until it falls silent for those who are connected. */
async function startProxy(url: string) {
  const target = new URL(url);
  const [port, host] = [Number(target.port), target.hostname];
  const pairs: [Socket, Socket][] = [];
  const server = createServer((near) => {
    const far = connect(port, host);
    pairs.push([near, far]);
    near.pipe(far);
    far.pipe(near);
    near.on('error', () => far.destroy());
    far.on('error', () => near.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  open.push(async () => {
    for (const socket of pairs.flat()) socket.destroy();
    server.close();
  });
  target.port = String((server.address() as AddressInfo).port);
  target.hostname = '127.0.0.1';
  return {
    proxy: target.href,
    silence() {
      for (const [near, far] of pairs) {
        near.unpipe(far);
        far.unpipe(near);
        near.resume();
        far.resume();
      }
    },
  };
}
