/**
 * What becomes of a command after an attempt: the one place where an outcome turns into a verdict, and
 * a verdict into what BullMQ is told. Steps: record · release · wake.
 */
import { DelayedError, UnrecoverableError } from 'bullmq';
import type { WorkerBridge } from '../src/bridge/worker-bridge.ts';
import type { Command, Status } from '../src/command.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import type { Outcome, UnwrittenReason } from '../src/outcome.ts';
import type { CommandSpec } from '../src/protocols/protocol.ts';
import type { Parking } from './parking.ts';
import type { Recorder } from './recorder.ts';
import { activeBefore, mayRepeat, nextRecord, outcomeName, type Run } from './run.ts';

export type End = {
  kind: 'end';
  status: Status;
  reason: string | null;
  code: string | null;
  result: Record<string, unknown> | null;
};

export type Verdict =
  | End
  | { kind: 'retry'; delayMs: number; reason: string }
  | { kind: 'park'; because: UnwrittenReason; reason: string };

export type Circumstances = {
  command: Command;
  spec: CommandSpec | undefined;
  attempt: number;
  /** An attempt before this one was written, or may have been. */
  writtenBefore: boolean;
  now: number;
  /** In [0, 1). */
  random: number;
};

/** The verdict on an outcome. Pure and total. */
export function judge(outcome: Outcome, given: Circumstances): Verdict {
  const { command, writtenBefore, now } = given;
  switch (outcome.kind) {
    case 'acked':
    case 'rejected':
    case 'unacknowledged':
      return endOf(outcome);
    case 'unwritten':
      if (now >= command.deadline) return expired(writtenBefore);
      return { kind: 'park', because: outcome.reason, reason: parkReasons[outcome.reason] };
    case 'refused':
      return refused(outcome.reason, outcome.detail, writtenBefore);
    case 'ambiguous':
      return ambiguous(outcome, given);
  }
}

/** An attempt that ended as its protocol says it should, whatever had been thought of it before. */
export type Answer = Extract<Outcome, { kind: 'acked' | 'rejected' | 'unacknowledged' }>;

export function isAnswer(outcome: Outcome): outcome is Answer {
  const { kind } = outcome;
  return kind === 'acked' || kind === 'rejected' || kind === 'unacknowledged';
}

/** How such an attempt ends its command. */
export function endOf(answer: Answer): End {
  switch (answer.kind) {
    case 'acked':
      return end('succeeded', null, null, answer.result);
    case 'rejected':
      return end('rejected', answer.reason, answer.code, answer.result);
    case 'unacknowledged':
      return end('unacknowledged', 'written; the protocol defines no answer to this command');
  }
}

const parkReasons: Record<UnwrittenReason, string> = {
  offline: 'the device is not connected',
  'stale-epoch': 'the device reconnected while the command was under way',
  'lane-full': 'as many commands as its line takes already wait for this device',
  'key-blocked': 'an older command of the same order key is unfinished',
  draining: 'the gateway of this device is shutting down',
  'socket-closed': 'the connection closed before the command was written',
};

function end(
  status: Status,
  reason: string | null,
  code: string | null = null,
  result: Record<string, unknown> | null = null,
): End {
  return { kind: 'end', status, reason, code, result };
}

function expired(writtenBefore: boolean): Verdict {
  return writtenBefore
    ? end('unknown', 'expired after it was written without an answer', 'EXPIRED')
    : end('expired', 'its time to live ended before it could be written', 'EXPIRED');
}

function refused(
  reason: Extract<Outcome, { kind: 'refused' }>['reason'],
  detail: string,
  writtenBefore: boolean,
): Verdict {
  if (reason === 'expired') return expired(writtenBefore);
  const code = reason.toUpperCase();
  if (writtenBefore) {
    return end('unknown', `${reason} after it was written without an answer: ${detail}`, code);
  }
  if (reason === 'superseded') return end('superseded', detail, code);
  if (reason === 'withdrawn') return end('cancelled', detail, 'CANCELLED');
  return end('failed', detail, code);
}

/** Ambiguous ends that the worker decided by itself, without a word of the gateway. */
const ourJudgements: ReadonlySet<string> = new Set(['gateway-lost', 'gateway-silent']);

const ambiguousSentences = {
  'no-ack': 'the device did not answer in time',
  'write-error': 'the socket failed during the write',
  'connection-lost': 'the connection was lost after the write',
  'gateway-lost': 'the gateway was lost after the command was handed to it',
  'gateway-silent': 'the gateway did not say what became of the command',
} as const;

/** Part of a backoff that is left to chance, so that commands of one fault do not come back as one. */
const jitter = 0.2;

function ambiguous(
  outcome: Extract<Outcome, { kind: 'ambiguous' }>,
  { command, spec, attempt, now, random }: Circumstances,
): Verdict {
  const sentence = ambiguousSentences[outcome.reason];
  const code = outcome.reason.toUpperCase().replace('-', '_');
  if (!mayRepeat(spec, command))
    return end('unknown', `${sentence}; sending it again could repeat its effect`, code);
  if (attempt >= command.attempts) {
    return end('unknown', `${sentence}, on attempt ${attempt} of ${command.attempts}`, code);
  }
  const delayMs = Math.round(command.backoffMs * 2 ** (attempt - 1) * (1 + jitter * random));
  if (now + delayMs >= command.deadline) {
    return end('unknown', `${sentence}, and its time to live ends before another attempt`, code);
  }
  return { kind: 'retry', delayMs, reason: `${sentence}; attempt ${attempt + 1} follows` };
}

export type SettleDeps = {
  bridge: Pick<WorkerBridge, 'settled' | 'release'>;
  recorder: Recorder;
  parking: Parking;
  metrics: Metrics;
  now: () => number;
};

export type Settle = {
  /** Settles the attempt, and tells BullMQ by returning or throwing. */
  (run: Run, outcome: Outcome): Promise<{ status: Status }>;
  /** For a job whose command had ended before: gives back what it may still hold. */
  leave(run: Run): Promise<void>;
  /** For a job that cannot be judged now: it comes back in a moment and spends no attempt. */
  putOff(run: Run): Promise<never>;
};

const putOffMs = 1_000;

/** Errors with which settle itself told BullMQ to fail or to retry a job. */
const ours = new WeakSet<Error>();

/** True for an error that settle threw: its command is recorded already. */
export function settledBy(error: Error): boolean {
  return ours.has(error);
}

/** The delay that settle chose for a retry; a second for an error that it did not cause. */
export function backoffOf(error: Error | undefined): number {
  const chosen = error instanceof DownlinkError ? error.details['delayMs'] : undefined;
  return typeof chosen === 'number' ? chosen : 1_000;
}

export function createSettle(deps: SettleDeps): Settle {
  const { bridge, recorder, parking, metrics, now } = deps;

  async function leave(run: Run): Promise<void> {
    await releaseAndWake(run, 'final');
    recorder.notifyWaiter(run.command);
  }

  async function settle(run: Run, outcome: Outcome): Promise<{ status: Status }> {
    run.settling = true;
    noteOutcome(run, outcome);
    const verdict = judge(outcome, {
      command: run.command,
      spec: run.spec,
      attempt: run.attempt,
      writtenBefore: run.writtenBefore,
      now: now(),
      random: Math.random(),
    });
    count(verdict, outcome);
    switch (verdict.kind) {
      case 'end':
        await recordEnd(run, verdict);
        await releaseAndWake(run, 'final');
        dismiss(run, outcome);
        recorder.notifyWaiter(run.command);
        return tellEnd(verdict);
      case 'retry':
        // Awaited: the next attempt carries only its own part of the trail.
        await recorder.record(nextRecord(run, { status: 'queued', reason: verdict.reason }));
        await releaseAndWake(run, 'rest');
        dismiss(run, outcome);
        throw mark(
          new DownlinkError('TIMEOUT', verdict.reason, { details: { delayMs: verdict.delayMs } }),
        );
      case 'park':
        await releaseAndWake(run, 'unwritten');
        await parking.park(run, verdict.because);
        // Said last: whoever reads `parked` may count on an event waking it.
        recorder.recordLater(nextRecord(run, { status: 'parked', reason: verdict.reason }));
        throw new DelayedError(verdict.reason);
    }
  }

  async function putOff(run: Run): Promise<never> {
    await recorder.untilDone(() => run.job.moveToDelayed(now() + putOffMs, run.token));
    throw new DelayedError('the ledger is away');
  }

  return Object.assign(settle, { leave, putOff });

  /** The gateway may forget the attempt, unless we gave it up unheard: then its answer is still to come. */
  function dismiss({ trail, command }: Run, outcome: Outcome): void {
    const unheard = outcome.kind === 'ambiguous' && ourJudgements.has(outcome.reason);
    if (trail && !unheard) bridge.settled(trail.gatewayId, command.id, trail.attempt);
  }

  async function recordEnd(run: Run, verdict: End): Promise<void> {
    const { status, reason, code, result } = verdict;
    await recorder.record(nextRecord(run, { status, reason, code, result, settledAt: now() }));
  }

  async function releaseAndWake(run: Run, mode: 'final' | 'rest' | 'unwritten'): Promise<void> {
    const { id, deviceId } = run.command;
    // An unwritten command left no room: the one that takes its place wakes the next.
    const wake = mode === 'unwritten' ? 0 : 1;
    const options = { wake, again: activeBefore(run), attempt: run.attempt };
    const woken = await recorder.untilDone(() => bridge.release(deviceId, id, mode, options));
    for (const next of woken) parking.wake(deviceId, next);
  }

  function count(verdict: Verdict, outcome: Outcome): void {
    if (outcome.kind === 'ambiguous') {
      if (outcome.reason === 'no-ack') metrics.outboundTimeout.inc();
      metrics.outboundErrors.inc({ type: outcome.reason });
    } else if (outcome.kind === 'refused' || outcome.kind === 'unwritten') {
      metrics.outboundErrors.inc({ type: outcome.reason });
    }
    if (verdict.kind !== 'end') return;
    if (verdict.status === 'failed' || verdict.status === 'unknown') metrics.outboundFailed.inc();
    else metrics.outboundCompleted.inc();
  }
}

/** Writes the end of the attempt into its part of the trail. */
function noteOutcome(run: Run, outcome: Outcome): void {
  const { trail } = run;
  if (!trail) return;
  trail.outcome = outcomeName(outcome);
  if (!('writtenAt' in outcome)) return;
  trail.writtenAt = outcome.writtenAt ?? trail.writtenAt;
  if (trail.writtenAt !== null) trail.ms = outcome.endedAt - trail.writtenAt;
  if ('frameIn' in outcome) trail.frameIn = outcome.frameIn;
}

/** Only failed and unknown fail the job: BullMQ's failed set is the dead letters. */
function tellEnd({ status, reason }: End): { status: Status } {
  if (status !== 'failed' && status !== 'unknown') return { status };
  throw mark(new UnrecoverableError(`${status}: ${reason ?? ''}`));
}

function mark<E extends Error>(error: E): E {
  // The stack says nothing here, and BullMQ would store it with every dead job.
  error.stack = '';
  ours.add(error);
  return error;
}
