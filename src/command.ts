/** The vocabulary of a command: what was asked, where it stands, and which moves are legal. */
import { DownlinkError } from './errors.ts';

export const statuses = [
  'scheduled',
  'queued',
  'parked',
  'sent',
  'succeeded',
  'rejected',
  'unacknowledged',
  'expired',
  'cancelled',
  'superseded',
  'failed',
  'unknown',
] as const;

export type Status = (typeof statuses)[number];

const open = ['queued', 'parked', 'sent'] as const;
const everyEnd = [
  'succeeded',
  'rejected',
  'unacknowledged',
  'expired',
  'cancelled',
  'superseded',
  'failed',
  'unknown',
] as const;

/**
 * Legal moves. A `sent` command was written at least once, so it can no longer end as expired,
 * cancelled, superseded or failed: such an end is `unknown`.
 */
export const transitions: Record<Status, readonly Status[]> = {
  scheduled: [...open, ...everyEnd],
  queued: [...open, ...everyEnd],
  parked: [...open, ...everyEnd],
  sent: [...open, 'succeeded', 'rejected', 'unacknowledged', 'unknown'],
  succeeded: [],
  rejected: [],
  unacknowledged: [],
  expired: [],
  cancelled: [],
  superseded: [],
  failed: [],
  unknown: ['succeeded', 'rejected'],
};

const finals: ReadonlySet<Status> = new Set(everyEnd);

/** True when no attempt will follow. `unknown` is final, though a late answer may still change it. */
export function isFinal(status: Status): boolean {
  return finals.has(status);
}

/** Throws `ILLEGAL_TRANSITION` unless a command may move from one status to the other. */
export function assertTransition(from: Status, to: Status): void {
  if (transitions[from].includes(to)) return;
  throw new DownlinkError('ILLEGAL_TRANSITION', `a command cannot move from ${from} to ${to}`);
}

export const ambiguityPolicies = ['resend', 'probe', 'stop'] as const;
export type AmbiguityPolicy = (typeof ambiguityPolicies)[number];

export type Params = Record<string, unknown>;

/** What was asked. Nothing in here changes after accept. Times are Unix milliseconds. */
export type Command = {
  id: string;
  deviceId: string;
  protocol: string;
  /** A name from the protocol's command table; `raw` carries `{cmd, payload}` in its params. */
  command: string;
  params: Params;
  /** 0–9, 9 most urgent. */
  priority: number;
  acceptedAt: number;
  notBefore: number;
  /** Never written after this moment. */
  deadline: number;
  ackTimeoutMs: number;
  /** How often it may be tried in all. */
  attempts: number;
  backoffMs: number;
  orderKey: string | null;
  onAmbiguous: AmbiguityPolicy;
  labels: Record<string, string>;
  /** Name of the API key that asked. */
  apiKey: string;
  /** The id of the API process that waits for the end, if one does. */
  waiter: string | null;
  /** The command that this one repeats, if somebody asked for that. */
  replayOf: string | null;
};

/** One try to deliver a command, as the trail shows it. */
export type Attempt = {
  attempt: number;
  /** When its delivery was published. */
  at: number;
  gatewayId: string;
  epoch: number;
  wireId: number;
  /** Hex of the frame that was handed to the gateway. */
  frameOut: string;
  /** When the gateway handed the bytes to the socket; null: no receipt came, so it was possibly written. */
  writtenAt: number | null;
  /** Hex of the device's answer. */
  frameIn: string | null;
  /** From the write to the answer, or to giving up. */
  ms: number | null;
  /** Outcome kind that ended the attempt; null while it runs. */
  outcome: string | null;
  /** The frame was a question about the attempt before, not the command itself. */
  probe?: true;
};

/** Where a command stands. `version` only ever grows; the ledger refuses older ones. */
export type CommandState = {
  status: Status;
  version: number;
  /** One sentence, for people, on how it came to this status. */
  reason: string | null;
  /** The device's own code of a refusal, or a stable error code. */
  code: string | null;
  result: Record<string, unknown> | null;
  late: boolean;
  inferred: boolean;
  settledAt: number | null;
  /** Keyed by attempt number, so that two processes' trails merge. */
  trail: Record<string, Attempt>;
};

export type CommandRecord = Command & CommandState;

/** The attempts that wrote, or may have written, the command itself; probes are none. */
export function attemptsIn({ trail }: Pick<CommandState, 'trail'>): Attempt[] {
  return Object.values(trail).filter(({ probe }) => probe !== true);
}

/** The state of a command that was just accepted. */
export function acceptedState(command: Command, nowMs: number): CommandState {
  return {
    status: command.notBefore > nowMs ? 'scheduled' : 'queued',
    version: 1,
    reason: null,
    code: null,
    result: null,
    late: false,
    inferred: false,
    settledAt: null,
    trail: {},
  };
}
