/** How one attempt to deliver a command ended: a closed set, so that `settle` can be exhaustive. */

/** The bytes surely never reached a socket: the attempt is not spent, the command parks. */
export const unwrittenReasons = [
  'offline',
  'stale-epoch',
  'lane-full',
  'key-blocked',
  'draining',
  'socket-closed',
  'paused',
] as const;
export type UnwrittenReason = (typeof unwrittenReasons)[number];

/** The bytes were written, or may have been, and no answer came. */
export const ambiguousReasons = [
  'no-ack',
  'write-error',
  'connection-lost',
  'gateway-lost',
  'gateway-silent',
] as const;
export type AmbiguousReason = (typeof ambiguousReasons)[number];

/** The command ends without (another) write. */
export const refusedReasons = [
  'unsupported',
  'invalid',
  'expired',
  'superseded',
  'withdrawn',
  'conflict',
] as const;
export type RefusedReason = (typeof refusedReasons)[number];

/** The device's own answer, as the protocol's command table reads it. */
export type Ack =
  | { accepted: true; result: Record<string, unknown> }
  | { accepted: false; code: string; reason: string; result: Record<string, unknown> };

/** When the frame was handed to the socket and what came back. Times are Unix milliseconds. */
export type Exchange = {
  writtenAt: number;
  endedAt: number;
  frameIn: string | null;
  /** The device answered an earlier attempt of the command; this one was not written any more. */
  earlier?: true;
};

export type Outcome =
  | ({ kind: 'acked'; result: Record<string, unknown> } & Exchange)
  | ({ kind: 'rejected'; code: string; reason: string; result: Record<string, unknown> } & Exchange)
  /** Written, and the protocol defines no answer. */
  | ({ kind: 'unacknowledged' } & Exchange)
  | { kind: 'unwritten'; reason: UnwrittenReason; detail?: string }
  | { kind: 'refused'; reason: RefusedReason; detail: string }
  /** `writtenAt` is null where no receipt came: possibly written. */
  | {
      kind: 'ambiguous';
      reason: AmbiguousReason;
      writtenAt: number | null;
      endedAt: number;
      detail?: string;
    };

export type OutcomeKind = Outcome['kind'];
export type AckOutcome = Extract<Outcome, { kind: 'acked' | 'rejected' }>;

/** The outcome of a device's answer. */
export function outcomeOfAck(ack: Ack, exchange: Exchange): AckOutcome {
  return ack.accepted
    ? { kind: 'acked', result: ack.result, ...exchange }
    : { kind: 'rejected', code: ack.code, reason: ack.reason, result: ack.result, ...exchange };
}
