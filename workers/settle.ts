/**
 * What becomes of a command after an attempt: the one place where an outcome turns into a verdict, and
 * a verdict into what BullMQ is told. Steps: record · release · wake.
 */
import { DelayedError, UnrecoverableError } from 'bullmq';
import type { Revocation, Routes } from '../src/bridge/routes-contract.ts';
import type { WorkerBridge } from '../src/bridge/worker-bridge.ts';
import type { Command, Status } from '../src/command.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import type { Outcome, UnwrittenReason } from '../src/outcome.ts';
import type { CommandSpec } from '../src/protocols/protocol.ts';
import type { Parking } from './parking.ts';
import type { Recorder } from './recorder.ts';
import { activeBefore, mayRepeat, nextRecord, outcomeName, probeFor, type Run } from './run.ts';

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
  /** Why it must not be written (again), if it must not. */
  revocation: Revocation | null;
  /** The older command of its line that it waits for. */
  blockedBy: string | null;
  /** Why a probe could not tell what became of it. */
  unclear: string | null;
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
      if (given.revocation) return revoked(given.revocation, writtenBefore);
      if (now >= command.deadline) return expired(writtenBefore);
      return { kind: 'park', because: outcome.reason, reason: parkReason(outcome.reason, given) };
    case 'refused':
      if (given.revocation) return revoked(given.revocation, writtenBefore);
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
  paused: 'the device is paused',
};

function parkReason(reason: UnwrittenReason, { blockedBy }: Circumstances): string {
  return reason === 'key-blocked' && blockedBy !== null
    ? `command ${blockedBy} of the same order key is unfinished`
    : parkReasons[reason];
}

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

/** Superseded or cancelled: a frame that may be out leaves it open what the device did. */
function revoked({ kind, by }: Revocation, mayBeWritten: boolean): Verdict {
  const code = kind.toUpperCase();
  const how = kind === 'superseded' ? `superseded by command ${by}` : `cancelled by ${by}`;
  return mayBeWritten
    ? end('unknown', `${how} after it was written, or may have been, without an answer`, code)
    : end(kind, `${how} before it was written`, code);
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
  { command, spec, attempt, now, random, revocation, unclear }: Circumstances,
): Verdict {
  if (revocation) return revoked(revocation, true);
  const sentence = ambiguousSentences[outcome.reason];
  const code = outcome.reason.toUpperCase().replace('-', '_');
  if (unclear !== null) {
    return end(
      'unknown',
      `the frame went unanswered, and a probe could not tell: ${unclear}`,
      code,
    );
  }
  const probe = probeFor(spec, command);
  if (!mayRepeat(spec, command) && !probe)
    return end('unknown', `${sentence}; sending it again could repeat its effect`, code);
  if (attempt >= command.attempts) {
    return end('unknown', `${sentence}, on attempt ${attempt} of ${command.attempts}`, code);
  }
  const delayMs = Math.round(command.backoffMs * 2 ** (attempt - 1) * (1 + jitter * random));
  if (now + delayMs >= command.deadline) {
    return end('unknown', `${sentence}, and its time to live ends before another attempt`, code);
  }
  const next =
    probe?.kind === 'ask'
      ? `the device is asked before anything is sent again`
      : `attempt ${attempt + 1} follows`;
  return { kind: 'retry', delayMs, reason: `${sentence}; ${next}` };
}

export type SettleDeps = {
  bridge: Pick<WorkerBridge, 'settled' | 'remember'>;
  routes: Pick<Routes, 'release' | 'revocation' | 'keepUnanswered' | 'forgetUnanswered'>;
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
/** As long as gateways wait for an answer. */
const lateWindowMs = 600_000;

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
  const { bridge, routes, recorder, parking, metrics, now } = deps;

  async function leave(run: Run): Promise<void> {
    await releaseAndWake(run, 'final');
    recorder.notifyWaiter(run.command);
  }

  async function settle(run: Run, outcome: Outcome): Promise<{ status: Status }> {
    run.settling = true;
    noteOutcome(run, outcome);
    await learnRevocation(run, outcome);
    const verdict = judge(outcome, {
      command: run.command,
      revocation: run.revocation,
      blockedBy: run.blockedBy,
      unclear: run.unclear,
      spec: run.spec,
      attempt: run.attempt,
      writtenBefore: run.writtenBefore,
      now: now(),
      random: Math.random(),
    });
    count(verdict, outcome);
    if (outcome.kind === 'ambiguous') await awaitLateAnswer(run);
    else if (run.writtenBefore && verdict.kind === 'end' && verdict.status !== 'unknown') {
      forgetUnanswered(run);
    }
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
        if (isLastTry(run)) {
          // A foreign producer gave the job fewer tries than its command has: a delay of our own does it then.
          await recorder.untilDone(() => run.job.moveToDelayed(now() + verdict.delayMs, run.token));
          throw new DelayedError(verdict.reason);
        }
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

  /** Why a gateway sent it back, or whether a further attempt is still wanted: the route had not known yet. */
  async function learnRevocation(run: Run, outcome: Outcome): Promise<void> {
    const sentBack = outcome.kind === 'refused' && outcome.reason === 'withdrawn';
    const overtaken = outcome.kind === 'unwritten' && outcome.reason === 'key-blocked';
    if (run.revocation || !(sentBack || overtaken || outcome.kind === 'ambiguous')) return;
    const { deviceId, id } = run.command;
    run.revocation = await recorder.untilDone(() => routes.revocation(deviceId, id));
  }

  /** The device may still answer, on this session or on another, here or elsewhere. */
  async function awaitLateAnswer({ delivery, trail }: Run): Promise<void> {
    if (!delivery || !trail) return;
    const writtenAt = trail.writtenAt ?? trail.at;
    const unanswered = { delivery, writtenAt, until: now() + lateWindowMs };
    const gatewayId = await recorder.untilDone(() => routes.keepUnanswered(unanswered, now()));
    // The gateway that wrote it remembers by itself.
    if (gatewayId !== null && gatewayId !== trail.gatewayId) {
      bridge.remember(gatewayId, unanswered);
    }
  }

  function forgetUnanswered({ command }: Run): void {
    routes.forgetUnanswered(command.deviceId, command.id).catch(() => undefined);
  }

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
    const options = { mode, wake, again: activeBefore(run), attempt: run.attempt, line: run.line };
    const woken = await recorder.untilDone(() => routes.release({ deviceId, id, ...options }));
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
  if ('earlier' in outcome) {
    // The attempt before was answered while this one waited for its turn.
    run.late = true;
    trail.outcome = 'withdrawn';
    return;
  }
  trail.outcome = outcomeName(outcome);
  if (!('writtenAt' in outcome)) return;
  trail.writtenAt = outcome.writtenAt ?? trail.writtenAt;
  if (trail.writtenAt !== null) trail.ms = outcome.endedAt - trail.writtenAt;
  if ('frameIn' in outcome) trail.frameIn = outcome.frameIn;
}

/** For what is no command at all: there is no row to settle, and the job says why it failed. */
export function refuseJob(fault: string): Error {
  return mark(new UnrecoverableError(`failed: ${fault}`));
}

/** BullMQ would fail the job rather than try it again. */
function isLastTry({ job }: Run): boolean {
  return job.attemptsMade + 1 >= (job.opts.attempts ?? 1);
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
