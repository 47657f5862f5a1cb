/** What the benchmarks of latency share: stores of their own with the clients to fill and to read them. */
import { v7 as uuidV7 } from 'uuid';
import { createOutbound, type RedisOutbound } from '../../queues/outbound.ts';
import { createKeys, type Keys } from '../../src/bridge/keys.ts';
import { type Role, type RoleProcess, startRole } from '../../src/cli/role-process.ts';
import { acceptedState, type Command } from '../../src/command.ts';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { createLog } from '../../src/log/log.ts';
import { type RemoteFleet, startRemoteFleet } from '../../src/simulator/remote.ts';
import { createLedger } from '../../src/store/ledger.ts';
import { benchStores, postgresVersion } from './processes.ts';

const chunk = 500;
const boundMs = 300_000;
const lookEveryMs = 100;

export type Site = Awaited<ReturnType<typeof openSite>>;
export type { Command };

export type StartOptions = {
  /** Where it differs from that of the other roles. */
  env?: Record<string, string>;
  nodeArgs?: readonly string[];
};

export async function openSite() {
  const stores = await benchStores();
  const { url } = stores.redis;
  const connect = (purpose: 'commands' | 'subscriber') =>
    connectRedis({ url, purpose, name: 'bench' });
  const redis: Redis = connect('commands');
  const keys: Keys = createKeys('dl', 4);
  const outbound: RedisOutbound = createOutbound({ redis, keys, onError: () => undefined });
  const pool = connectPostgres({ url: stores.postgres.url, applicationName: 'bench' });
  const ledger = createLedger({ pool, log: createLog({ level: 'warn', role: 'bench' }) });
  const opened: { close(): Promise<unknown> }[] = [];

  /** Puts commands where accept would, without the cost of accepting them one by one. */
  async function fill(commands: readonly Command[]): Promise<void> {
    for (let i = 0; i < commands.length; i += chunk) {
      const part = commands.slice(i, i + chunk);
      const rows = part.map((row) => ledger.write({ ...row, ...acceptedState(row, Date.now()) }));
      await Promise.all([...rows, outbound.enqueueMany(part.map((command) => ({ command })))]);
    }
  }

  return {
    redis,
    redisUrl: url,
    keys,
    outbound,
    pool,
    fill,
    subscriber: () => connect('subscriber'),
    async start(role: Role, { env = {}, nodeArgs = [] }: StartOptions = {}): Promise<RoleProcess> {
      const onLog = (text: string) => void process.stderr.write(text);
      const child = await startRole({ role, env: { ...stores.env, ...env }, onLog, nodeArgs });
      opened.push({ close: () => child.end() });
      return child;
    },
    /** Connects devices that answer at once; resolves when all are logged in. */
    async connect(gateway: RoleProcess, deviceIds: readonly string[]): Promise<RemoteFleet> {
      const [host = '', port = ''] = gateway.ready.tcp!.split(':');
      const fleet = await startRemoteFleet({
        host,
        port: Number(port),
        devices: deviceIds.map((deviceId) => ({ deviceId, protocol: 'bkv' as const })),
        knobs: { ackDelayMs: 0, heartbeatMs: 600_000 },
        connectPerSecond: 2_000,
        startTimeoutMs: 180_000,
      });
      opened.push({ close: () => fleet.stop() });
      return fleet;
    },
    /** Commands that stand in the index of parked ones. */
    async parked(deviceIds: readonly string[]): Promise<number> {
      const pipeline = redis.pipeline();
      for (const deviceId of deviceIds) pipeline.zcard(keys.parked(deviceId));
      const replies = (await pipeline.exec()) ?? [];
      return replies.reduce((sum, [, count]) => sum + Number(count), 0);
    },
    /** Resolves when workers have taken everything that devices reported. */
    uplinkRead: () =>
      until('the uplink stream is empty', async () => (await redis.xlen(keys.uplink())) === 0),
    /** Commands accepted since then that have not ended. */
    async open(since: number): Promise<number> {
      const { rows } = await pool.query<{ count: string }>(
        'SELECT count(*) FROM commands WHERE accepted_at >= $1 AND ended IS NULL',
        [since],
      );
      return Number(rows[0]?.count);
    },
    /** How the commands accepted since then ended, how long from accept to the answer, and who wrote them. */
    async ends(since: number) {
      const { rows } = await pool.query<{ status: string; gateway: string; ms: string | null }>(
        `SELECT status, trail->'1'->>'gatewayId' AS gateway,
           (trail->'1'->>'writtenAt')::bigint + (trail->'1'->>'ms')::bigint - accepted_at AS ms
         FROM commands WHERE accepted_at >= $1`,
        [since],
      );
      const byStatus = new Map<string, number>();
      const byGateway = new Map<string, number>();
      for (const { status, gateway } of rows) {
        byStatus.set(status, (byStatus.get(status) ?? 0) + 1);
        byGateway.set(gateway, (byGateway.get(gateway) ?? 0) + 1);
      }
      const ms = rows.flatMap((row) => (row.ms === null ? [] : [Number(row.ms)]));
      return { byStatus, byGateway, ms };
    },
    versions: async () => ({
      redis: /redis_version:(\S+)/.exec(await redis.info('server'))?.[1] ?? '?',
      postgres: await postgresVersion(stores.postgres.url),
    }),
    async close() {
      for (const { close } of opened.reverse()) await close().catch(() => undefined);
      await outbound.close();
      await ledger.close();
      await pool.end();
      await closeRedis(redis);
      await stores.stop();
    },
  };
}

/** A query of socket 1, of the same priority as every other. */
export function queryFor(deviceId: string): Command {
  const now = Date.now();
  return {
    id: uuidV7(),
    deviceId,
    protocol: 'bkv',
    command: 'port.query',
    params: { socket: 1 },
    priority: 5,
    acceptedAt: now,
    notBefore: now,
    deadline: now + 3_600_000,
    ackTimeoutMs: 10_000,
    attempts: 4,
    backoffMs: 3_000,
    orderKey: null,
    onAmbiguous: 'resend',
    labels: {},
    apiKey: 'bench',
    waiter: null,
    replayOf: null,
  };
}

export function deviceIds(first: number, count: number): string[] {
  return Array.from({ length: count }, (_, n) => `82${String(first + n).padStart(12, '0')}`);
}

export async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + boundMs;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`${what}: not after ${boundMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, lookEveryMs));
  }
}
