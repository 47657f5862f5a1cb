/** One activation of a job: what its steps share. */
import type { Job } from 'bullmq';
import type { Base } from '../queues/contract.ts';
import { type OutboundJob, versionsPerActivation } from '../queues/job.ts';
import type { Delivery, StreamedOutcome } from '../src/bridge/messages.ts';
import type { Revocation } from '../src/bridge/routes-contract.ts';
import type { Attempt, Command, CommandRecord, CommandState } from '../src/command.ts';
import type { Outcome } from '../src/outcome.ts';
import type { CommandSpec, Probe, Protocol } from '../src/protocols/protocol.ts';

export type Run = {
  job: Job<OutboundJob>;
  token: string;
  command: Command;
  base: Base;
  /** Undefined when this process does not know the protocol or the command. */
  protocol: Protocol | undefined;
  spec: CommandSpec | undefined;
  /** The line it stands in; null where no order is kept. */
  line: string | null;
  /** The attempt under way; the route may raise it. */
  attempt: number;
  /** An earlier attempt was written, or may have been. */
  writtenBefore: boolean;
  /** Last version this activation wrote. */
  version: number;
  /** This activation's part of the trail. */
  trail: Attempt | null;
  /** What the ledger knows of its attempts, where it had to be asked. */
  knownTrail: Record<string, Attempt>;
  /** What was asked about the attempt before, where that had to be asked. */
  probeTrail: Attempt | null;
  /** What was published last. */
  delivery: Delivery | null;
  /** Epoch of the session that was tried; '' when there was none. */
  epochSeen: string;
  /** Why it must not be written (again), once that is known. */
  revocation: Revocation | null;
  /** The older command of its line that it waits for. */
  blockedBy: string | null;
  /** Why a probe could not tell what became of it. */
  unclear: string | null;
  /** The answer came after its deadline. */
  late: boolean;
  /** A probe, not the device's answer, says that it took effect. */
  inferred: boolean;
  /** Settle has begun: steps that were put off are void. */
  settling: boolean;
};

/** The first version of an activation is above all versions of the activations before it. */
export function firstVersion(base: Base, activation: number): number {
  return base.version + activation * versionsPerActivation;
}

/** Whether sending it again does no harm, or the caller takes the risk; the caller may forbid it, too. */
export function mayRepeat(spec: CommandSpec | undefined, { onAmbiguous }: Command): boolean {
  return onAmbiguous === 'resend' || (spec?.repeatable === true && onAmbiguous !== 'stop');
}

/** How to find out what became of it before it is sent again; null where that is not needed, or not possible. */
export function probeFor(spec: CommandSpec | undefined, command: Command): Probe | null {
  if (mayRepeat(spec, command) || command.onAmbiguous !== 'probe') return null;
  return spec?.probe ?? null;
}

/** The id under which a question about a command travels; the command's final release forgets it. */
export function probeIdOf(commandId: string): string {
  return `${commandId}~`;
}

/** Whether the command may have been parked, marked or written before this activation. */
export function activeBefore({ job, base, attempt }: Run): boolean {
  return job.attemptsStarted > 1 || attempt > 1 || base.version > 0;
}

/** The command's record in its next version. */
export function nextRecord(
  run: Run,
  state: Partial<CommandState> & Pick<CommandState, 'status'>,
): CommandRecord {
  run.version += 1;
  return {
    ...run.command,
    version: run.version,
    reason: null,
    code: null,
    result: null,
    late: run.late,
    inferred: run.inferred,
    settledAt: null,
    trail: {
      ...(run.probeTrail && {
        [`${run.probeTrail.attempt}?${run.probeTrail.wireId}`]: { ...run.probeTrail },
      }),
      ...(run.trail && { [run.trail.attempt]: { ...run.trail } }),
    },
    ...state,
  };
}

/** How the trail names an outcome: its reason, or its kind where the device, or nobody, answered. */
export function outcomeName(outcome: Outcome): string {
  return 'reason' in outcome && outcome.kind !== 'rejected' ? outcome.reason : outcome.kind;
}

/** The trail entry of an outcome that came over the outcomes stream. */
export function trailOf(streamed: StreamedOutcome): Attempt {
  const { attempt, gatewayId, epoch, wireId, frame, outcome } = streamed;
  const exchange = 'writtenAt' in outcome ? outcome : { writtenAt: null, endedAt: 0 };
  return {
    attempt,
    at: exchange.writtenAt ?? exchange.endedAt,
    gatewayId,
    epoch,
    wireId,
    frameOut: frame,
    writtenAt: exchange.writtenAt,
    frameIn: 'frameIn' in exchange ? exchange.frameIn : null,
    ms: exchange.writtenAt === null ? null : exchange.endedAt - exchange.writtenAt,
    outcome: outcomeName(outcome),
  };
}
