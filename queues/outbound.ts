/** The outbound queue on Redis: one BullMQ queue a shard, a device always in the same one. */
import { type Job, Queue } from 'bullmq';
import type { Redis } from 'ioredis';
import type { Keys } from '../src/bridge/keys.ts';
import { isRedisOutage } from '../src/connections/outage.ts';
import { DownlinkError, messageOf } from '../src/errors.ts';
import type { Enqueued, Outbound, QueueCounts, Taken } from './contract.ts';
import {
  bullPriority,
  fromJob,
  jobOptions,
  type OutboundJob,
  toJob,
  versionsPerActivation,
} from './job.ts';

export type OutboundQueue = Queue<OutboundJob>;

export type RedisOutbound = Outbound & { queues: readonly OutboundQueue[] };

export type OutboundDeps = {
  /** A `commands` client: it fails fast while Redis is away. */
  redis: Redis;
  keys: Keys;
  onError(error: Error): void;
  now?: () => number;
  /** An add that takes longer counts as failed; it may still have happened, which harms nothing. */
  timeoutMs?: number;
};

const mostUrgent = 9;
const finished = new Set(['completed', 'failed', 'unknown']);

export function createOutbound(deps: OutboundDeps): RedisOutbound {
  const { redis, keys, onError, now = Date.now, timeoutMs = 2_000 } = deps;
  const queues = Array.from({ length: keys.shards }, (_, shard) => {
    const queue: OutboundQueue = new Queue<OutboundJob>(keys.queueName(shard), {
      connection: redis,
      prefix: keys.queuePrefix(shard),
      // Nobody reads the event stream's history; what it may hold is Redis memory.
      streams: { events: { maxLen: 1_000 } },
    });
    queue.on('error', onError);
    return queue;
  });
  const queueOf = (deviceId: string) => queues[keys.shardOf(deviceId)]!;

  /** Redis may be away before BullMQ has even begun: every call is bounded here. */
  async function guarded<T>(doing: string, call: () => Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    try {
      return await Promise.race([
        call(),
        new Promise<never>((_, reject) => {
          timer = setTimeout(
            () => reject(new Error(`no answer within ${timeoutMs} ms`)),
            timeoutMs,
          );
        }),
      ]);
    } catch (cause) {
      throw new DownlinkError(
        'QUEUE_UNAVAILABLE',
        `the queue store did not ${doing}: ${messageOf(cause)}`,
        { cause },
      );
    } finally {
      clearTimeout(timer);
    }
  }

  const jobOf = ({ command, base, blocked = false }: Enqueued) => ({
    name: command.command,
    data: toJob(command, base),
    opts: jobOptions(command, { base, blocked, now: now() }),
  });

  /** Lets a delayed job go, and puts it before all of this priority. False when it is not delayed (any more). */
  async function bringForward(job: Job<OutboundJob>, priority: number): Promise<boolean> {
    // Sent together, done in this order: a round trip saved for each of the many that return at once.
    const [promoted, placed] = await Promise.allSettled([
      job.promote(),
      job.changePriority({ priority: bullPriority(priority), lifo: true }),
    ]);
    for (const { reason } of [promoted, placed].filter((each) => each.status === 'rejected')) {
      if (isRedisOutage(reason)) throw reason;
    }
    return promoted.status === 'fulfilled';
  }

  return {
    queues,
    async enqueue(entry) {
      const { name, data, opts } = jobOf(entry);
      await guarded('take the command', () => queueOf(data.deviceId).add(name, data, opts));
    },
    async enqueueMany(entries) {
      const groups = Map.groupBy(entries, ({ command }) => keys.shardOf(command.deviceId));
      await guarded('take the commands', () =>
        Promise.all([...groups].map(([shard, group]) => queues[shard]!.addBulk(group.map(jobOf)))),
      );
    },
    async take(deviceId, id): Promise<Taken> {
      return guarded('give the command back', async () => {
        const job = await queueOf(deviceId).getJob(id);
        if (!job) return 'missing';
        const state = await job.getState();
        if (state === 'active') return 'active';
        if (finished.has(state)) return 'missing';
        try {
          await job.remove();
        } catch {
          // A worker locked it between the two looks.
          return 'active';
        }
        await redis.zrem(keys.parked(deviceId), id);
        return 'taken';
      });
    },
    async find(deviceId, id) {
      return guarded('show the command', async () => {
        const job = await queueOf(deviceId).getJob(id);
        if (!job) return null;
        const read = fromJob(job);
        if ('fault' in read) return null;
        // One more activation may begin before the caller has the job.
        const activations = job.attemptsStarted + 2;
        const nextVersion = read.base.version + 2 + activations * versionsPerActivation;
        return { command: read.command, nextVersion };
      });
    },
    async counts(): Promise<QueueCounts> {
      return guarded('count', async () => {
        const counts = { waiting: 0, pending: 0, dead: 0 };
        const shards = await Promise.all(
          queues.map((queue) =>
            queue.getJobCounts('waiting', 'prioritized', 'delayed', 'active', 'failed'),
          ),
        );
        for (const shard of shards) {
          counts.waiting +=
            (shard['waiting'] ?? 0) + (shard['prioritized'] ?? 0) + (shard['delayed'] ?? 0);
          counts.pending += shard['active'] ?? 0;
          counts.dead += shard['failed'] ?? 0;
        }
        return counts;
      });
    },
    async wake(deviceId, id) {
      const job = await queueOf(deviceId).getJob(id);
      // Before its equals: it has waited longer than all of them.
      return job ? bringForward(job, job.data.priority) : false;
    },
    async hasten(deviceId, id) {
      const job = await queueOf(deviceId).getJob(id);
      if (!job || (await job.isActive()) || finished.has(await job.getState())) return false;
      await bringForward(job, mostUrgent);
      return true;
    },
    async forget(deviceId, id) {
      const job = await queueOf(deviceId).getJob(id);
      if (job && finished.has(await job.getState())) await job.remove().catch(() => undefined);
    },
    async holds(entries) {
      const held = new Set<string>();
      await guarded('look up commands', () =>
        Promise.all(
          entries.map(async ({ deviceId, id }) => {
            const key = queueOf(deviceId).toKey(id);
            const [timestamp, finishedOn] = await redis.hmget(key, 'timestamp', 'finishedOn');
            if (timestamp && !finishedOn) held.add(id);
          }),
        ),
      );
      return held;
    },
    async inspect(deviceId, id) {
      return guarded('show the job', async () => {
        const queue = queueOf(deviceId);
        const job = await queue.getJob(id);
        if (!job) return null;
        const [state, score] = await Promise.all([
          job.getState(),
          redis.zscore(queue.toKey('delayed'), id),
        ]);
        // BullMQ keeps twelve bits below the milliseconds to order those of one moment.
        const dueAt = score === null ? null : Math.floor(Number(score) / 0x1000);
        return { state, dueAt, failedReason: job.failedReason ?? null };
      });
    },
    async pause() {
      await guarded('pause', () => Promise.all(queues.map((queue) => queue.pause())));
    },
    async resume() {
      await guarded('go on', () => Promise.all(queues.map((queue) => queue.resume())));
    },
    async isPaused() {
      const shards = await guarded('tell whether it is paused', () =>
        Promise.all(queues.map((queue) => queue.isPaused())),
      );
      return shards.some(Boolean);
    },
    async close() {
      await Promise.all(queues.map((queue) => queue.close()));
    },
  };
}
