/**
 * One shared wheel instead of a timer per connection: tens of thousands of idle, login, partial-frame
 * and ack deadlines, almost all of which are cancelled or moved before they are due.
 */
import type { Clock } from './clock.ts';

/** What a timer calls when it is due. */
export type TimerTarget = { onTimer(): void };

const UNARMED = -1;
/** Due in this very turn; may still be cancelled by another timer of the same turn. */
const FIRING = -2;

/** Owned by its target and armed by the wheel: an intrusive list node, so that arming allocates nothing. */
export class Timer {
  readonly target: TimerTarget;
  slot = UNARMED;
  dueTick = 0;
  previous: Timer | null = null;
  next: Timer | null = null;

  constructor(target: TimerTarget) {
    this.target = target;
  }
}

export type TimerWheel = {
  /** Arms the timer, or moves it; it is never early and at most about one tick late. */
  schedule(timer: Timer, delayMs: number): void;
  cancel(timer: Timer): void;
  /** Calls everything that is due. The wheel does so itself once started. */
  advance(): void;
  start(): void;
  stop(): void;
};

export type TimerWheelDeps = {
  clock: Clock;
  tickMs?: number;
  slots?: number;
  /** A target that throws must not stop the others. */
  onError: (error: unknown) => void;
};

const TICK_MS = 100;
/** About 100 s a round: a longer wait is looked at once a round. */
const SLOTS = 1024;

export function createTimerWheel({
  clock,
  tickMs = TICK_MS,
  slots = SLOTS,
  onError,
}: TimerWheelDeps): TimerWheel {
  const heads: (Timer | null)[] = new Array(slots).fill(null);
  const origin = clock.ticks();
  let tick = 0;
  let interval: NodeJS.Timeout | undefined;

  function unlink(timer: Timer): void {
    if (timer.slot < 0) return;
    if (timer.previous) timer.previous.next = timer.next;
    else heads[timer.slot] = timer.next;
    if (timer.next) timer.next.previous = timer.previous;
    timer.previous = null;
    timer.next = null;
  }

  function collectDue(slot: number, upTo: number, due: Timer[]): void {
    let timer = heads[slot] ?? null;
    while (timer) {
      const { next }: { next: Timer | null } = timer;
      if (timer.dueTick <= upTo) {
        unlink(timer);
        timer.slot = FIRING;
        due.push(timer);
      }
      timer = next;
    }
  }

  function advance(): void {
    const upTo = Math.floor((clock.ticks() - origin) / tickMs);
    if (upTo <= tick) return;
    const due: Timer[] = [];
    const rounds = Math.min(upTo - tick, slots);
    for (let i = 1; i <= rounds; i += 1) collectDue((upTo - rounds + i) % slots, upTo, due);
    tick = upTo;
    for (const timer of due) {
      if (timer.slot !== FIRING) continue;
      timer.slot = UNARMED;
      try {
        timer.target.onTimer();
      } catch (error) {
        onError(error);
      }
    }
  }

  return {
    schedule(timer, delayMs) {
      unlink(timer);
      const dueTick = Math.ceil((clock.ticks() - origin + delayMs) / tickMs);
      timer.dueTick = Math.max(dueTick, tick + 1);
      timer.slot = timer.dueTick % slots;
      const head = heads[timer.slot] ?? null;
      timer.next = head;
      if (head) head.previous = timer;
      heads[timer.slot] = timer;
    },
    cancel(timer) {
      unlink(timer);
      timer.slot = UNARMED;
    },
    advance,
    start() {
      // After the sockets were read: when this process was held up, what devices said meanwhile comes first.
      interval ??= setInterval(() => void setImmediate(advance), tickMs).unref();
    },
    stop() {
      clearInterval(interval);
      interval = undefined;
    },
  };
}
