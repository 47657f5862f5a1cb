/** The whole of downlink for a test: real stores and one real process of each role, to kill and start again. */
import { spawn } from 'node:child_process';
import { type Role, type RoleProcess, startRole } from '../../src/cli/role-process.ts';
import { migrate } from '../../src/store/migrate.ts';
import { type ApiClient, createApiClient } from './api-client.ts';
import {
  freshDatabase,
  freshRedis,
  type PrivateStore,
  privatePostgres,
  privateRedis,
} from './stores.ts';

export type Stack = {
  /** Where devices connect; the same after a restart of the gateway. */
  readonly tcp: { host: string; port: number };
  readonly redisUrl: string;
  /** Begins every key of this stack. */
  readonly prefix: string;
  /** May read, send and administer. */
  readonly api: ApiClient;
  /** May only read. */
  readonly reader: ApiClient;
  /** A caller with any key, or none. */
  caller(key: string | null): ApiClient;
  /** Ends the process of a role; resolves when it is gone. */
  kill(role: Role, signal?: NodeJS.Signals): Promise<void>;
  /** Starts the role again, on the address it had; ends it first if it still runs. */
  restart(role: Role): Promise<void>;
  /** Ends everything and removes what was temporary. */
  stop(): Promise<void>;
};

/** With stores of its own, which may be killed and started again. */
export type FaultyStack = Stack & { redis: PrivateStore; postgres: PrivateStore };

export type StackOptions = {
  /** Environment of the processes, where it differs. */
  env?: Record<string, string>;
};

const anyPort = '127.0.0.1:0';
const adminKey = 'admin-key-of-the-tests';
const readerKey = 'reader-key-of-the-tests';
const roles = ['gateway', 'worker', 'api'] as const;

/** On the run's stores, under a prefix and a database of its own. */
export async function startStack(options: StackOptions = {}): Promise<Stack> {
  const [redis, database] = await Promise.all([freshRedis(), freshDatabase()]);
  return startProcesses({
    redisUrl: redis.url,
    prefix: redis.prefix,
    databaseUrl: database.url,
    options,
    stopStores: async () => undefined,
  });
}

/** On stores of its own. */
export async function startFaultyStack(options: StackOptions = {}): Promise<FaultyStack> {
  const [redis, postgres] = await Promise.all([privateRedis(), privatePostgres()]);
  const stopStores = async () => {
    await Promise.all([redis.stop(), postgres.stop()]);
  };
  try {
    await migrate({ url: postgres.url });
    const stack = await startProcesses({
      redisUrl: redis.url,
      prefix: 'dl',
      databaseUrl: postgres.url,
      options,
      stopStores,
    });
    return Object.assign(stack, { redis, postgres });
  } catch (error) {
    await stopStores();
    throw error;
  }
}

type Parts = {
  redisUrl: string;
  prefix: string;
  databaseUrl: string;
  options: StackOptions;
  stopStores: () => Promise<void>;
};

async function startProcesses(parts: Parts): Promise<Stack> {
  const { redisUrl, prefix, databaseUrl, options, stopStores } = parts;
  const env: NodeJS.ProcessEnv = {
    PATH: process.env['PATH'],
    REDIS_URL: redisUrl,
    DATABASE_URL: databaseUrl,
    DOWNLINK_REDIS_PREFIX: prefix,
    // Several stacks share the run's PostgreSQL.
    DOWNLINK_DATABASE_POOL_MIN: '1',
    DOWNLINK_DATABASE_POOL_MAX: '6',
    TCP_ADDR: anyPort,
    HTTP_ADDR: anyPort,
    GATEWAY_ADMIN_ADDR: anyPort,
    // Fleets of tests connect all at once; tests of the limits set their own.
    DOWNLINK_TCP_RATE_LIMIT: '5000',
    DOWNLINK_TCP_RATE_BURST: '5000',
    WORKER_ADMIN_ADDR: anyPort,
    API_KEYS: `admin:${adminKey}:read+send+admin,reader:${readerKey}:read`,
    LOG_LEVEL: 'warn',
    ...options.env,
  };
  const running = new Map<Role, RoleProcess>();
  const guards = new Map<Role, () => void>();

  async function start(role: Role): Promise<void> {
    const child = await startRole({ role, env, onLog: showLog });
    running.set(role, child);
    guards.set(role, endWithUs(child.pid));
    // Those who know the address must find the next process of the role there.
    if (role === 'gateway') env['TCP_ADDR'] = child.ready.tcp;
    if (role === 'api') env['HTTP_ADDR'] = child.ready.http;
  }

  async function kill(role: Role, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = running.get(role);
    running.delete(role);
    await child?.end(signal);
    guards.get(role)?.();
  }

  async function stop(): Promise<void> {
    // Nothing of it is needed any more, so nobody drains.
    await Promise.all(roles.map((role) => kill(role)));
    await stopStores();
  }

  try {
    await Promise.all(roles.map(start));
  } catch (error) {
    await stop();
    throw error;
  }
  const [host, port] = splitAddr(env['TCP_ADDR']!);
  const url = `http://${env['HTTP_ADDR']}`;
  return {
    tcp: { host, port },
    redisUrl,
    prefix,
    api: createApiClient(url, adminKey),
    reader: createApiClient(url, readerKey),
    caller: (key) => createApiClient(url, key),
    kill,
    async restart(role) {
      await kill(role);
      await start(role);
    },
    stop,
  };
}

/** STACK_LOG=1 shows what the processes log, for whoever looks for a cause. */
function showLog(text: string): void {
  if (process.env['STACK_LOG']) process.stderr.write(text);
}

function splitAddr(addr: string): [host: string, port: number] {
  const at = addr.lastIndexOf(':');
  return [addr.slice(0, at), Number(addr.slice(at + 1))];
}

/** Ends the process when this one is gone, however it went; the returned function takes that back. */
function endWithUs(pid: number): () => void {
  const watch = spawn('/bin/sh', ['-c', 'read -r _; kill -KILL "$1"', 'watch', String(pid)], {
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  watch.on('error', () => undefined);
  watch.unref();
  (watch.stdin as typeof watch.stdin & { unref?: () => void }).unref?.();
  return () => watch.kill('SIGKILL');
}
