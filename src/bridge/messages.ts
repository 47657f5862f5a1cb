/** What worker and gateway say to each other, and the bounds within which it is believed. */
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { ambiguousReasons, type Outcome, refusedReasons, unwrittenReasons } from '../outcome.ts';

/** Of the envelope; a peer that speaks another version is not understood and says so. */
export const bridgeVersion = 1;
/** Largest batch in one publish, in bytes of JSON. */
export const maxBatchBytes = 256 * 1024;
/** Most messages in one publish. */
export const maxBatchMessages = 500;
/** Commands that an empty lane takes, one in flight and four behind it: more would only be sent back. */
export const wholeLane = 5;

const CommandId = Type.String({ minLength: 1, maxLength: 64 });
const DeviceId = Type.String({ minLength: 1, maxLength: 32 });
const Millis = Type.Integer({ minimum: 0, maximum: 9_007_199_254_740_991 });
const AttemptNo = Type.Integer({ minimum: 1, maximum: 1_000_000 });
const Text = Type.String({ maxLength: 500 });

/** Worker → gateway: write this frame when its turn comes. Idempotent by (id, attempt). */
export const Delivery = Type.Object({
  t: Type.Literal('deliver'),
  id: CommandId,
  attempt: AttemptNo,
  /** Where the receipts go. */
  workerId: CommandId,
  deviceId: DeviceId,
  epoch: Millis,
  protocol: Type.String({ maxLength: 16 }),
  command: Type.String({ maxLength: 64 }),
  params: Type.Record(Type.String(), Type.Unknown()),
  wireId: Type.Integer({ minimum: 1, maximum: 0xffffffff }),
  /** Hex. */
  frame: Type.String({ maxLength: 8192, pattern: '^(?:[0-9a-f]{2})+$' }),
  priority: Type.Integer({ minimum: 0, maximum: 9 }),
  deadline: Millis,
  ackTimeoutMs: Type.Integer({ minimum: 1, maximum: 600_000 }),
  /** Its place in its line; absent where no order is kept. A session never writes a smaller one after a greater. */
  place: Type.Optional(
    Type.Object({ line: Type.String({ minLength: 1, maxLength: 80 }), seq: Millis }),
  ),
});
export type Delivery = Static<typeof Delivery>;

/** Worker → gateway: take it back if it was not written. */
const Withdraw = Type.Object({
  t: Type.Literal('withdraw'),
  id: CommandId,
  attempt: AttemptNo,
  workerId: CommandId,
  deviceId: DeviceId,
});
export type Withdraw = Static<typeof Withdraw>;

/** Worker → gateway: the attempt's end is stored; its outcome need not be kept any longer. */
const Settled = Type.Object({ t: Type.Literal('settled'), id: CommandId, attempt: AttemptNo });
export type Settled = Static<typeof Settled>;

/**
 * Gateway → gateway: a newer login of this device exists; sessions of an older epoch are over. With `removed` there
 * is none: the device was removed, and no gateway speaks for it any more.
 */
const Evict = Type.Object({
  t: Type.Literal('evict'),
  deviceId: DeviceId,
  epoch: Millis,
  removed: Type.Optional(Type.Literal(true)),
});
export type Evict = Static<typeof Evict>;

/**
 * Worker → the gateway that holds the device now: this frame was, or may have been, written through another
 * session, and its answer may still come.
 */
const Remember = Type.Object({
  t: Type.Literal('remember'),
  delivery: Delivery,
  writtenAt: Millis,
  /** Milliseconds for which its answer is still of interest. */
  forMs: Millis,
});
export type Remember = Static<typeof Remember>;

/** What stands in a device's hash of unanswered frames. */
export type Unanswered = { delivery: Delivery; writtenAt: number; until: number };
const UnansweredSchema = Type.Object({ delivery: Delivery, writtenAt: Millis, until: Millis });

export const ToGateway = Type.Union([Delivery, Withdraw, Settled, Evict, Remember]);
export type ToGateway = Static<typeof ToGateway>;

const Result = Type.Record(Type.String(), Type.Unknown());
const exchange = {
  writtenAt: Millis,
  endedAt: Millis,
  frameIn: Type.Union([Type.String({ maxLength: 8192 }), Type.Null()]),
  earlier: Type.Optional(Type.Literal(true)),
};

export const OutcomeSchema = Type.Union([
  Type.Object({ kind: Type.Literal('acked'), result: Result, ...exchange }),
  Type.Object({
    kind: Type.Literal('rejected'),
    code: Text,
    reason: Text,
    result: Result,
    ...exchange,
  }),
  Type.Object({ kind: Type.Literal('unacknowledged'), ...exchange }),
  Type.Object({
    kind: Type.Literal('unwritten'),
    reason: Type.Enum(unwrittenReasons),
    detail: Type.Optional(Text),
  }),
  Type.Object({
    kind: Type.Literal('refused'),
    reason: Type.Enum(refusedReasons),
    detail: Text,
  }),
  Type.Object({
    kind: Type.Literal('ambiguous'),
    reason: Type.Enum(ambiguousReasons),
    writtenAt: Type.Union([Millis, Type.Null()]),
    endedAt: Millis,
    detail: Type.Optional(Text),
  }),
]);

/** Gateway → worker: the delivery stands in the lane. */
const Lined = Type.Object({ t: Type.Literal('lined'), id: CommandId, attempt: AttemptNo });

/** Gateway → worker: its bytes were handed to the socket at `at`. */
const Written = Type.Object({
  t: Type.Literal('written'),
  id: CommandId,
  attempt: AttemptNo,
  at: Millis,
});

/** Gateway → worker: the attempt is over. */
const Ended = Type.Object({
  t: Type.Literal('ended'),
  id: CommandId,
  attempt: AttemptNo,
  deviceId: DeviceId,
  outcome: OutcomeSchema,
});

export const Receipt = Type.Union([Lined, Written, Ended]);
export type Receipt =
  | Static<typeof Lined>
  | Static<typeof Written>
  | { t: 'ended'; id: string; attempt: number; deviceId: string; outcome: Outcome };

/** What stands in the outcomes stream: an end that no worker was listening for, or an answer after the deadline. */
export const StreamedOutcome = Type.Object({
  id: CommandId,
  attempt: AttemptNo,
  deviceId: DeviceId,
  gatewayId: CommandId,
  epoch: Millis,
  wireId: Type.Integer({ minimum: 0, maximum: 0xffffffff }),
  /** Hex of the frame that was written. */
  frame: Type.String({ maxLength: 8192 }),
  late: Type.Boolean(),
  outcome: OutcomeSchema,
});
export type StreamedOutcome = {
  id: string;
  attempt: number;
  deviceId: string;
  gatewayId: string;
  epoch: number;
  wireId: number;
  frame: string;
  /** The device answered after its deadline, or on a newer session. */
  late: boolean;
  outcome: Outcome;
};

/** On the events channel, from anyone to everyone. */
export const Event = Type.Union([
  /** A gateway lives; its presences count for `leaseMs` from the moment this was received. */
  Type.Object({
    t: Type.Literal('gateway'),
    gatewayId: CommandId,
    leaseMs: Millis,
    connections: Millis,
    sessions: Millis,
    /** Draining: takes no new deliveries. */
    draining: Type.Boolean(),
  }),
  Type.Object({ t: Type.Literal('gateway-gone'), gatewayId: CommandId }),
  /** Something that parked commands of this device wait for has come: it is online, or its lane has room for so many. */
  Type.Object({
    t: Type.Literal('wake'),
    deviceId: DeviceId,
    room: Type.Integer({ minimum: 1, maximum: 64 }),
    /** Every worker hears it; the first to act on it acts for all. */
    event: CommandId,
  }),
  /** Echo of one's own channel: proves that the subscription lives. */
  Type.Object({ t: Type.Literal('beat'), from: CommandId, n: Millis }),
]);
export type Event = Static<typeof Event>;

const checks = {
  toGateway: Compile(ToGateway),
  receipt: Compile(Receipt),
  event: Compile(Event),
  streamed: Compile(StreamedOutcome),
  unanswered: Compile(UnansweredSchema),
};

export type MessageKind = 'toGateway' | 'receipt' | 'event';
type MessageOf<K extends MessageKind> = K extends 'toGateway'
  ? ToGateway
  : K extends 'receipt'
    ? Receipt
    : Event;

export type Parsed<T> = { messages: T[]; faults: string[] };

/** The publish of some messages, each already as JSON. */
export function encodeBatch(from: string, texts: readonly string[]): string {
  return `{"v":${bridgeVersion},"from":${JSON.stringify(from)},"m":[${texts.join(',')}]}`;
}

const envelopeBytes = 200;

/** Splits what one turn has for a channel into groups of which each fits into one publish. */
export function splitBatch<T>(items: readonly T[], textOf: (item: T) => string): T[][] {
  const groups: T[][] = [];
  let bytes = maxBatchBytes;
  for (const item of items) {
    const size = textOf(item).length + 1;
    const last = groups.at(-1);
    if (last && last.length < maxBatchMessages && bytes + size <= maxBatchBytes - envelopeBytes) {
      last.push(item);
      bytes += size;
    } else {
      groups.push([item]);
      bytes = size;
    }
  }
  return groups;
}

/** Reads a publish. Never throws: what cannot be believed is named in `faults`, the rest is returned. */
export function parseBatch<K extends MessageKind>(kind: K, text: string): Parsed<MessageOf<K>> {
  if (text.length > maxBatchBytes) {
    return { messages: [], faults: [`a batch of ${text.length} bytes is over ${maxBatchBytes}`] };
  }
  let envelope: unknown;
  try {
    envelope = JSON.parse(text);
  } catch {
    return { messages: [], faults: ['a batch is not JSON'] };
  }
  const { v, m } = (envelope ?? {}) as { v?: unknown; m?: unknown };
  if (v !== bridgeVersion) {
    return { messages: [], faults: [`a batch has version ${String(v)}, not ${bridgeVersion}`] };
  }
  if (!Array.isArray(m)) return { messages: [], faults: ['a batch holds no list of messages'] };
  const messages: MessageOf<K>[] = [];
  const faults: string[] = [];
  for (const item of m) {
    if (checks[kind].Check(item)) messages.push(item as MessageOf<K>);
    else faults.push(`a ${kind} message is malformed: ${JSON.stringify(item)?.slice(0, 200)}`);
  }
  return { messages, faults };
}

/** A streamed outcome, or null when the text is none. */
export function parseStreamedOutcome(text: string): StreamedOutcome | null {
  try {
    const value: unknown = JSON.parse(text);
    return checks.streamed.Check(value) ? (value as StreamedOutcome) : null;
  } catch {
    return null;
  }
}

/** An unanswered frame as Redis keeps it, or null when the text is none. */
export function parseUnanswered(text: string): Unanswered | null {
  try {
    const value: unknown = JSON.parse(text);
    return checks.unanswered.Check(value) ? value : null;
  } catch {
    return null;
  }
}
