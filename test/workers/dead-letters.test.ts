import { UnrecoverableError } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { createJobRemoval, type JobRemovalDeps } from '../../workers/dead-letters.ts';
import { eventually } from '../support/eventually.ts';
import { dutyStores } from './duty-stores.ts';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

/** Five jobs that failed, five that completed, all of one shard and just now. */
async function finishedJobs(wanted: Partial<JobRemovalDeps> = {}) {
  const stores = await dutyStores();
  const { accept, consume, outbound, keys } = stores;
  const records = await Promise.all(
    Array.from({ length: 10 }, (_, n) => accept({ priority: n < 5 ? 1 : 9 })),
  );
  const [{ deviceId }] = records as [(typeof records)[0]];
  await consume(
    deviceId,
    async ({ data }) => {
      if (data.priority === 1) throw new UnrecoverableError('dead');
    },
    { jobs: 10 },
  );
  const queue = outbound.queues[keys.shardOf(deviceId)]!;
  const counts = () => queue.getJobCounts('failed', 'completed');
  await eventually(async () => expect(await counts()).toEqual({ failed: 5, completed: 5 }));
  const clock = { now: Date.now() };
  const removeJobs = createJobRemoval({ ...stores, now: () => clock.now, ...wanted });
  return { ...stores, queue, counts, clock, removeJobs };
}

describe('finished jobs', () => {
  it('leave the queue when their time is over, though no other job ends there', async () => {
    const { counts, clock, removeJobs } = await finishedJobs();
    clock.now = Date.now() + hourMs - 60_000;
    expect(await removeJobs()).toBe(false);
    expect(await counts()).toEqual({ failed: 5, completed: 5 });
    clock.now = Date.now() + hourMs + 1_000;
    expect(await removeJobs()).toBe(false);
    expect(await counts()).toEqual({ failed: 5, completed: 0 });
    clock.now = Date.now() + 7 * dayMs - 60_000;
    await removeJobs();
    expect(await counts()).toEqual({ failed: 5, completed: 0 });
    clock.now = Date.now() + 7 * dayMs + 1_000;
    expect(await removeJobs()).toBe(false);
    expect(await counts()).toEqual({ failed: 0, completed: 0 });
  });

  it('are removed turn by turn, and waiting ones never', async () => {
    const limits = { jobsAtOnce: 2, roundsPerTurn: 2 };
    const { counts, clock, removeJobs, queue, outbound, accept } = await finishedJobs(limits);
    await queue.pause();
    const waiting = await accept();
    clock.now = Date.now() + 30 * dayMs;
    expect(await removeJobs()).toBe(true);
    expect(await counts()).toEqual({ failed: 1, completed: 1 });
    expect(await removeJobs()).toBe(false);
    expect(await counts()).toEqual({ failed: 0, completed: 0 });
    expect(await outbound.holds([waiting])).toEqual(new Set([waiting.id]));
  });
});
