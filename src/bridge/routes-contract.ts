/**
 * What Redis knows of a device's unfinished commands, and the moves on it. Every move is one script, so that
 * nothing comes between looking and acting. Implemented in `routes.ts`.
 */
import type { StreamedOutcome, Unanswered } from './messages.ts';

/** Why a command must not be written, or not again. Set once, atomically, and read by every route. */
export type Revocation = {
  kind: 'superseded' | 'cancelled';
  /** The id of the newer command, or the name of the API key that cancelled. */
  by: string;
};

/** The attempt that was published last. */
export type Mark = {
  attempt: number;
  /** Null: nothing is out; the mark only keeps the wire id and the count. */
  gatewayId: string | null;
  epoch: number;
  wireId: number;
  /** An earlier attempt was written, or may have been. */
  written: boolean;
};

/** What a command says of itself when it takes its place in a line. */
export type JoinRequest = {
  id: string;
  deviceId: string;
  /** Null: it keeps no order, and only the cap of its device concerns it. */
  line: string | null;
  command: string;
  priority: number;
  supersedes: readonly string[];
  /** Null: it replaces whatever it names. */
  covers: readonly string[] | null;
  preempts: boolean;
  excludes: readonly string[];
  /** When it was due, Unix milliseconds. */
  dueAt: number;
  /** `accept`: the caps hold. `activation`: a scheduled command whose time has come. `refill`: it stood there before. */
  mode: 'accept' | 'activation' | 'refill';
  maxPerKey: number;
  maxPerDevice: number;
};

export type Joined =
  | {
      kind: 'joined';
      /** Its place; 0 where no order is kept. */
      seq: number;
      /** The older command that it must wait for. It stands in the index of parked commands then. */
      blockedBy: string | null;
      /** Commands that it has just superseded, written or not. A second join of one id names none. */
      superseded: readonly string[];
    }
  /** One that it excludes is unfinished; nothing was changed. */
  | { kind: 'conflict'; with: string }
  /** Too many wait already; nothing was changed. */
  | { kind: 'full'; of: 'key' | 'device'; waiting: number }
  /** A stop that came after it was due has replaced it already. */
  | { kind: 'superseded'; by: string };

export type RouteRequest = {
  id: string;
  deviceId: string;
  line: string | null;
  /** 0–9: where it waits if it is blocked. */
  priority: number;
  /** The attempt the job believes it is; the mark may know of a later one. */
  attempt: number;
  maxAttempt: number;
  maxWireId: number;
  /** The job was active before: it may have been parked, marked, or even answered. */
  again: boolean;
  /** Only look where it would go: no mark of a new attempt is written. */
  probing: boolean;
};

/** What the route script found for a command that is about to be sent. */
export type Route =
  /** Publish it. `again`: it may have been published before under this very mark. */
  | {
      kind: 'go';
      again: boolean;
      gatewayId: string;
      epoch: number;
      wireId: number;
      attempt: number;
      writtenBefore: boolean;
      /** Its place in its line; 0 where no order is kept. */
      seq: number;
      /** Of one that was published before: it must not be written, unless that has happened. */
      revocation: Revocation | null;
    }
  /** Not connected; nothing was marked. */
  | { kind: 'offline'; attempt: number; writtenBefore: boolean }
  /** The device is paused; nothing was marked. */
  | { kind: 'paused'; attempt: number; writtenBefore: boolean }
  /** An older command of its line is unfinished; it stands in the index of parked commands now. */
  | { kind: 'blocked'; by: string; attempt: number; writtenBefore: boolean }
  /** It must not be written (again). */
  | { kind: 'revoked'; revocation: Revocation; attempt: number; writtenBefore: boolean }
  /** It keeps an order and stands in no line: let it join, and route it again. */
  | { kind: 'unjoined' }
  /** All attempts are used up. */
  | { kind: 'spent'; attempt: number }
  /** Its outcome came while no job was running. */
  | { kind: 'kept'; streamed: StreamedOutcome };

export type Release = {
  deviceId: string;
  id: string;
  line: string | null;
  /** `final` for good, `rest` until the next attempt, `unwritten` as if it had not been. */
  mode: 'final' | 'rest' | 'unwritten' | 'undo';
  /** How many other parked commands may go in its place. */
  wake: number;
  /** As of the route. */
  again: boolean;
  /** The attempt that ended: the mark of another one is not touched. */
  attempt: number;
};

/** Where a command stands, for people. */
export type Standing = {
  presence: { gatewayId: string; epoch: number } | null;
  mark: Mark | null;
  revocation: Revocation | null;
  pausedAt: number | null;
  /** Its place in its line; null when it stands in none. */
  seq: number | null;
  /** Ids of the unfinished commands before it in its line, oldest first. */
  ahead: readonly string[];
  /** It stands in the index of parked commands: `blocked` by its line, `waiting`, or already `woken`. */
  parked: 'blocked' | 'waiting' | 'woken' | null;
  /** Commands of this device whose frame is with a gateway at this moment. */
  underWay: readonly { id: string; mark: Mark }[];
};

export type Routes = {
  route(request: RouteRequest): Promise<Route>;
  /** Resolves with the parked commands that may go now, for the caller to wake. */
  release(release: Release): Promise<string[]>;
  /** Takes a place in the line, supersedes, refuses. Joining twice is harmless. Calls of one turn keep their order. */
  join(request: JoinRequest): Promise<Joined>;
  /** Leaves the line, for a command that has ended. */
  leave(deviceId: string, id: string, line: string): Promise<string[]>;
  /** Leaves it without a trace, for one that was joined and then not stored: what it replaced stands again. */
  undoJoin(deviceId: string, id: string, line: string): Promise<string[]>;
  /** No route will mark it from now on. `written`: it was written before, and nothing was changed. */
  revoke(
    deviceId: string,
    id: string,
    revocation: Revocation,
  ): Promise<
    { kind: 'revoked'; revocation: Revocation; mark: Mark | null } | { kind: 'written'; mark: Mark }
  >;
  /** Takes back a revocation that came too late. */
  unrevoke(deviceId: string, id: string): Promise<void>;
  revocation(deviceId: string, id: string): Promise<Revocation | null>;
  mark(deviceId: string, id: string): Promise<Mark | null>;
  /** Puts a command into the index of parked ones. `blocked` ones are not woken by their device. */
  park(deviceId: string, id: string, priority: number, blocked: boolean): Promise<void>;
  /** Whether what a command that was just parked waits for has come meanwhile; it is out of the index then. */
  cameMeanwhile(query: {
    deviceId: string;
    id: string;
    /** Epoch of the session that was tried; '' when there was none. */
    epoch: string;
    because: string;
  }): Promise<boolean>;
  /**
   * Up to so many parked commands of a connected device that may go now, most urgent first. An event is served
   * once, whoever of those that heard it asks first.
   */
  wakeable(
    deviceId: string,
    count: number,
    options: { wokenToo: boolean; event: string | null },
  ): Promise<string[]>;
  /** A pause holds in Redis as long as the marks of its device; a duty renews it from the ledger. */
  setPaused(deviceId: string, pausedAt: number | null): Promise<void>;
  /** Devices that Redis calls paused, whatever the ledger says of them. */
  pausedDevices(): Promise<string[]>;
  /**
   * Keeps a possibly written frame for the sessions to come, for `until - now`. Resolves with the gateway that
   * holds the device at this moment, or null.
   */
  keepUnanswered(unanswered: Unanswered, now: number): Promise<string | null>;
  forgetUnanswered(deviceId: string, id: string): Promise<void>;
  inspect(deviceId: string, id: string, line: string | null): Promise<Standing>;
};
