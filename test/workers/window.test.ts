import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Run } from '../../workers/run.ts';
import { createWindow } from '../../workers/window.ts';

afterEach(() => vi.useRealTimers());

function rig() {
  const set: number[] = [];
  const window = createWindow({
    size: 10,
    max: 100,
    shardOf: () => 0,
    setConcurrency: (_shard, jobs) => set.push(jobs),
  });
  const run = () => ({ command: { deviceId: 'd' } }) as Run;
  return { set, window, run };
}

describe('the window of a shard', () => {
  it('makes room for a job as soon as another waits for its device', () => {
    const { set, window, run } = rig();
    const one = run();
    window.enter(one);
    expect(set).toEqual([]);
    window.leave(one);
    expect(set.at(-1)).toBeGreaterThan(10);
  });

  it('never holds more than it may', () => {
    const { set, window, run } = rig();
    for (let n = 0; n < 500; n += 1) {
      const each = run();
      window.enter(each);
      window.leave(each);
    }
    expect(Math.max(...set)).toBe(100);
  });

  it('counts a job that leaves twice, or ends on its way, once', () => {
    const { set, window, run } = rig();
    const [twice, direct] = [run(), run()];
    window.enter(twice);
    window.leave(twice);
    window.leave(twice);
    window.end(twice);
    window.enter(direct);
    window.end(direct);
    const grown = set.length;
    const next = run();
    window.enter(next);
    window.leave(next);
    expect(set.length).toBe(grown);
  });

  it('shrinks again once the busy time is over', () => {
    vi.useFakeTimers();
    const { set, window, run } = rig();
    window.start();
    const runs = Array.from({ length: 60 }, run);
    for (const each of runs) {
      window.enter(each);
      window.leave(each);
    }
    for (const each of runs) window.end(each);
    expect(set.at(-1)).toBeGreaterThan(60);
    vi.advanceTimersByTime(5_000);
    window.stop();
    expect(set.at(-1)).toBe(10);
  });
});
