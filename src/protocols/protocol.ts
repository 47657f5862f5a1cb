/**
 * The contract of a device protocol: bytes in, values out; values in, bytes out. No socket, no clock,
 * no logger. A protocol is one folder and one line in `index.ts`; what it supports is derived from
 * its command table, so the promise and the encoder cannot drift apart.
 */
import type { TObject } from 'typebox';
import type { AmbiguityPolicy, Params } from '../command.ts';
import type { Ack } from '../outcome.ts';
import type { Sighting } from './sighting.ts';

/** `up`: device to server. `down`: server to device. */
export type Direction = 'up' | 'down';

export type Fields = Record<string, unknown>;

/** One sound frame, or one piece of the modem's plain text, and what it says. */
export type Message = {
  protocol: string;
  direction: Direction;
  /** The message's name in the protocol's table, such as `heartbeat` or `control.reply`; `unknown` if not there. */
  name: string;
  /** The canonical id of the device that speaks or is spoken to; empty for plain text of a modem. */
  deviceId: string;
  cmd: number;
  subCmd: number | null;
  msgId: number;
  fields: Fields;
  /** All bytes from the magic to the tail. */
  frame: Uint8Array;
  checksum: number | null;
  /** Set when the frame is sound but its payload is not what the table says; `fields` then holds what could be read. */
  fault?: string;
};

export const garbageReasons = [
  'noise',
  'length',
  'tail',
  'checksum',
  'direction',
  'partial-timeout',
] as const;
export type GarbageReason = (typeof garbageReasons)[number];

export type Decoded =
  | { kind: 'message'; message: Message }
  /** Bytes that were dropped; neighbouring bytes of one reason come as one item per `push`. */
  | { kind: 'garbage'; bytes: Uint8Array; reason: GarbageReason };

/** A streaming decoder. Never throws on input, never holds more than one frame of the largest size. */
export type Decoder = {
  /** Feeds bytes as they came off the wire and returns what became whole. */
  push(chunk: Uint8Array): Decoded[];
  /** The partial-frame timer fired: give up the frame being waited for, drop one byte, search on. */
  giveUp(): Decoded[];
  /** Bytes held back, waiting for the rest of a frame. */
  readonly pending: number;
};

export type Answer = {
  frame: Uint8Array;
  /** `receipt`: answer at once. `storage`: only after the report is stored, since the device then erases it. */
  after: 'receipt' | 'storage';
};

/**
 * What a report is worth to us. `heartbeat`: liveness, may be dropped under pressure. `state`: port states and
 * events. `money`: end of charge, settlement, card; never dropped.
 */
export type ReportWeight = 'heartbeat' | 'state' | 'money';

export type CommandSpec = {
  /** One line for people. */
  title: string;
  /** Typebox schema of the params; additionalProperties false. */
  params: TObject;
  priority: number;
  ttlMs: number;
  /** Defaults to the protocol's. */
  ackTimeoutMs?: number;
  /** Tries in all; defaults to the protocol's. */
  attempts?: number;
  /** `none`: the protocol defines no answer; such a command ends as unacknowledged once written. */
  ack: 'reply' | 'none';
  /** Safe to send again when it is not known whether it arrived. */
  repeatable: boolean;
  onAmbiguous: AmbiguityPolicy;
  /** Commands of one key are written in the order in which they joined; null: unordered. Same text = same line. */
  orderKey(params: Params): string | null;
  /** Names of commands whose unwritten instances in its line this one replaces. */
  supersedes: readonly string[];
  /**
   * What it sets, where that decides what it replaces: it supersedes only what sets nothing beyond that.
   * Absent: it replaces whatever `supersedes` names.
   */
  covers?(params: Params): readonly string[];
  /**
   * A stop. It waits for no command of its line but other stops, not even for a written one, and what it
   * supersedes gets no further attempt. It is the lane's next frame and waits there only for the gap.
   */
  preempts?: true;
  /** It is refused (CONFLICT) while one of these stands unfinished in its line. */
  excludes?: readonly string[];
  /** How to find out whether a frame that was possibly written took effect; without it `probe` is not offered. */
  probe?: Probe;
  /** Checks that a schema cannot say; returns a sentence that says what to change, or null. */
  check?(params: Params): string | null;
  /** The frame for one device. Params were validated. */
  encode(params: Params, deviceId: string, wireId: number): Uint8Array;
  /** The device's answer to this command in `message`, or null when the message is something else. Never throws. */
  recognise(params: Params, wireId: number, message: Message): Ack | null;
};

/** Something the device said by itself, as it was stored. */
export type Observation = { name: string; at: number; fields: Fields };

/** A command that succeeded, as it was stored. */
export type DoneCommand = {
  command: string;
  params: Params;
  result: Record<string, unknown> | null;
  /** When the device answered. */
  at: number;
  commandId: string;
};

/** What a probe has to go on. */
export type Evidence = {
  /** The device's answer to the probe. */
  answer: Ack;
  /** When the frame in question was written, or may have been; Unix milliseconds. */
  writtenAt: number;
  /** Reports from before that moment and from after it, each newest first, bounded. */
  before: readonly Observation[];
  since: readonly Observation[];
  /**
   * When other commands that could have had this very effect were written and went unanswered: what is seen
   * may as well be theirs. Unix milliseconds.
   */
  rivals: readonly number[];
};

export type ProbeVerdict =
  /** It did what it should: succeeded, inferred. */
  | { kind: 'took-effect'; result: Record<string, unknown> }
  /** Surely not: it may be sent again. */
  | { kind: 'no-effect' }
  /** Nothing can be said; the sentence says why. */
  | { kind: 'unclear'; reason: string };

export type Probe = {
  /** Names of the reports that count as evidence. */
  reports: readonly string[];
  /** Pure; never throws. */
  judge(params: Params, evidence: Evidence): ProbeVerdict;
} & (
  | {
      /** Ask with another command of the table before anything is sent again. */
      kind: 'ask';
      command: string;
      params(params: Params): Params;
    }
  /** Send the same frame again: the device tells a repetition from something new. Judged when it refuses. */
  | { kind: 'repeat' }
);

export type Sniff = 'match' | 'more' | 'no';

export type ProtocolLimits = {
  /** Largest frame accepted, in bytes. */
  frameBytes: number;
  /** A frame must be complete this long after its first byte. */
  partialFrameMs: number;
  /** Frames in flight per session. */
  inFlight: number;
  /** Pause between two command frames to one session. */
  gapMs: number;
  ackTimeoutMs: number;
  /** Tries in all, the first included. */
  attempts: number;
  /** The device's own heartbeat interval; idle limits are multiples of it. */
  heartbeatMs: number;
  /** Largest wire message id; 0 is never used for a command. */
  maxWireId: number;
};

export type Protocol = {
  name: string;
  title: string;
  limits: ProtocolLimits;
  commands: Readonly<Record<string, CommandSpec>>;
  /** Canonical (lower case) device id, or null when the text is no id of this protocol. */
  deviceId(text: string): string | null;
  /** True for ids that broken hardware falls back to and that therefore name no single device. */
  isFactoryDefault(deviceId: string): boolean;
  /** Judges the first bytes of a connection. */
  sniff(head: Uint8Array): Sniff;
  decoder(direction: Direction): Decoder;
  /** Encodes any message of the tables, in either direction, from the fields that decoding it gives. */
  encode(message: {
    direction: Direction;
    name: string;
    deviceId: string;
    msgId: number;
    fields: Fields;
    /** Where one message has had several outer commands over the years. */
    cmd?: number;
    subCmd?: number | null;
  }): Uint8Array;
  /** What the server owes the device for an uplink message; null for nothing. */
  answer(message: Message, nowMs: number): Answer | null;
  weight(message: Message): ReportWeight;
  /**
   * What a report tells of ports and charges. Pure; never throws, whatever the fields are: they come out of
   * a store, as JSON.
   */
  sightings(report: Observation): Sighting[];
  /**
   * What the end of a command that succeeded, by the device's answer or by inference, tells of them: a start
   * began a charge, a query saw ports. Pure; never throws.
   */
  sightingsOfResult(done: DoneCommand): Sighting[];
};
