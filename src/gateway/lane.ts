/**
 * A session's outgoing line: decides when each delivery is written and how it ends. It knows neither
 * sockets nor the bridge; it is asked, it is told the time, and it tells its host what became of what.
 */
import {
  type AckOutcome,
  type AmbiguousReason,
  type Outcome,
  outcomeOfAck,
  type UnwrittenReason,
} from '../outcome.ts';
import { toHex } from '../protocols/bytes.ts';
import type { Message, Protocol } from '../protocols/protocol.ts';
import type { Clock } from './clock.ts';
import { InFlight } from './in-flight.ts';
import { isStop, type LaneEntry, rankOf } from './lane-entry.ts';
import type { TimerTarget, TimerWheel } from './timer-wheel.ts';
import { WrittenPlaces } from './written-places.ts';

const maxWaiting = 4;
/** Stops do not wait for answers, so this alone bounds those in flight. */
const maxStopsInFlight = 64;
/** What a timer can be set to. */
const maxTimerMs = 2_147_483_647;

/** What a lane writes to: the session it belongs to. */
export type Outlet = {
  readonly deviceId: string;
  readonly epoch: number;
  readonly protocol: Protocol;
  /** False when the socket takes no more: then surely nothing was written. The name is for the count. */
  write(frame: Uint8Array, name: string): boolean;
  /** Our own code threw on its behalf. */
  broke(error: unknown): void;
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
  hasRoom(outlet: Outlet): void;
};

export class Lane implements TimerTarget {
  readonly #host: LaneHost;
  readonly #outlet: Outlet;
  /** Most urgent first. */
  #waiting: LaneEntry[] = [];
  readonly #inFlight: InFlight;
  readonly #places = new WrittenPlaces();
  #lastFrameAt = Number.NEGATIVE_INFINITY;
  /** The last frame that wanted an answer got none. */
  #unanswered = false;
  #turnedAway = false;
  #cancelGap: (() => void) | null = null;
  #cancelExpiry: (() => void) | null = null;

  constructor(host: LaneHost, outlet: Outlet) {
    this.#host = host;
    this.#outlet = outlet;
    this.#inFlight = new InFlight({ clock: host.clock, wheel: host.wheel, target: this });
  }

  get inFlight(): number {
    return this.#inFlight.size;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Lines the entry up and writes it if its turn is now. Whatever becomes of it, the host hears. */
  offer(entry: LaneEntry): void {
    const overtaken = this.#overtaken(entry);
    if (overtaken) {
      this.#end(entry, overtaken);
      return;
    }
    if (this.#waiting.length >= this.#capacity(entry)) {
      const last = this.#waiting.at(-1);
      if (!last || rankOf(last) >= rankOf(entry)) {
        this.#turnAway(entry);
        return;
      }
      this.#waiting.pop();
      this.#turnAway(last);
    }
    entry.lane = this;
    let at = this.#waiting.length;
    while (at > 0 && rankOf(this.#waiting[at - 1]!) < rankOf(entry)) at -= 1;
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
    const answer = this.#inFlight.answered(message);
    if (!answer) return false;
    const { entry, ack } = answer;
    this.#unanswered = false;
    const endedAt = this.#host.clock.now();
    const writtenAt = entry.writtenAt ?? endedAt;
    this.#end(entry, outcomeOfAck(ack, { writtenAt, endedAt, frameIn: toHex(message.frame) }));
    this.#advance();
    return true;
  }

  /** A late answer came: the device does answer, and that command needs no further write. */
  sawAnswer(commandId: string, outcome: AckOutcome): void {
    this.#unanswered = false;
    const again = this.#waiting.filter(({ delivery }) => delivery.id === commandId);
    this.#waiting = this.#waiting.filter(({ delivery }) => delivery.id !== commandId);
    for (const entry of again) this.#end(entry, { ...outcome, earlier: true });
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
    this.sendBack(waiting);
    this.#armExpiry();
    const lost = this.#inFlight.takeAll();
    const endedAt = this.#host.clock.now();
    for (const entry of lost) {
      const { writtenAt } = entry;
      this.#end(entry, { kind: 'ambiguous', reason: inFlight, writtenAt, endedAt });
    }
  }

  onTimer(): void {
    const endedAt = this.#host.clock.now();
    for (const entry of this.#inFlight.takeOverdue()) {
      this.#unanswered = true;
      const { writtenAt } = entry;
      this.#end(entry, { kind: 'ambiguous', reason: 'no-ack', writtenAt, endedAt });
    }
    this.#advance();
  }

  /** How many may wait for the entry to join them. After an unanswered frame: one at a time. */
  #capacity(entry: LaneEntry | null): number {
    // With nothing in flight the first of them only waits out the gap.
    const next = this.#inFlight.count(false) === 0 ? 1 : 0;
    return !this.#unanswered || (entry && isStop(entry)) ? maxWaiting + next : next;
  }

  #turnAway(entry: LaneEntry): void {
    this.#turnedAway = true;
    this.#end(entry, { kind: 'unwritten', reason: 'lane-full' });
  }

  #advance(): void {
    this.#expire();
    this.#writeDue();
    this.#armExpiry();
    if (!this.#turnedAway || this.#waiting.length >= this.#capacity(null)) return;
    this.#turnedAway = false;
    this.#host.hasRoom(this.#outlet);
  }

  #writeDue(): void {
    const { gapMs } = this.#outlet.protocol.limits;
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
    if (isStop(entry)) return this.#inFlight.count(true) < maxStopsInFlight;
    return (
      this.#inFlight.count(false) < (this.#unanswered ? 1 : this.#outlet.protocol.limits.inFlight)
    );
  }

  /** Its worker waits no longer for what must not be written any more. */
  #expire(): void {
    const now = this.#host.clock.now();
    const overdue = this.#waiting.filter(({ delivery }) => now >= delivery.deadline);
    if (overdue.length === 0) return;
    this.#waiting = this.#waiting.filter(({ delivery }) => now < delivery.deadline);
    for (const entry of overdue) this.#end(entry, expired(entry, now));
  }

  #armExpiry(): void {
    this.#cancelExpiry?.();
    this.#cancelExpiry = null;
    if (this.#waiting.length === 0) return;
    const first = Math.min(...this.#waiting.map(({ delivery }) => delivery.deadline));
    this.#cancelExpiry = this.#host.clock.after(
      Math.min(Math.max(0, first - this.#host.clock.now()), maxTimerMs),
      () => {
        this.#cancelExpiry = null;
        this.#advanceAlone();
      },
    );
  }

  #armGap(waitMs: number): void {
    this.#cancelGap ??= this.#host.clock.after(Math.ceil(waitMs), () => {
      this.#cancelGap = null;
      this.#advanceAlone();
    });
  }

  /** Nobody above a timer's callback could take what it throws. */
  #advanceAlone(): void {
    try {
      this.#advance();
    } catch (error) {
      this.#outlet.broke(error);
    }
  }

  #write(entry: LaneEntry): void {
    const { clock } = this.#host;
    const now = clock.now();
    const hindrance = this.#hindrance(entry, now);
    if (hindrance) {
      this.#end(entry, hindrance);
      return;
    }
    if (!this.#outlet.write(entry.frame, entry.delivery.command)) {
      this.#end(entry, { kind: 'unwritten', reason: 'socket-closed' });
      return;
    }
    entry.writtenAt = now;
    this.#places.written(entry.delivery.place);
    this.#lastFrameAt = clock.ticks();
    this.#host.written(entry);
    if (entry.spec.ack === 'none') {
      this.#end(entry, { kind: 'unacknowledged', writtenAt: now, endedAt: now, frameIn: null });
      return;
    }
    this.#inFlight.add(entry);
  }

  /** What has come between lining up and now. */
  #hindrance(entry: LaneEntry, now: number): Outcome | null {
    const { delivery } = entry;
    if (now >= delivery.deadline) return expired(entry, now);
    if (delivery.epoch !== this.#outlet.epoch) return { kind: 'unwritten', reason: 'stale-epoch' };
    if (!this.#host.holdsLease()) {
      return { kind: 'unwritten', reason: 'offline', detail: 'the gateway has lost its lease' };
    }
    return this.#overtaken(entry);
  }

  /** A later command of its line went out on this session: it would undo what that one did. */
  #overtaken({ delivery: { place } }: LaneEntry): Outcome | null {
    const later = this.#places.laterThan(place);
    if (later === null) return null;
    const detail = `place ${later} of its line was written before its own, ${place?.seq}`;
    return { kind: 'unwritten', reason: 'key-blocked', detail };
  }

  #end(entry: LaneEntry, outcome: Outcome): void {
    entry.lane = null;
    this.#host.ended(entry, outcome);
  }
}

function expired({ delivery }: LaneEntry, now: number): Outcome {
  const detail = `its time was over ${now - delivery.deadline} ms before its turn to be written`;
  return { kind: 'refused', reason: 'expired', detail };
}
