/** A lane's written frames whose answer is not overdue yet, in the order of their writes. */
import type { Ack } from '../outcome.ts';
import type { Message } from '../protocols/protocol.ts';
import type { Clock } from './clock.ts';
import { isStop, type LaneEntry } from './lane-entry.ts';
import { Timer, type TimerTarget, type TimerWheel } from './timer-wheel.ts';

export type InFlightDeps = {
  clock: Clock;
  wheel: TimerWheel;
  /** Called when an answer may be overdue. */
  target: TimerTarget;
};

export class InFlight {
  readonly #clock: Clock;
  readonly #wheel: TimerWheel;
  readonly #timer: Timer;
  #entries: LaneEntry[] = [];

  constructor({ clock, wheel, target }: InFlightDeps) {
    this.#clock = clock;
    this.#wheel = wheel;
    this.#timer = new Timer(target);
  }

  get size(): number {
    return this.#entries.length;
  }

  /** Those that are stops, or those that are none: neither kind waits for the other. */
  count(stops: boolean): number {
    let count = 0;
    for (const entry of this.#entries) if (isStop(entry) === stops) count += 1;
    return count;
  }

  add(entry: LaneEntry): void {
    entry.ackDueAt = this.#clock.ticks() + entry.delivery.ackTimeoutMs;
    this.#entries.push(entry);
    this.#arm();
  }

  /** Takes out the one that the message answers, if any. */
  answered(message: Message): { entry: LaneEntry; ack: Ack } | null {
    // An answer that carries the wire id goes to its own attempt, whatever else it would fit.
    return this.#match(message, true) ?? this.#match(message, false);
  }

  /** Takes out those whose answer is overdue. */
  takeOverdue(): LaneEntry[] {
    const ticks = this.#clock.ticks();
    const overdue = this.#entries.filter((entry) => entry.ackDueAt <= ticks);
    if (overdue.length > 0)
      this.#entries = this.#entries.filter(({ ackDueAt }) => ackDueAt > ticks);
    this.#arm();
    return overdue;
  }

  takeAll(): LaneEntry[] {
    const all = this.#entries;
    this.#entries = [];
    this.#arm();
    return all;
  }

  #match(message: Message, sameWireId: boolean): { entry: LaneEntry; ack: Ack } | null {
    for (let at = 0; at < this.#entries.length; at += 1) {
      const entry = this.#entries[at]!;
      const { wireId, params } = entry.delivery;
      if ((wireId === message.msgId) !== sameWireId) continue;
      const ack = entry.spec.recognise(params, wireId, message);
      if (!ack) continue;
      this.#entries.splice(at, 1);
      this.#arm();
      return { entry, ack };
    }
    return null;
  }

  #arm(): void {
    if (this.#entries.length === 0) {
      this.#wheel.cancel(this.#timer);
      return;
    }
    let dueAt = Number.POSITIVE_INFINITY;
    for (const entry of this.#entries) dueAt = Math.min(dueAt, entry.ackDueAt);
    this.#wheel.schedule(this.#timer, dueAt - this.#clock.ticks());
  }
}
