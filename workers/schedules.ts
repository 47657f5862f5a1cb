/** Lets schedules tick: each tick becomes a command through accept, at most once, however often it is tried. */
import { type Job, Worker } from 'bullmq';
import type { Redis } from 'ioredis';
import type { Accept } from '../queues/accept-contract.ts';
import { atMost } from '../queues/bounded.ts';
import {
  readTick,
  type ScheduleQueue,
  sameTiming,
  scheduleQueueName,
  scheduleQueuePrefix,
  type Tick,
  type TickJob,
  tickSettings,
} from '../queues/schedules.ts';
import { nextTick } from '../queues/ticks.ts';
import type { Keys } from '../src/bridge/keys.ts';
import { DownlinkError, type ErrorCode, messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import type { Schedule, Schedules } from '../src/store/contract.ts';

export type ScheduleConsumerDeps = {
  keys: Keys;
  /** A client that waits for Redis for ever; the caller closes it. */
  blocking: Redis;
  queue: ScheduleQueue;
  schedules: Pick<Schedules, 'find' | 'list' | 'ticked'>;
  accept: Accept;
  metrics: Pick<Metrics, 'scheduleTicks'>;
  log: Log;
  now?: () => number;
};

export type ScheduleConsumer = {
  start(): Promise<void>;
  /** Makes the engine tick as the ledger says; for a duty. */
  reconcile(): Promise<{ armed: number; disarmed: number }>;
  /** Takes no more ticks and waits for those in hand, at most so long; another worker takes over the rest. */
  stop(ms: number): Promise<void>;
};

/** How a tick ended. `gone`: its schedule is gone, or ticks at other times now. */
export type TickEnd = 'accepted' | 'repeated' | 'refused' | 'missed' | 'gone' | 'invalid';

const settings = {
  lockDuration: 10_000,
  stalledInterval: 5_000,
  runRetryDelay: 1_000,
  maxStalledCount: 1_000_000,
  drainDelay: 5,
} as const;
const ticksAtOnce = 16;
const firstPauseMs = 1_000;
const longestPauseMs = 30_000;
/** A tick is tried until the next one is due, but no longer than its Idempotency-Key surely holds. */
const longestTrialMs = 12 * 3_600_000;
const pageSize = 200;
/** Whoever put the schedule last, its ticks are claimed under one name: none runs twice. */
const claimAs = 'schedules';

/** Refusals that say nothing of the command: the stores were away, or we were wrong. */
const passing: ReadonlySet<ErrorCode> = new Set([
  'STORE_UNAVAILABLE',
  'LEDGER_UNAVAILABLE',
  'QUEUE_UNAVAILABLE',
  'TIMEOUT',
  'INTERNAL',
]);

export function createScheduleConsumer(deps: ScheduleConsumerDeps): ScheduleConsumer {
  const { keys, blocking, queue, schedules, accept, metrics, log, now = Date.now } = deps;
  let worker: Worker<TickJob> | undefined;

  async function process(job: Job<TickJob>): Promise<{ end: TickEnd }> {
    const tick = readTick(job);
    if (!tick) {
      log.warn({ jobId: job.id }, 'job refused: not a tick of a schedule');
      metrics.scheduleTicks.inc({ end: 'invalid' });
      return { end: 'invalid' };
    }
    const end = await run(tick).catch((error: unknown) => tryAgain(job, tick, error));
    metrics.scheduleTicks.inc({ end });
    return { end };
  }

  /** Rejects when it is to be tried again. */
  async function run({ key, at, timing }: Tick): Promise<TickEnd> {
    const schedule = await schedules.find(key);
    if (!schedule) {
      await queue.disarm(key);
      return 'gone';
    }
    if (!sameTiming(schedule, timing)) return 'gone';
    const { lastTickAt } = schedule;
    // Its worker died right after it, or a later one came while this was put off.
    if (lastTickAt !== null && lastTickAt >= at) return lastTickAt === at ? 'repeated' : 'missed';
    return hand(schedule, at);
  }

  async function hand({ key, body, apiKey }: Schedule, at: number): Promise<TickEnd> {
    const idempotencyKey = `schedule:${key}:${at}`;
    try {
      const { record, replayed } = await accept({ body, apiKey, idempotencyKey, claimAs });
      await note(key, { at, commandId: record.id, error: null });
      return replayed ? 'repeated' : 'accepted';
    } catch (error) {
      if (!(error instanceof DownlinkError) || passing.has(error.code)) throw error;
      const { code, message, details } = error;
      // The tick ran, and the schedule got another body since.
      if (code === 'IDEMPOTENCY_CONFLICT' && typeof details['id'] === 'string') {
        await note(key, { at, commandId: details['id'], error: null });
        return 'repeated';
      }
      log.warn({ schedule: key, at, code, reason: message }, 'tick refused');
      await note(key, { at, commandId: null, error: `${code}: ${message}` });
      return 'refused';
    }
  }

  /** Resolves when the tick's time is over: the next one is due. */
  async function tryAgain(job: Job<TickJob>, { key, at, timing }: Tick, error: unknown) {
    const reason = messageOf(error);
    const until = job.data.until ?? endOfTrial(timing);
    if (now() < until) {
      if (job.data.until === undefined) await job.updateData({ ...job.data, until });
      log.debug({ schedule: key, at, error: reason }, 'tick put off');
      throw error;
    }
    log.error({ schedule: key, at, error: reason }, 'tick missed');
    await note(key, { at, commandId: null, error: `missed: ${reason}` });
    return 'missed' as const;
  }

  function endOfTrial(timing: Tick['timing']): number {
    const longest = now() + longestTrialMs;
    return Math.min(nextTick(timing, now()) ?? longest, longest);
  }

  /** For people only: what the tick did stands, whether this is stored or not. */
  async function note(key: string, tick: Parameters<Schedules['ticked']>[1]): Promise<void> {
    await schedules.ticked(key, tick).catch((error: unknown) => {
      log.debug({ schedule: key, error: messageOf(error) }, 'end of a tick not noted');
    });
  }

  async function armAll(): Promise<{ known: Set<string>; armed: number }> {
    const known = new Set<string>();
    let armed = 0;
    for (let cursor: string | undefined; ; ) {
      const page = await schedules.list({ ...(cursor && { cursor }), limit: pageSize });
      const arming = page.items.map(async ({ key, cron, everyMs, timeZone }) => {
        known.add(key);
        if ((await queue.arm({ key, cron, everyMs, timeZone })) === 'armed') armed += 1;
      });
      const faults = (await Promise.allSettled(arming)).filter((one) => one.status === 'rejected');
      if (faults[0]) {
        const error = messageOf(faults[0].reason);
        log.warn({ schedules: faults.length, error }, 'schedules not armed');
      }
      if (page.nextCursor === null) return { known, armed };
      cursor = page.nextCursor;
    }
  }

  return {
    async start() {
      worker = new Worker<TickJob>(scheduleQueueName, process, {
        ...settings,
        connection: blocking,
        prefix: scheduleQueuePrefix(keys),
        concurrency: ticksAtOnce,
        settings: { ...tickSettings, backoffStrategy: pauseMs },
      });
      worker.on('error', (error) => log.warn({ error: messageOf(error) }, 'schedule queue error'));
      await worker.waitUntilReady();
    },
    async reconcile() {
      // The engine first: what the ledger does not know afterwards was removed, not just added.
      const ticking = await queue.keys();
      const { known, armed } = await armAll();
      const orphans = ticking.filter((key) => !known.has(key));
      for (const key of orphans) {
        if (!(await schedules.find(key))) await queue.disarm(key);
      }
      return { armed, disarmed: orphans.length };
    },
    async stop(ms) {
      if (worker) await atMost(worker.close(), ms);
    },
  };
}

function pauseMs(tries: number): number {
  return Math.min(firstPauseMs * 2 ** Math.min(tries - 1, 10), longestPauseMs);
}
