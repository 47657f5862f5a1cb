/** A retry from the board: never BullMQ's own, but a new command through the guards of any other. */
import type { Queue } from 'bullmq';
import { replayKey } from '../queues/dead-letters.ts';
import type { Replay } from '../queues/replay.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Ledger } from '../src/store/contract.ts';

export type BoardRetryDeps = {
  ledger: Pick<Ledger, 'find'>;
  replay: Replay;
  now?: () => number;
};

/** Rejects with the reason for which it is not sent again. The dead job is gone afterwards. */
export type BoardRetry = (
  queue: Pick<Queue, 'getJobState'>,
  jobId: string,
  user: string,
) => Promise<{ newId: string }>;

export function createBoardRetry({ ledger, replay, now = Date.now }: BoardRetryDeps): BoardRetry {
  return async function retry(queue, jobId, user) {
    const state = await queue.getJobState(jobId);
    if (state !== 'failed') {
      throw new DownlinkError('NOT_FINAL', `job ${jobId} is ${state}: only a dead one is retried`);
    }
    const original = await ledger.find(jobId);
    if (!original) {
      throw new DownlinkError(
        'COMMAND_NOT_FOUND',
        `the ledger knows no command ${jobId}: send it anew with POST /v1/commands`,
      );
    }
    // At a board a retry is one click: what was meant for a moment that is over needs a second thought.
    if (now() >= original.deadline) {
      const over = new Date(original.deadline).toISOString();
      throw new DownlinkError(
        'EXPIRED',
        `the time to live of command ${jobId} ended at ${over}: if it is still wanted, use POST /v1/commands/${jobId}/retry`,
      );
    }
    const { record } = await replay.replay({
      original,
      apiKey: `board:${user}`,
      idempotencyKey: replayKey(jobId),
      acceptRisk: false,
    });
    await replay.dismiss([original]);
    return { newId: record.id };
  };
}
