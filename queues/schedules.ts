/**
 * The engine of schedules: BullMQ Job Schedulers in a queue of their own. The truth is in the ledger; here stands
 * only when each ticks, and it can be made again from there at any time.
 */
import { type JobsOptions, Queue, type RepeatOptions } from 'bullmq';
import type { Redis } from 'ioredis';
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { Keys } from '../src/bridge/keys.ts';
import { DownlinkError, messageOf } from '../src/errors.ts';
import { bounded } from './bounded.ts';
import { nextTick, type Timing } from './ticks.ts';

/** What a tick's job carries: the timing that made it. Everything else is read from the ledger when it is due. */
const TickJob = Type.Object({
  cron: Type.Union([Type.String(), Type.Null()]),
  everyMs: Type.Union([Type.Integer(), Type.Null()]),
  timeZone: Type.String(),
  /** Set once its first try failed: it is given up then. */
  until: Type.Optional(Type.Integer()),
});
export type TickJob = Static<typeof TickJob>;

export type Scheduled = { key: string } & Timing;

export type ScheduleQueue = {
  queue: Queue<TickJob>;
  /** Lets the schedule tick as given. Changes nothing when it does so already, and keeps a tick that waits. */
  arm(schedule: Scheduled): Promise<'armed' | 'unchanged'>;
  disarm(key: string): Promise<boolean>;
  /** Keys of all schedules that tick, whatever the ledger says of them. */
  keys(): Promise<string[]>;
  close(): Promise<void>;
};

export type ScheduleQueueDeps = {
  /** A `commands` client: it fails fast while Redis is away. */
  redis: Redis;
  keys: Keys;
  onError(error: Error): void;
  now?: () => number;
  timeoutMs?: number;
};

export const scheduleQueueName = 'schedules';
/** Where its keys lie: with the first shard's, since a queue needs one slot. */
export const scheduleQueuePrefix = (keys: Keys) => keys.queuePrefix(0);

/** A first tick that is nearer might have passed by the time it is written down. */
const ARMING_MS = 500;
/** A tick ends by what its worker decides, never by a number of tries. */
const TICK_TRIES = 1_000_000;
const tickOptions: JobsOptions = {
  attempts: TICK_TRIES,
  stackTraceLimit: 0,
  backoff: { type: 'tick' },
  removeOnComplete: { count: 100, age: 86_400 },
  removeOnFail: { count: 100, age: 7 * 86_400 },
};

/** The settings of whoever makes next ticks: the queue, and the worker that consumes it. */
export const tickSettings = {
  repeatStrategy: (after: number, { pattern, tz }: RepeatOptions): number | undefined =>
    nextTick({ cron: pattern ?? null, everyMs: null, timeZone: tz ?? 'UTC' }, after) ?? undefined,
};

const check = Compile(TickJob);
const tickJobId = /^repeat:(.+):(\d{1,16})$/;

export type Tick = { key: string; at: number; timing: Timing };

/** What a job of this queue stands for; null for anything else that somebody put there. */
export function readTick(job: { id?: string | undefined; data: unknown }): Tick | null {
  const [, key, at] = tickJobId.exec(job.id ?? '') ?? [];
  if (key === undefined || at === undefined || !check.Check(job.data)) return null;
  const { cron, everyMs, timeZone } = job.data;
  return { key, at: Number(at), timing: { cron, everyMs, timeZone } };
}

export function sameTiming(a: Timing, b: Timing): boolean {
  return a.cron === b.cron && a.everyMs === b.everyMs && a.timeZone === b.timeZone;
}

export function createScheduleQueue(deps: ScheduleQueueDeps): ScheduleQueue {
  const { redis, keys, onError, now = Date.now, timeoutMs = 2_000 } = deps;
  const queue = new Queue<TickJob>(scheduleQueueName, {
    connection: redis,
    prefix: scheduleQueuePrefix(keys),
    streams: { events: { maxLen: 1_000 } },
    settings: tickSettings,
  });
  queue.on('error', onError);

  async function guarded<T>(doing: string, call: () => Promise<T>): Promise<T> {
    const late = () => new Error(`no answer within ${timeoutMs} ms`);
    return bounded(call(), timeoutMs, late).catch((cause: unknown) => {
      const message = `the queue store did not ${doing}: ${messageOf(cause)}`;
      throw new DownlinkError('QUEUE_UNAVAILABLE', message, { cause });
    });
  }

  /** True when it ticks as wanted and its next tick stands in the queue. */
  async function ticksSo({ key, cron, everyMs, timeZone }: Scheduled): Promise<boolean> {
    const found = await queue.getJobScheduler(key);
    if (!found?.next) return false;
    const timing = {
      cron: found.pattern ?? null,
      everyMs: found.every ?? null,
      timeZone: found.template?.data?.timeZone ?? '',
    };
    if (!sameTiming(timing, { cron, everyMs, timeZone })) return false;
    if (everyMs !== null && found.next % everyMs !== 0) return false;
    const jobKey = queue.toKey(`repeat:${key}:${found.next}`);
    const [made, finished] = await redis.hmget(jobKey, 'timestamp', 'finishedOn');
    return Boolean(made) && !finished;
  }

  async function make({ key, ...timing }: Scheduled): Promise<void> {
    const { cron, everyMs, timeZone } = timing;
    const template = { name: key, data: timing, opts: tickOptions };
    if (everyMs === null) {
      await queue.upsertJobScheduler(key, { pattern: cron ?? '', tz: timeZone }, template);
      return;
    }
    // Or BullMQ would keep the beat that this one had before.
    await queue.removeJobScheduler(key);
    // Without a first moment BullMQ ticks at once, and would again after every loss of Redis.
    const startDate = nextTick(timing, now() + ARMING_MS) ?? now();
    await queue.upsertJobScheduler(key, { every: everyMs, startDate }, template);
  }

  return {
    queue,
    async arm(schedule) {
      return guarded(`arm schedule ${schedule.key}`, async () => {
        if (await ticksSo(schedule)) return 'unchanged';
        await make(schedule);
        return 'armed';
      });
    },
    disarm: (key) => guarded(`disarm schedule ${key}`, () => queue.removeJobScheduler(key)),
    keys: () => guarded('list the schedules', () => redis.zrange(queue.toKey('repeat'), '0', '-1')),
    close: () => queue.close(),
  };
}
