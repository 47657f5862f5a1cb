/**
 * How many jobs a shard's consumer holds: all that wait for their device, and a window of those that
 * are on their way to it. A fixed concurrency in the thousands would take thousands off the queue long
 * before their turn, where priority no longer orders them and memory pays for them.
 */
import type { Run } from './run.ts';

export type Window = {
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

export function createWindow({ size, max, shardOf, setConcurrency }: WindowDeps): Window {
  const onTheirWay = new Set<Run>();
  const waiting: number[] = [];
  const allowed: number[] = [];

  function adjust(shard: number, by: number): void {
    const count = (waiting[shard] ?? 0) + by;
    waiting[shard] = count;
    const wanted = Math.min(max, size + Math.ceil(count / step) * step);
    if (wanted === allowed[shard]) return;
    allowed[shard] = wanted;
    setConcurrency(shard, wanted);
  }

  function leave(run: Run): void {
    if (onTheirWay.delete(run)) adjust(shardOf(run.command.deviceId), 1);
  }

  return {
    enter: (run) => void onTheirWay.add(run),
    leave,
    end(run) {
      if (!onTheirWay.delete(run)) adjust(shardOf(run.command.deviceId), -1);
    },
  };
}
