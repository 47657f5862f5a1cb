/**
 * How many jobs a shard's consumer holds: all that wait for their device, and a window of those that
 * are on their way to it. A fixed concurrency in the thousands would take thousands off the queue long
 * before their turn, where priority no longer orders them and memory pays for them.
 */
import type { Run } from './run.ts';

export type Window = {
  start(): void;
  stop(): void;
  /** The job is on its way. */
  enter(run: Run): void;
  /** It was written and waits for its device, or has ended. Leaving twice is harmless. */
  leave(run: Run): void;
  /** The job is over. */
  end(run: Run): void;
};

export type WindowDeps = {
  /** Jobs on their way at once, per shard. */
  size: number;
  /** Jobs held at once in all, per shard. */
  max: number;
  shardOf(deviceId: string): number;
  setConcurrency(shard: number, concurrency: number): void;
};

/** Concurrency changes in steps, so that not every receipt of a device moves it. */
const step = 16;
/**
 * It grows at once and shrinks slowly: where it shrinks, BullMQ no longer takes the next job with the end
 * of the last, and pays a round trip more for each.
 */
const shrinkEveryMs = 1_000;

export function createWindow({ size, max, shardOf, setConcurrency }: WindowDeps): Window {
  const onTheirWay = new Set<Run>();
  const waiting: number[] = [];
  const peaks: number[] = [];
  const allowed: number[] = [];

  let timer: NodeJS.Timeout | undefined;

  function adjust(shard: number, by: number): void {
    const count = (waiting[shard] ?? 0) + by;
    waiting[shard] = count;
    peaks[shard] = Math.max(peaks[shard] ?? 0, count);
    if (wantedFor(count) > (allowed[shard] ?? size)) allow(shard, wantedFor(count));
  }

  function wantedFor(count: number): number {
    return Math.min(max, size + Math.ceil(count / step) * step);
  }

  function allow(shard: number, jobs: number): void {
    allowed[shard] = jobs;
    setConcurrency(shard, jobs);
  }

  /** Down to what the last period needed at its busiest. */
  function shrink(): void {
    for (const [shard, jobs] of allowed.entries()) {
      const wanted = wantedFor(peaks[shard] ?? 0);
      if (jobs !== undefined && wanted < jobs) allow(shard, wanted);
      peaks[shard] = waiting[shard] ?? 0;
    }
  }

  function leave(run: Run): void {
    if (onTheirWay.delete(run)) adjust(shardOf(run.command.deviceId), 1);
  }

  return {
    start() {
      timer = setInterval(shrink, shrinkEveryMs);
      timer.unref();
    },
    stop: () => clearInterval(timer),
    enter: (run) => void onTheirWay.add(run),
    leave,
    end(run) {
      if (!onTheirWay.delete(run)) adjust(shardOf(run.command.deviceId), -1);
    },
  };
}
