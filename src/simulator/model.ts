/** What devices and links know of one another: a link carries devices, and a device speaks over its link. */
import type { Fields, Message, Protocol } from '../protocols/protocol.ts';
import type { Knobs } from './knobs.ts';
import type { Random } from './random.ts';

export type Link = {
  /** The devices on it. Filled once, before it is opened. */
  readonly devices: Device[];
  /** Number of the current connection over the whole fleet; 0 before the first. */
  readonly connection: number;
  readonly isOpen: boolean;
  /** Hands a frame to the socket; false when there is none to take it. */
  send(frame: Uint8Array, noise?: boolean): boolean;
  /** The device ends the connection: after what it sent, or at once. It comes back by itself. */
  drop(how: 'device' | 'reset'): void;
  /** Connects now. The fleet calls it when this link's turn has come. */
  connect(): void;
  /** Ends it for good. */
  close(): void;
};

export type Port = {
  /** BKV: number of the socket; AP3000: 0. */
  socket: number;
  port: number;
  charging: boolean;
  businessNo: number;
  /** AP3000: 32 hex digits. */
  orderNo: string;
  startedAt: number;
  /** When the running charge ends by itself. */
  endsAt: number;
  /** How the order was given, in the terms of the protocol. */
  order: Fields;
  /** Counts the charges of this port, so that a timer of an earlier one does nothing. */
  charge: number;
};

/** An end of charge that the server has not acknowledged yet. */
export type Settlement = {
  /** The report's message name, and its id where the protocol echoes it. */
  name: string;
  msgId: number;
  socket: number;
  port: number;
  frame: Uint8Array;
};

/** What a device made of a command: kept by wire id, since a repeated frame is answered, not obeyed, again. */
export type Reply = {
  says: 'ack' | 'nack' | 'nothing';
  executed: boolean;
  /** The answer, and what belongs directly behind it. */
  frames: readonly Uint8Array[];
  /** What follows once the answer is on its way; not for repeated frames. */
  then?: () => void;
};

export type Device = {
  readonly deviceId: string;
  readonly behaviour: Behaviour;
  readonly random: Random;
  readonly link: Link;
  knobs: Knobs;
  loggedIn: boolean;
  /** Ignores every command while true. */
  silent: boolean;
  /** When the heartbeat left that is not answered yet; 0: there is none. */
  beatSentAt: number;
  /** So many commands are refused before the dice decide again. */
  refuseNext: number;
  /** So many commands are obeyed, and their answers lost, before the dice decide again. */
  loseNext: number;
  /** The last message id, or business number, that it gave. */
  lastMsgId: number;
  lastBusinessNo: number;
  ports: Map<number, Port> | null;
  /** What was set, by the name of its message and, for BKV, the socket. */
  params: Map<string, Fields> | null;
  /** Wire id → what became of it; null: seen, but never looked at. */
  seen: Map<number, { name: string; reply: Reply } | null> | null;
  settlements: Settlement[];
  /** The one that is on its way. */
  settlementSent: Settlement | null;
};

export type Heard =
  /** An answer to the device's own report. */
  | 'answer'
  /** The answer that logs it in. */
  | 'login'
  | 'command';

export type Behaviour = {
  protocol: Protocol;
  heartbeatMs: number;
  reportMs: number;
  settlementRepeatMs: number;
  /** The first bytes of a connection, before any device of it speaks; null: none. */
  hello(deviceId: string): Uint8Array | null;
  /** The frames that log a device in; repeated until they are answered. */
  login(device: Device): Uint8Array[];
  heartbeat(device: Device): Uint8Array;
  hears(device: Device, message: Message): Heard;
  /** Obeys, or refuses where the protocol can say so. */
  obey(device: Device, message: Message, refuse: boolean): Reply;
  /** Another answer to a frame that came before and is not obeyed again; null: the one it had. */
  repeated(device: Device, message: Message, reply: Reply): Reply | null;
  /** The state of a port as the device reports it by itself. */
  portReport(device: Device, port: Port): Uint8Array;
  /** The state of all that it knows, where it reports that after a login. */
  stateReports(device: Device): Uint8Array[];
  /** The end of a charge. */
  settlement(device: Device, port: Port, why: EndReason): Settlement;
  /** True when the answer belongs to that report. */
  settles(answer: Message, settlement: Settlement): boolean;
};

export type EndReason = 'ordered' | 'stopped';
