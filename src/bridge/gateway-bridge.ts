/** The gateway's end of the bridge, as the gateway sees it. */
import type { Outcome } from '../outcome.ts';
import type { Fields, ReportWeight } from '../protocols/protocol.ts';
import type { Delivery, Evict, Remember, Settled, Withdraw } from './messages.ts';

/** What the gateway does with what arrives. Handlers are synchronous and never throw. */
export type GatewayHandlers = {
  deliver(delivery: Delivery): void;
  withdraw(withdraw: Withdraw): void;
  settled(settled: Settled): void;
  evict(evict: Evict): void;
  /** A frame that was written, or may have been, elsewhere: its answer may come here. */
  remember(remember: Remember): void;
  /** All open sessions, to be registered again after Redis lost its memory. */
  sessions(): Iterable<{ deviceId: string; protocol: string; epoch: number }>;
  /** Numbers for the heartbeat. */
  load(): { connections: number; sessions: number };
};

export type Login =
  | {
      granted: true;
      epoch: number;
      parked: number;
      /**
       * Set when frames of earlier sessions are unanswered: settles once the handlers know them. What the device
       * says until then may be an answer to one of them.
       */
      recalled?: Promise<void>;
      /** Set when another gateway held the device: resolves with its session if that was alive. Never rejects. */
      takenFrom?: Promise<Holder | null>;
    }
  | Denial;

/** Whose session of a device stands, or stood. */
export type Holder = { gatewayId: string; epoch: number };

/** Refused, and not to be asked again for `retryAfterMs`. */
export type Denial = { granted: false; retryAfterMs: number } & (
  | { /** The id logs in too often from several places. */ reason: 'flapping' }
  | { /** Its session lives there, and takeovers are denied. */ reason: 'taken'; holder: Holder }
  | { /** Only known devices may, and this is none. */ reason: 'not-known' }
);

/** Something a device said, for the uplink writer. */
export type Report = {
  deviceId: string;
  protocol: string;
  /** The message's name; `session.opened` and `session.closed` are the gateway's own. */
  name: string;
  weight: ReportWeight;
  /** Unix milliseconds. */
  at: number;
  msgId: number;
  fields: Fields;
  /** Hex. */
  frame: string;
};

export type GatewayBridge = {
  readonly gatewayId: string;
  start(handlers: GatewayHandlers): Promise<void>;
  /** Heartbeats say `draining` from now on. */
  drain(): void;
  /** Gives back the lease. Call after the last session is closed. */
  stop(): Promise<void>;
  /**
   * Registers a session; the newest login wins and older ones are told to close, unless takeovers are denied.
   * `standsHere` tells whether a session of the device stands on this gateway. Rejects when Redis is away, or
   * cannot tell whether the device is known.
   */
  login(deviceId: string, protocol: string, standsHere?: () => boolean): Promise<Login>;
  /** Whether the device may be served while its login cannot be answered. */
  vouchesFor(deviceId: string): boolean;
  /** Removes the presence if it still has this epoch. */
  logout(deviceId: string, epoch: number): Promise<void>;
  /** Whether this gateway's lease still stands; without it nothing may be written. Synchronous. */
  holdsLease(): boolean;
  /** True while the bridge has heard its own heartbeat lately. */
  alive(): boolean;
  lined(workerId: string, id: string, attempt: number): void;
  written(workerId: string, id: string, attempt: number, at: number): void;
  /** Sends an end to its worker; when nobody listens there it goes to the outcomes stream by itself. */
  ended(delivery: Delivery, outcome: Outcome): void;
  /**
   * Answers whoever withdrew a delivery, which need not be the worker that delivered it: it was written then, or
   * that was its end. Nothing is kept of the answer.
   */
  answer(withdraw: Withdraw, answer: Outcome | { kind: 'written'; at: number }): void;
  /** Puts an end that no worker asked for into the outcomes stream: late answers, kept outcomes at a drain. */
  keep(delivery: Delivery, outcome: Outcome, late: boolean): Promise<void>;
  /** Says that the lane of the device's session has room for parked commands. */
  roomFor(deviceId: string, epoch: number): void;
  /** Resolves when the report is stored in the uplink stream. */
  report(report: Report): Promise<void>;
};
