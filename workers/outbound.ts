/** The life of an outbound job in a worker: guard · route · send · settle. */
import type { Job } from 'bullmq';
import { fromJob, type OutboundJob, type ReadJob } from '../queues/job.ts';
import { lineOf } from '../queues/line.ts';
import type { Status } from '../src/command.ts';
import type { Log } from '../src/log/log.ts';
import { protocolNamed, specOf } from '../src/protocols/index.ts';
import type { Guard } from './guard.ts';
import { firstVersion, type Run } from './run.ts';
import type { Send } from './send.ts';
import { refuseJob, type Settle } from './settle.ts';
import type { Window } from './window.ts';

export type OutboundDeps = {
  shardOf(deviceId: string): number;
  guard: Guard;
  send: Send;
  settle: Settle;
  window: Window;
  log: Log;
};

/** Any process may write to the queue: what is taken from it is believed only after a look. */
function readJob(job: Job<OutboundJob>, shard: number, shardOf: OutboundDeps['shardOf']): ReadJob {
  const read = fromJob(job);
  if ('fault' in read || shardOf(read.command.deviceId) === shard) return read;
  const { deviceId } = read.command;
  return { fault: `device ${deviceId} belongs to queue ${shardOf(deviceId)}, not to ${shard}` };
}

/** Processes one activation of a shard's job; what it returns or throws is settle's word to BullMQ. */
export function createOutboundProcessor(deps: OutboundDeps) {
  const { shardOf, guard, send, settle, window, log } = deps;
  return async function process(
    shard: number,
    job: Job<OutboundJob>,
    token = '',
  ): Promise<{ status: Status }> {
    const read = readJob(job, shard, shardOf);
    if ('fault' in read) {
      log.warn({ jobId: job.id, fault: read.fault }, 'job refused: not a command');
      throw refuseJob(read.fault);
    }
    const { command, base } = read;
    const protocol = protocolNamed(command.protocol);
    const spec = specOf(command);
    const run: Run = {
      job,
      token,
      command,
      base,
      protocol,
      spec,
      line: lineOf(command, spec),
      attempt: base.attempt + job.attemptsMade + 1,
      writtenBefore: base.attempt > 0 || job.attemptsMade > 0,
      version: firstVersion(base, job.attemptsStarted),
      trail: null,
      knownTrail: {},
      probeTrail: null,
      delivery: null,
      epochSeen: '',
      revocation: null,
      blockedBy: null,
      unclear: null,
      late: false,
      inferred: false,
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
