/**
 * A session's outgoing line: decides when each delivery is written and how it ends. It knows neither
 * sockets nor the bridge; it is asked, it is told the time, and it tells its host what became of what.
 */
import type { Delivery } from '../bridge/messages.ts';
import {
  type AmbiguousReason,
  type Outcome,
  outcomeOfAck,
  type UnwrittenReason,
} from '../outcome.ts';
import { toHex } from '../protocols/bytes.ts';
import type { CommandSpec, Message, Protocol } from '../protocols/protocol.ts';
import type { Clock } from './clock.ts';
import { Timer, type TimerTarget, type TimerWheel } from './timer-wheel.ts';

const maxWaiting = 4;
/** Stops do not wait for answers, so this alone bounds those in flight. */
const maxUrgentInFlight = 64;
/** The priority of a stop, which waits only for the gap. */
const urgentPriority = 9;

/** One delivery on its way through a lane. */
export type LaneEntry = {
  readonly delivery: Delivery;
  readonly spec: CommandSpec;
  readonly frame: Uint8Array;
  /** Where it waits or is in flight; null before and after. */
  lane: Lane | null;
  /** Unix milliseconds. */
  writtenAt: number | null;
  /** By the monotonic clock. */
  ackDueAt: number;
};

/** What a lane writes to: the session it belongs to. */
export type Line = {
  readonly deviceId: string;
  readonly epoch: number;
  readonly protocol: Protocol;
  /** False when the socket takes no more: then surely nothing was written. */
  write(frame: Uint8Array): boolean;
};

/** Shared by all lanes of a gateway. */
export type LaneHost = {
  readonly clock: Clock;
  readonly wheel: TimerWheel;
  /** Whether this gateway may still speak for its devices. */
  holdsLease(): boolean;
  written(entry: LaneEntry): void;
  ended(entry: LaneEntry, outcome: Outcome): void;
  /** A lane that had turned deliveries away takes some again. */
  hasRoom(line: Line): void;
};

export class Lane implements TimerTarget {
  readonly #host: LaneHost;
  readonly #line: Line;
  readonly #ackTimer = new Timer(this);
  /** Most urgent first. */
  #waiting: LaneEntry[] = [];
  /** In the order of their writes. */
  #inFlight: LaneEntry[] = [];
  #lastFrameAt = Number.NEGATIVE_INFINITY;
  /** The last frame that wanted an answer got none. */
  #unanswered = false;
  #turnedAway = false;
  #cancelGap: (() => void) | null = null;

  constructor(host: LaneHost, line: Line) {
    this.#host = host;
    this.#line = line;
  }

  get inFlight(): number {
    return this.#inFlight.length;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Lines the entry up and writes it if its turn is now. Whatever becomes of it, the host hears. */
  offer(entry: LaneEntry): void {
    if (this.#waiting.length >= this.#capacity(entry)) {
      const last = this.#waiting.at(-1);
      if (!last || rank(last) >= rank(entry)) {
        this.#turnAway(entry);
        return;
      }
      this.#waiting.pop();
      this.#turnAway(last);
    }
    entry.lane = this;
    let at = this.#waiting.length;
    while (at > 0 && rank(this.#waiting[at - 1]!) < rank(entry)) at -= 1;
    this.#waiting.splice(at, 0, entry);
    this.#advance();
  }

  /** Takes a waiting entry out; false when it was written already. */
  withdraw(entry: LaneEntry): boolean {
    const at = this.#waiting.indexOf(entry);
    if (at < 0) return false;
    this.#waiting.splice(at, 1);
    this.#end(entry, {
      kind: 'refused',
      reason: 'withdrawn',
      detail: 'withdrawn before its write',
    });
    this.#advance();
    return true;
  }

  /** Whether the message answers something in flight, which then ends. */
  acknowledge(message: Message): boolean {
    // An answer that carries the wire id goes to its own attempt, whatever else it would fit.
    return this.#land(message, true) || this.#land(message, false);
  }

  /** A late answer came: the device does answer, and that command needs no further write. */
  sawAnswer(commandId: string, outcome: Outcome): void {
    this.#unanswered = false;
    const again = this.#waiting.filter(({ delivery }) => delivery.id === commandId);
    this.#waiting = this.#waiting.filter(({ delivery }) => delivery.id !== commandId);
    for (const entry of again) this.#end(entry, outcome);
    this.#advance();
  }

  /** Sends back what waits; what is in flight stays. */
  sendBack(reason: UnwrittenReason): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const entry of waiting) this.#end(entry, { kind: 'unwritten', reason });
  }

  /** The session is over. */
  close(waiting: UnwrittenReason, inFlight: AmbiguousReason): void {
    this.#cancelGap?.();
    this.#cancelGap = null;
    this.#host.wheel.cancel(this.#ackTimer);
    this.sendBack(waiting);
    const lost = this.#inFlight;
    this.#inFlight = [];
    const endedAt = this.#host.clock.now();
    for (const entry of lost) {
      const { writtenAt } = entry;
      this.#end(entry, { kind: 'ambiguous', reason: inFlight, writtenAt, endedAt });
    }
  }

  onTimer(): void {
    const ticks = this.#host.clock.ticks();
    const endedAt = this.#host.clock.now();
    const overdue = this.#inFlight.filter((entry) => entry.ackDueAt <= ticks);
    if (overdue.length > 0) {
      this.#inFlight = this.#inFlight.filter((entry) => entry.ackDueAt > ticks);
      this.#unanswered = true;
      for (const entry of overdue) {
        const { writtenAt } = entry;
        this.#end(entry, { kind: 'ambiguous', reason: 'no-ack', writtenAt, endedAt });
      }
    }
    this.#armAckTimer();
    this.#advance();
  }

  /** How many may wait for the entry to join them. After an unanswered frame: one at a time. */
  #capacity(entry: LaneEntry | null): number {
    if (!this.#unanswered || (entry && isUrgent(entry))) return maxWaiting;
    return this.#inFlight.length === 0 ? 1 : 0;
  }

  #turnAway(entry: LaneEntry): void {
    this.#turnedAway = true;
    this.#end(entry, { kind: 'unwritten', reason: 'lane-full' });
  }

  #advance(): void {
    this.#writeDue();
    if (!this.#turnedAway || this.#waiting.length >= this.#capacity(null)) return;
    this.#turnedAway = false;
    this.#host.hasRoom(this.#line);
  }

  #writeDue(): void {
    const { gapMs } = this.#line.protocol.limits;
    for (;;) {
      const head = this.#waiting[0];
      if (!head || !this.#mayFly(head)) return;
      const waitMs = this.#lastFrameAt + gapMs - this.#host.clock.ticks();
      if (waitMs > 0) {
        this.#armGap(waitMs);
        return;
      }
      this.#waiting.shift();
      this.#write(head);
    }
  }

  #mayFly(entry: LaneEntry): boolean {
    if (isUrgent(entry)) return this.#inFlight.length < maxUrgentInFlight;
    return this.#inFlight.length < (this.#unanswered ? 1 : this.#line.protocol.limits.inFlight);
  }

  #armGap(waitMs: number): void {
    this.#cancelGap ??= this.#host.clock.after(Math.ceil(waitMs), () => {
      this.#cancelGap = null;
      this.#advance();
    });
  }

  #write(entry: LaneEntry): void {
    const { clock } = this.#host;
    const now = clock.now();
    const hindrance = this.#hindrance(entry, now);
    if (hindrance) {
      this.#end(entry, hindrance);
      return;
    }
    if (!this.#line.write(entry.frame)) {
      this.#end(entry, { kind: 'unwritten', reason: 'socket-closed' });
      return;
    }
    entry.writtenAt = now;
    this.#lastFrameAt = clock.ticks();
    this.#host.written(entry);
    if (entry.spec.ack === 'none') {
      this.#end(entry, { kind: 'unacknowledged', writtenAt: now, endedAt: now, frameIn: null });
      return;
    }
    entry.ackDueAt = this.#lastFrameAt + entry.delivery.ackTimeoutMs;
    this.#inFlight.push(entry);
    this.#armAckTimer();
  }

  /** What has come between lining up and now. */
  #hindrance({ delivery }: LaneEntry, now: number): Outcome | null {
    if (now >= delivery.deadline) {
      const detail = `its time was over ${now - delivery.deadline} ms before its turn to be written`;
      return { kind: 'refused', reason: 'expired', detail };
    }
    if (delivery.epoch !== this.#line.epoch) return { kind: 'unwritten', reason: 'stale-epoch' };
    if (!this.#host.holdsLease()) {
      return { kind: 'unwritten', reason: 'offline', detail: 'the gateway has lost its lease' };
    }
    return null;
  }

  #land(message: Message, sameWireId: boolean): boolean {
    for (let at = 0; at < this.#inFlight.length; at += 1) {
      const entry = this.#inFlight[at]!;
      const { wireId, params } = entry.delivery;
      if ((wireId === message.msgId) !== sameWireId) continue;
      const ack = entry.spec.recognise(params, wireId, message);
      if (!ack) continue;
      this.#inFlight.splice(at, 1);
      this.#unanswered = false;
      this.#armAckTimer();
      const endedAt = this.#host.clock.now();
      const writtenAt = entry.writtenAt ?? endedAt;
      this.#end(entry, outcomeOfAck(ack, { writtenAt, endedAt, frameIn: toHex(message.frame) }));
      this.#advance();
      return true;
    }
    return false;
  }

  #armAckTimer(): void {
    const { wheel, clock } = this.#host;
    if (this.#inFlight.length === 0) {
      wheel.cancel(this.#ackTimer);
      return;
    }
    let dueAt = Number.POSITIVE_INFINITY;
    for (const entry of this.#inFlight) dueAt = Math.min(dueAt, entry.ackDueAt);
    wheel.schedule(this.#ackTimer, dueAt - clock.ticks());
  }

  #end(entry: LaneEntry, outcome: Outcome): void {
    entry.lane = null;
    this.#host.ended(entry, outcome);
  }
}

function isUrgent({ delivery, spec }: LaneEntry): boolean {
  return delivery.priority >= urgentPriority || spec.priority >= urgentPriority;
}

function rank(entry: LaneEntry): number {
  return isUrgent(entry) ? urgentPriority : entry.delivery.priority;
}
