/**
 * What may be done at the board. It is a list of what is allowed: a new button of a new version is
 * refused until somebody has thought about it.
 */
import type { Queue } from 'bullmq';
import type { BoardRole } from './door.ts';

export type Action = {
  /** The route below the board's prefix. */
  url: string;
  queue: string | null;
  jobId: string | null;
  queueStatus: string | null;
};

export type Verdict =
  | { allowed: true }
  /** Allowed, but not as the board would do it: as a new command. */
  | { allowed: 'as-replay' }
  | { allowed: false; status: number; message: string };

const pauses: ReadonlySet<string> = new Set([
  '/api/queues/pause',
  '/api/queues/resume',
  '/api/queues/:queueName/pause',
  '/api/queues/:queueName/resume',
]);
const CLEAN_ALL = '/api/queues/:queueName/clean/:queueStatus';
const CLEAN_ONE = '/api/queues/:queueName/:jobId/clean';
const RETRY_ONE = '/api/queues/:queueName/:jobId/retry';
const RETRY_ALL = '/api/queues/:queueName/retry/:queueStatus';
const ended: ReadonlySet<string> = new Set(['completed', 'failed']);

/** Judges an action that changes something. */
export async function judgeAction(
  action: Action,
  role: BoardRole,
  queues: readonly Pick<Queue, 'name' | 'getJobState'>[],
): Promise<Verdict> {
  if (role !== 'admin') {
    return refused(405, 'a viewer only looks: sign in with a user of the role admin');
  }
  if (pauses.has(action.url)) return { allowed: true };
  if (action.url === CLEAN_ALL) {
    if (ended.has(action.queueStatus ?? '')) return { allowed: true };
    return refused(
      409,
      'jobs that wait are accepted commands: cancel them with DELETE /v1/commands/:id',
    );
  }
  if (action.url === CLEAN_ONE) {
    const queue = queues.find(({ name }) => name === action.queue);
    const state = await queue?.getJobState(action.jobId ?? '');
    if (state !== undefined && ended.has(state)) return { allowed: true };
    return refused(
      409,
      `a job that is ${state ?? 'not there'} is no ended one: cancel its command with DELETE /v1/commands/:id`,
    );
  }
  if (action.url === RETRY_ONE) return { allowed: 'as-replay' };
  if (action.url === RETRY_ALL) {
    return refused(
      409,
      'each of them needs a verdict of its own: use POST /v1/dead/replay, which tells what becomes of each',
    );
  }
  return refused(
    409,
    'this would bypass time limits and the rules for commands that may have arrived: send a new command with POST /v1/commands',
  );
}

function refused(status: number, message: string): Verdict {
  return { allowed: false, status, message };
}
