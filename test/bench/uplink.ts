/**
 * What one worker carries from the uplink stream into PostgreSQL: first how fast it drains a full stream, then what
 * an outage of PostgreSQL does while reports keep coming. Afterwards every report is there, and none twice.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { createKeys } from '../../src/bridge/keys.ts';
import { type RoleProcess, startRole } from '../../src/cli/role-process.ts';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import type { PrivateServer } from '../../src/discovery/private-server.ts';
import { createDatabase } from '../../src/store/database.ts';
import { createReports } from '../../src/store/reports.ts';
import { watchCpu } from './cpu.ts';
import { createFeed, type Feed } from './feed.ts';
import { collectable, rssOf, settledMemory } from './memory.ts';
import { benchStores, postgresVersion } from './processes.ts';
import type { Report } from './report.ts';
import { createReportSource, mixedDeviceIds, type ReportSource } from './reports.ts';
import { until } from './site.ts';

export type UplinkOptions = {
  devices: number;
  /** So many fill the stream before the worker starts. */
  reports: number;
  /** Reports a second, before, during and after the outage. */
  rate: number;
  outageS: number;
  /** PostgreSQL does not die but stands still: whoever asks waits. */
  hang: boolean;
  say(line: string): void;
};

type Figures = Record<string, number>;
type Sample = { rss: number; waiting: number; redis: number };

const prefix = 'dl';
const calmS = 10;
const sampleEveryMs = 500;
const lookEveryMs = 20;
/** As many as the worker reads at once. */
const bareBatch = 200;
const bareRows = 20_000;
/** So far may what is known of a device's last word lag behind it. */
const seenLagMs = 30_000;

export async function benchUplink(options: UplinkOptions): Promise<Report> {
  const { devices, reports, rate, outageS, hang, say } = options;
  const stores = await benchStores();
  const keys = createKeys(prefix, 4);
  const stream = keys.uplink();
  const redis = connectRedis({ url: stores.redis.url, purpose: 'commands', name: 'bench' });
  const onLog = (text: string) => void process.stderr.write(text);
  // What the worker says of the outage is no news.
  const env = { ...stores.env, DOWNLINK_REDIS_PREFIX: prefix, LOG_LEVEL: 'error' };
  let worker: RoleProcess | undefined;
  try {
    const source = createReportSource(mixedDeviceIds(devices));
    const feed = createFeed({ redis, stream, source });
    say(`${reports} reports of ${devices} devices into the stream`);
    const empty = await memoryOf(redis);
    await feed.fill(reports);
    const bytesPerReport = ((await memoryOf(redis)) - empty) / reports;

    say('one worker drains them');
    worker = await startRole({ role: 'worker', env, onLog, nodeArgs: collectable });
    const drained = await drain({ redis, stream, worker, postgres: stores.postgres.server! });
    say(`${Math.round(drained['reports_per_s']!)}/s; now ${rate}/s and an outage of ${outageS} s`);
    const outage = await benchOutage({
      redis,
      stream,
      feed,
      worker,
      postgres: stores.postgres.server!,
      options,
    });
    say('every report is looked for');
    const stored = await verify(stores.postgres.url, feed, source);
    say('reference: rows of the log alone');
    const bare = await benchBare(stores.postgres.url, devices);
    return {
      name: 'uplink',
      figures: {
        ...drained,
        bare_log_rows_per_s: bare,
        stream_bytes_per_report: bytesPerReport,
        ...outage,
        ...stored,
      },
      versions: {
        redis: /redis_version:(\S+)/.exec(await redis.info('server'))?.[1] ?? '?',
        postgres: await postgresVersion(stores.postgres.url),
      },
      notes: [
        'of the reports 40 % are heartbeats, 50 % states, 10 % ends of charges, half of each protocol; they make rows of devices, ports, orders and log',
        `PostgreSQL ${hang ? 'stood still' : 'was killed'} for ${outageS} s while ${rate} reports/s came; catch_up: from its first answer until less than half a second of reports waited`,
        'rss: the largest that was seen in that phase; heap: after a collection, with what it holds outside',
        'bare_log_rows: the store’s own insert of log rows alone, 200 a statement, one after the other',
        'missing and twice are counted by entry id; orders_wrong: charges that are no order, or two, or have another energy',
      ],
    };
  } finally {
    await worker?.end();
    await closeRedis(redis);
    await stores.stop();
  }
}

async function drain(site: {
  redis: Redis;
  stream: string;
  worker: RoleProcess;
  postgres: PrivateServer;
}): Promise<Figures> {
  const { redis, stream, worker, postgres } = site;
  // It has begun before it says that it is ready.
  const cpu = watchCpu({ worker: worker.pid, postgres: postgres.pid! });
  const waiting = await redis.xlen(stream);
  const startedAt = performance.now();
  await untilAtMost(redis, stream, 0);
  const ms = performance.now() - startedAt;
  const spent = cpu.spentMs();
  if (waiting === 0) throw new Error('the stream was drained at once: fill it with more reports');
  return {
    reports_per_s: (waiting * 1000) / ms,
    drained_reports: waiting,
    drain_worker_cpu_percent: (spent.worker * 100) / ms,
    drain_postgres_cpu_percent: (spent.postgres * 100) / ms,
  };
}

async function benchOutage(site: {
  redis: Redis;
  stream: string;
  feed: Feed;
  worker: RoleProcess;
  postgres: PrivateServer;
  options: UplinkOptions;
}): Promise<Figures> {
  const { redis, stream, feed, worker, postgres, options } = site;
  const { rate, outageS, hang, say } = options;
  const { admin } = worker.ready;
  const watch = watchSamples({ redis, stream, pid: worker.pid });
  const sentBefore = feed.sent;
  try {
    feed.start(rate);
    await pause(calmS * 1000);
    const before = await settledMemory(worker.pid, admin);
    const calm = watch.take();

    const outage = hang ? standStill(postgres) : kill(postgres);
    await pause(outageS * 500);
    const during = await settledMemory(worker.pid, admin);
    await until('the outage is over', async () => outage.ms() >= outageS * 1000);
    const waiting = await redis.xlen(stream);
    await outage.end();
    const outageMs = outage.ms();
    const out = watch.take();
    say(`${waiting} reports wait after ${Math.round(outageMs / 1000)} s`);

    const backAt = performance.now();
    const sentAtBack = feed.sent;
    await untilAtMost(redis, stream, rate / 2);
    const catchUpS = (performance.now() - backAt) / 1000;
    const carried = waiting + feed.sent - sentAtBack;
    const catching = watch.take();

    await pause(calmS * 1000);
    const after = await settledMemory(worker.pid, admin);
    const settled = watch.take();
    await feed.stop();
    await untilAtMost(redis, stream, 0);
    return {
      rate: (feed.sent - sentBefore) / (watch.ms() / 1000),
      outage_s: outageMs / 1000,
      waiting_max: Math.max(out.waiting, catching.waiting),
      catch_up_s: catchUpS,
      catch_up_reports_per_s: carried / catchUpS,
      rss_before_bytes: calm.rss,
      rss_outage_bytes: out.rss,
      rss_catch_up_bytes: catching.rss,
      rss_after_bytes: settled.rss,
      heap_before_bytes: before.heap,
      heap_outage_bytes: during.heap,
      heap_after_bytes: after.heap,
      redis_before_bytes: calm.redis,
      redis_max_bytes: Math.max(out.redis, catching.redis),
      redis_after_bytes: await memoryOf(redis),
    };
  } finally {
    watch.stop();
  }
}

/** Compares what was put into the stream with what stands in the tables; throws when they differ. */
async function verify(url: string, feed: Feed, source: ReportSource): Promise<Figures> {
  const pool = connectPostgres({
    url,
    applicationName: 'bench',
    max: 1,
    statementTimeoutMs: 120_000,
  });
  try {
    const log = await pool.query<{ entry_id: string }>('SELECT entry_id FROM command_log');
    const stored = new Set(log.rows.map(({ entry_id }) => entry_id));
    const missing = feed.entryIds.filter((id) => !stored.has(id)).length;
    const twice = log.rows.length - stored.size;
    const strange = stored.size - (feed.entryIds.length - missing);

    const orders = await pool.query<{ key: string; energy: number }>(
      `SELECT device_id || '|' || order_key AS key, energy_wh AS energy FROM orders WHERE status = 'ended'`,
    );
    const energies = new Map(orders.rows.map(({ key, energy }) => [key, energy]));
    const wrong = [...source.ended].filter(([key, energy]) => energies.get(key) !== energy).length;
    const ordersWrong = wrong + (orders.rows.length - energies.size);

    const devices = await pool.query<{ device_id: string; at: string }>(
      'SELECT device_id, last_seen_at AS at FROM devices',
    );
    const seenAt = new Map(devices.rows.map(({ device_id, at }) => [device_id, Number(at)]));
    const unseen = [...feed.heardAt].filter(
      ([deviceId, at]) => !((seenAt.get(deviceId) ?? 0) >= at - seenLagMs),
    ).length;
    const figures = {
      reports: feed.sent,
      log_rows: stored.size,
      missing,
      twice,
      orders: orders.rows.length,
      orders_wrong: ordersWrong,
    };
    if (missing + twice + strange + ordersWrong + unseen > 0) {
      throw new Error(`what is stored is not what came: ${JSON.stringify({ ...figures, unseen })}`);
    }
    return figures;
  } finally {
    await pool.end();
  }
}

/** Rows a second of the store's own insert, with nothing around it. */
async function benchBare(url: string, devices: number): Promise<number> {
  const source = createReportSource(mixedDeviceIds(devices));
  const pool = connectPostgres({ url, applicationName: 'bench', max: 1 });
  const database = createDatabase({ pool });
  const reports = createReports({ database });
  try {
    const at = Date.now();
    const rows = Array.from({ length: bareRows }, (_, n) => ({
      entryId: `bare-${n}`,
      ...source.next(at),
    }));
    const startedAt = performance.now();
    for (let first = 0; first < rows.length; first += bareBatch) {
      await reports.add(rows.slice(first, first + bareBatch));
    }
    return (rows.length * 1000) / (performance.now() - startedAt);
  } finally {
    database.close();
    await pool.end();
  }
}

type Outage = { ms(): number; end(): Promise<void> };

function kill(server: PrivateServer): Outage {
  const startedAt = performance.now();
  const gone = server.kill('SIGKILL');
  return {
    ms: () => performance.now() - startedAt,
    async end() {
      await gone;
      await server.start();
    },
  };
}

/** Every process of the server: connections have processes of their own, which would go on. */
function standStill(server: PrivateServer): Outage {
  const startedAt = performance.now();
  const pid = server.pid!;
  process.kill(pid, 'SIGSTOP');
  const family = [pid, ...childrenOf(pid)];
  const signal = (name: NodeJS.Signals) => {
    for (const one of family) process.kill(one, name);
  };
  signal('SIGSTOP');
  return {
    ms: () => performance.now() - startedAt,
    end: async () => signal('SIGCONT'),
  };
}

function childrenOf(parent: number): number[] {
  const pids = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry));
  return pids.map(Number).filter((pid) => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      return Number(/^PPid:\s+(\d+)$/m.exec(status)?.[1]) === parent;
    } catch {
      return false;
    }
  });
}

/** The largest values since they were last taken. */
function watchSamples({ redis, stream, pid }: { redis: Redis; stream: string; pid: number }) {
  const startedAt = performance.now();
  let most: Sample = { rss: 0, waiting: 0, redis: 0 };
  const look = async () => {
    const [waiting, memory] = await Promise.all([redis.xlen(stream), memoryOf(redis)]);
    most = {
      rss: Math.max(most.rss, rssOf(pid)),
      waiting: Math.max(most.waiting, waiting),
      redis: Math.max(most.redis, memory),
    };
  };
  const timer = setInterval(() => void look().catch(() => undefined), sampleEveryMs);
  return {
    ms: () => performance.now() - startedAt,
    take(): Sample {
      const taken = most;
      most = { rss: 0, waiting: 0, redis: 0 };
      return taken;
    },
    stop: () => clearInterval(timer),
  };
}

async function memoryOf(redis: Redis): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1]);
}

const boundMs = 300_000;

async function untilAtMost(redis: Redis, stream: string, entries: number): Promise<void> {
  const end = performance.now() + boundMs;
  for (;;) {
    const waiting = await redis.xlen(stream);
    if (waiting <= entries) return;
    if (performance.now() > end) throw new Error(`${waiting} reports wait after ${boundMs} ms`);
    await pause(lookEveryMs);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
