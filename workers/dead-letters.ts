/**
 * Removes finished jobs from the queue store when their time is over. BullMQ looks at their age only when another
 * job of the same shard ends; on a quiet one they would stay. The ledger keeps the commands themselves.
 */
import { keepCompleted, keepFailed } from '../queues/job.ts';
import type { RedisOutbound } from '../queues/outbound.ts';
import type { Log } from '../src/log/log.ts';

export type JobRemovalDeps = {
  outbound: Pick<RedisOutbound, 'queues'>;
  log: Log;
  now: () => number;
  jobsAtOnce?: number;
  roundsPerTurn?: number;
};

const kinds = [
  { state: 'failed', keptMs: keepFailed.age * 1_000 },
  { state: 'completed', keptMs: keepCompleted.age * 1_000 },
] as const;

/** One turn; it resolves with whether there may be more to remove. */
export function createJobRemoval({
  outbound,
  log,
  now,
  // Redis does nothing else meanwhile: a few milliseconds.
  jobsAtOnce = 500,
  roundsPerTurn = 20,
}: JobRemovalDeps): () => Promise<boolean> {
  return async function removeJobs() {
    const removed = { failed: 0, completed: 0 };
    let more = false;
    for (const queue of outbound.queues) {
      for (const { state, keptMs } of kinds) {
        let full = true;
        for (let round = 0; full && round < roundsPerTurn; round += 1) {
          // BullMQ counts back from its own clock.
          const graceMs = Date.now() - (now() - keptMs);
          const { length } = await queue.clean(graceMs, jobsAtOnce, state);
          removed[state] += length;
          full = length >= jobsAtOnce;
        }
        more ||= full;
      }
    }
    if (removed.failed + removed.completed > 0) log.info(removed, 'old jobs removed');
    return more;
  };
}
