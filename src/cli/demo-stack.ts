/** Everything that the demo runs against, started for it alone and gone with it. */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { processEnv } from '../config/config.ts';
import { connectRedis } from '../connections/redis.ts';
import { discover } from '../discovery/discovery.ts';
import { DownlinkError } from '../errors.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import type { Log } from '../log/log.ts';
import { migrate } from '../store/migrate.ts';
import { type RoleProcess, roles, startRole } from './role-process.ts';

export type Stack = {
  /** Host and port. */
  tcp: { host: string; port: number };
  apiUrl: string;
  apiKey: string;
  board: { url: string; user: string; password: string };
  /** Metrics and health, by process. */
  admin: Record<string, string>;
  stores: { name: string; from: string }[];
  /** Processes that ended although nobody asked them to. */
  casualties(): string[];
};

export type StackDeps = {
  lifecycle: Lifecycle;
  log: Log;
  /** Told what is being done, for people. */
  say: (sentence: string) => void;
  /** The processes' own log lines. */
  onLog: (text: string) => void;
};

const anyPort = '127.0.0.1:0';
const closeTimeoutMs = 40_000;
const boardUser = 'demo';

/** Finds or starts the stores, migrates, and starts one process of each role. */
export async function startStack({ lifecycle, log, say, onLog }: StackDeps): Promise<Stack> {
  const own = processEnv();
  say('looking for Redis and PostgreSQL');
  const stores = await discover({
    env: own,
    redisUrl: own['REDIS_URL'] || undefined,
    databaseUrl: own['DATABASE_URL'] || undefined,
    announce: say,
  });
  lifecycle.onClose('stores', () => stores.stop(), closeTimeoutMs);
  // a Redis that somebody lent may hold another installation: ours stays apart and leaves nothing
  const prefix = `demo-${randomBytes(4).toString('hex')}`;
  if (stores.redis.source === 'url') {
    lifecycle.onClose('keys', () => removeKeys(stores.redis.url, prefix), closeTimeoutMs);
  }
  const applied = await migrate({ url: stores.postgres.url, log });
  say(`the schema is there (${applied.length} migrations applied)`);

  const apiKey = randomBytes(18).toString('base64url');
  const password = randomBytes(9).toString('base64url');
  const env: NodeJS.ProcessEnv = {
    ...own,
    REDIS_URL: stores.redis.url,
    DATABASE_URL: stores.postgres.url,
    DOWNLINK_REDIS_PREFIX: prefix,
    TCP_ADDR: anyPort,
    HTTP_ADDR: anyPort,
    GATEWAY_ADMIN_ADDR: anyPort,
    // The fleet connects all at once.
    DOWNLINK_TCP_RATE_LIMIT: '2000',
    DOWNLINK_TCP_RATE_BURST: '2000',
    DOWNLINK_TCP_MAX_CONNECTIONS: '20000',
    WORKER_ADMIN_ADDR: anyPort,
    API_KEYS: `demo:${apiKey}:read+send+admin`,
    BOARD_USERS: `${boardUser}:${password}:admin`,
    LOG_LEVEL: own['LOG_LEVEL'] || 'warn',
  };
  const casualties: string[] = [];
  const started: RoleProcess[] = [];
  for (const role of roles) {
    say(`starting the ${role}`);
    const process = await startRole({ role, env, onLog });
    started.push(process);
    lifecycle.onClose(role, () => process.end(), closeTimeoutMs);
    void process.ended.then(({ code, signal }) => {
      if (!lifecycle.closing()) casualties.push(`the ${role} ended with ${signal ?? code}`);
    });
  }

  const [gateway, worker, api] = roles.map((role) => started.find((one) => one.role === role)!);
  const apiUrl = `http://${must(api!.ready.http, 'http')}`;
  return {
    tcp: hostAndPort(must(gateway!.ready.tcp, 'tcp')),
    apiUrl,
    apiKey,
    board: { url: `${apiUrl}/admin/queues`, user: boardUser, password },
    admin: {
      gateway: `http://${must(gateway!.ready.admin, 'admin')}`,
      worker: `http://${must(worker!.ready.admin, 'admin')}`,
      api: apiUrl,
    },
    stores: [
      { name: 'Redis', from: `${stores.redis.url} (${stores.redis.detail})` },
      { name: 'PostgreSQL', from: `${shown(stores.postgres.url)} (${stores.postgres.detail})` },
    ],
    casualties: () => [...casualties],
  };
}

/** Keys and channels of one prefix; every key begins with it or with its shard's tag. */
async function removeKeys(url: string, prefix: string): Promise<void> {
  const redis = connectRedis({ url, purpose: 'commands', name: 'demo-cleanup' });
  try {
    await firstReady(redis);
    for (const pattern of [`${prefix}:*`, `{${prefix}-*`]) {
      let cursor = '0';
      do {
        const [next, found] = await redis.scan(cursor, 'MATCH', pattern, 'COUNT', 1000);
        cursor = next;
        if (found.length > 0) await redis.unlink(...found);
      } while (cursor !== '0');
    }
  } finally {
    redis.disconnect();
  }
}

/** The client fails fast while it is not connected; the first connection takes a moment. */
async function firstReady(redis: ReturnType<typeof connectRedis>): Promise<void> {
  for (let tries = 0; redis.status !== 'ready' && tries < 50; tries += 1) await delay(100);
}

function must(value: string | undefined, what: string): string {
  if (value !== undefined) return value;
  throw new DownlinkError('INTERNAL', `a process was ready without saying its ${what} address`);
}

function hostAndPort(text: string): { host: string; port: number } {
  const at = text.lastIndexOf(':');
  return { host: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) };
}

/** A URL without its password. */
function shown(url: string): string {
  const parsed = new URL(url);
  if (parsed.password) parsed.password = '***';
  return parsed.href;
}
