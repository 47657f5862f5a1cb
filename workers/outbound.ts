/** The life of an outbound job in a worker: guard · route · send · settle. */
import type { Job } from 'bullmq';
import { fromJob, type OutboundJob } from '../queues/job.ts';
import type { Status } from '../src/command.ts';
import type { Log } from '../src/log/log.ts';
import { protocolNamed } from '../src/protocols/index.ts';
import type { Guard } from './guard.ts';
import { firstVersion, type Run } from './run.ts';
import type { Send } from './send.ts';
import type { Settle } from './settle.ts';
import type { Window } from './window.ts';

export type OutboundDeps = {
  guard: Guard;
  send: Send;
  settle: Settle;
  window: Window;
  log: Log;
};

/** Processes one activation of a job; what it returns or throws is settle's word to BullMQ. */
export function createOutboundProcessor({ guard, send, settle, window, log }: OutboundDeps) {
  return async function process(
    job: Job<OutboundJob>,
    token = '',
  ): Promise<{ status: Status | 'invalid'; fault?: string }> {
    const read = fromJob(job);
    if ('fault' in read) {
      // Not a command of ours: there is no row to settle. Completing it keeps the dead letters honest.
      log.warn({ jobId: job.id, fault: read.fault }, 'job refused: not a command');
      return { status: 'invalid', fault: read.fault };
    }
    const { command, base } = read;
    const protocol = protocolNamed(command.protocol);
    const run: Run = {
      job,
      token,
      command,
      base,
      protocol,
      spec: protocol?.commands[command.command],
      attempt: base.attempt + job.attemptsMade + 1,
      writtenBefore: base.attempt > 0 || job.attemptsMade > 0,
      version: firstVersion(base, job.attemptsStarted),
      trail: null,
      epochSeen: '',
      late: false,
      settling: false,
    };
    window.enter(run);
    try {
      const guarded = await guard(run);
      if (guarded.go) return await settle(run, await send(run));
      if ('later' in guarded) return await settle.putOff(run);
      if (guarded.outcome) return await settle(run, guarded.outcome);
      await settle.leave(run);
      return { status: guarded.status };
    } finally {
      window.end(run);
    }
  };
}
