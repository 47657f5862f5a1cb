/** Jobs that BullMQ failed by itself: their commands end as unknown, since nobody saw how. */
import type { Job } from 'bullmq';
import type { Outbound } from '../queues/contract.ts';
import { fromJob, type OutboundJob, versionsPerActivation } from '../queues/job.ts';
import { lineOf } from '../queues/line.ts';
import type { Routes } from '../src/bridge/routes-contract.ts';
import { messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import { specOf } from '../src/protocols/index.ts';
import type { Recorder } from './recorder.ts';
import { firstVersion } from './run.ts';

export type ForeignEndsDeps = {
  routes: Pick<Routes, 'release'>;
  outbound: Pick<Outbound, 'wake'>;
  recorder: Recorder;
  log: Log;
  now: () => number;
};

export function createForeignEnds({ routes, outbound, recorder, log, now }: ForeignEndsDeps) {
  return {
    /** Called for every failure that settle did not cause; those that will be tried again are left alone. */
    async settle(job: Job<OutboundJob>, error: Error): Promise<void> {
      log.error({ commandId: job.id, error: messageOf(error) }, 'job failed outside its flow');
      const willRetry = job.finishedOn === undefined && job.attemptsMade < (job.opts.attempts ?? 1);
      const read = fromJob(job);
      if (willRetry || 'fault' in read) return;
      const { command, base } = read;
      const reason = `its job failed: ${messageOf(error)}`;
      await recorder
        .record({
          ...command,
          status: 'unknown',
          version: firstVersion(base, job.attemptsStarted) + versionsPerActivation - 1,
          reason,
          code: 'INTERNAL',
          result: null,
          late: false,
          inferred: false,
          settledAt: now(),
          trail: {},
        })
        .catch((cause) => log.error({ commandId: command.id, cause }, 'end not recorded'));
      const { id, deviceId } = command;
      const line = lineOf(command, specOf(command));
      const options = { line, mode: 'final', wake: 1, again: true, attempt: 0 } as const;
      try {
        const woken = await routes.release({ deviceId, id, ...options });
        for (const next of woken) await outbound.wake(deviceId, next);
      } catch (cause) {
        log.error({ commandId: id, error: messageOf(cause) }, 'mark not released');
      }
      recorder.notifyWaiter(command);
    },
  };
}
