/**
 * Acked commands a second, end to end: queued commands are drained by one worker through one gateway to
 * simulated devices, with the ledger on. The reference is BullMQ's own worker on the same jobs.
 */
import { v7 as uuidV7 } from 'uuid';
import { createOutbound, type RedisOutbound } from '../../queues/outbound.ts';
import { createKeys, type Keys } from '../../src/bridge/keys.ts';
import { startRole } from '../../src/cli/role-process.ts';
import { acceptedState, type Command } from '../../src/command.ts';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { createLog } from '../../src/log/log.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { startRemoteFleet } from '../../src/simulator/remote.ts';
import type { Ledger } from '../../src/store/contract.ts';
import { createLedger } from '../../src/store/ledger.ts';
import { watchCpu } from './cpu.ts';
import { benchStores, postgresVersion, runScript } from './processes.ts';
import type { Report } from './report.ts';

export type BenchOptions = {
  ackDelayMs: number;
  devices: number;
  commands: number;
  /** Leaves a CPU profile of worker and gateway in the working folder. */
  profile: boolean;
  say(line: string): void;
};

const bareConcurrencies = [50, 200, 1_000] as const;
const chunk = 500;
const drainBoundMs = 300_000;
const lookEveryMs = 200;

export async function benchThroughput(options: BenchOptions): Promise<Report> {
  const { say, devices, commands, ackDelayMs } = options;
  const stores = await benchStores();
  const redis = connectRedis({ url: stores.redis.url, purpose: 'commands', name: 'bench' });
  try {
    say(`reference: BullMQ's own worker on ${commands} of the same jobs, no-op`);
    const bare = await benchBare(redis, stores.redis.url, options);
    await redis.flushall();
    say(`${devices} simulated devices, ${commands} commands, answers after ${ackDelayMs} ms`);
    const postgresPid = stores.postgres.server?.pid ?? 0;
    const ours = await benchOurs({ redis, env: stores.env, postgresPid }, options);
    const best = Math.max(...Object.values(bare));
    const ceiling = ackDelayMs === 0 ? 0 : (devices * bkv.limits.inFlight * 1000) / ackDelayMs;
    return {
      name: 'throughput',
      figures: {
        acked_per_s: ours.perSecond,
        bare_bullmq_per_s: best,
        ratio: ours.perSecond / best,
        redis_bytes_per_command: ours.bytesPerCommand,
        round_trips_per_command: ours.roundTrips,
        ack_delay_ms: ackDelayMs,
        ...(ceiling > 0 && { lane_ceiling_per_s: ceiling }),
        ...Object.fromEntries(
          Object.entries(bare).map(([concurrency, rate]) => [
            `bare_bullmq_${concurrency}_per_s`,
            rate,
          ]),
        ),
      },
      versions: {
        redis: /redis_version:(\S+)/.exec(await redis.info('server'))?.[1] ?? '?',
        postgres: await postgresVersion(stores.postgres.url),
      },
      notes: [
        'round trips: scripts, publishes and blocking reads that Redis counted, of all processes',
      ],
    };
  } finally {
    await closeRedis(redis);
    await stores.stop();
  }
}

function commandsFor({ devices, commands }: BenchOptions): Command[] {
  const now = Date.now();
  return Array.from({ length: commands }, (_, n) => ({
    id: uuidV7(),
    deviceId: deviceIdOf(n % devices),
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
  }));
}

function deviceIdOf(n: number): string {
  return `82${String(n + 1).padStart(12, '0')}`;
}

/** Jobs a second of BullMQ alone at each concurrency, each on a full queue. */
async function benchBare(
  redis: Redis,
  url: string,
  options: BenchOptions,
): Promise<Record<number, number>> {
  const rates: Record<number, number> = {};
  for (const concurrency of bareConcurrencies) {
    const keys = createKeys(`bare${concurrency}`, 1);
    const outbound = createOutbound({ redis, keys, onError: () => undefined });
    await fill(outbound, commandsFor(options));
    const { perSecond } = await runScript<{ perSecond: number }>('bare-worker.ts', [
      url,
      keys.queuePrefix(0),
      keys.queueName(0),
      String(concurrency),
      String(options.commands),
    ]);
    rates[concurrency] = perSecond;
    options.say(`  concurrency ${concurrency}: ${Math.round(perSecond)}/s`);
    await Promise.all(outbound.queues.map((queue) => queue.obliterate({ force: true })));
    await outbound.close();
  }
  return rates;
}

async function fill(outbound: RedisOutbound, commands: readonly Command[]): Promise<void> {
  for (let i = 0; i < commands.length; i += chunk) {
    await outbound.enqueueMany(commands.slice(i, i + chunk).map((command) => ({ command })));
  }
}

type BenchSite = { redis: Redis; env: NodeJS.ProcessEnv; postgresPid: number };

async function record(ledger: Ledger, commands: readonly Command[]): Promise<void> {
  const now = Date.now();
  for (let i = 0; i < commands.length; i += chunk) {
    const rows = commands.slice(i, i + chunk);
    await Promise.all(rows.map((row) => ledger.write({ ...row, ...acceptedState(row, now) })));
  }
}

async function benchOurs({ redis, env, postgresPid }: BenchSite, options: BenchOptions) {
  const keys = createKeys('dl', 4);
  const outbound = createOutbound({ redis, keys, onError: () => undefined });
  const pool = connectPostgres({ url: env['DATABASE_URL']!, applicationName: 'bench' });
  const log = createLog({ level: 'warn', role: 'bench' });
  const ledger = createLedger({ pool, log });
  const onLog = (text: string) => void process.stderr.write(text);
  const nodeArgs = options.profile ? ['--cpu-prof', '--cpu-prof-dir=.cache/profiles'] : [];
  const gateway = await startRole({ role: 'gateway', env, onLog, nodeArgs });
  const [host = '', port = ''] = gateway.ready.tcp!.split(':');
  const fleet = await startRemoteFleet({
    host,
    port: Number(port),
    devices: Array.from({ length: options.devices }, (_, n) => ({
      deviceId: deviceIdOf(n),
      protocol: 'bkv' as const,
    })),
    knobs: { ackDelayMs: options.ackDelayMs, heartbeatMs: 600_000 },
    connectPerSecond: 2_000,
    startTimeoutMs: 180_000,
  });
  try {
    const worker = await startRole({ role: 'worker', env, onLog, nodeArgs });
    await untilQuiet(redis, keys);
    // Filled while the queues rest, so that what is measured is the drain and not the start.
    await Promise.all(outbound.queues.map((queue) => queue.pause()));
    const commands = commandsFor(options);
    const emptyBytes = await usedMemory(redis);
    await fill(outbound, commands);
    const bytesPerCommand = ((await usedMemory(redis)) - emptyBytes) / commands.length;
    await record(ledger, commands);
    await redis.config('RESETSTAT');
    const processes = {
      worker: worker.pid,
      gateway: gateway.pid,
      devices: fleet.pid,
      redis: await processOf(redis),
      postgres: postgresPid,
    };
    const cpu = watchCpu(processes);
    await Promise.all(outbound.queues.map((queue) => queue.resume()));
    const perSecond = await untilDrained(pool, outbound, commands.length);
    for (const [name, ms] of Object.entries(cpu.spentMs())) {
      options.say(`  ${name}: ${((1000 * ms) / commands.length).toFixed(0)} µs of CPU a command`);
    }
    const roundTrips = (await roundTripsOf(redis)) / commands.length;
    await worker.end();
    return { perSecond, bytesPerCommand, roundTrips };
  } finally {
    await fleet.stop();
    await gateway.end();
    await outbound.close();
    await ledger.close();
    await pool.end();
  }
}

/** The worker has stored what the devices said when they came. */
async function untilQuiet(redis: Redis, keys: Keys): Promise<void> {
  const until = performance.now() + drainBoundMs;
  while ((await redis.xlen(keys.uplink())) > 0) {
    if (performance.now() > until) throw new Error('the uplink stream does not run empty');
    await new Promise((resolve) => setTimeout(resolve, lookEveryMs));
  }
}

/** Rate from the first publish to the last settlement, as the ledger holds them. */
async function untilDrained(
  pool: ReturnType<typeof connectPostgres>,
  outbound: RedisOutbound,
  count: number,
): Promise<number> {
  const until = performance.now() + drainBoundMs;
  for (;;) {
    // The queue is asked, not the ledger: counting rows would take time from what is measured.
    const { waiting, pending } = await outbound.counts();
    if (waiting + pending === 0) break;
    if (performance.now() > until) throw new Error(`${waiting + pending} commands are left`);
    await new Promise((resolve) => setTimeout(resolve, lookEveryMs));
  }
  const { rows } = await pool.query<{ done: string; started: string; ended: string }>(
    `SELECT count(*) FILTER (WHERE status = 'succeeded') AS done,
            min((trail->'1'->>'at')::bigint) AS started, max(settled_at) AS ended FROM commands`,
  );
  const { done = '0', started = '0', ended = '0' } = rows[0] ?? {};
  if (Number(done) !== count) throw new Error(`only ${done} of ${count} succeeded`);
  return count / ((Number(ended) - Number(started)) / 1000);
}

async function processOf(redis: Redis): Promise<number> {
  return Number(/process_id:(\d+)/.exec(await redis.info('server'))?.[1]);
}

async function usedMemory(redis: Redis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]);
}

/** Commands that came over the wire; what scripts call inside is not counted. */
async function roundTripsOf(redis: Redis): Promise<number> {
  const stats = await redis.info('commandstats');
  const calls = (name: string) =>
    Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
  return calls('evalsha') + calls('publish') + calls('bzpopmin');
}
