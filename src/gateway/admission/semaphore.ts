/** So many places, and a bounded room in which to wait for one. */
import type { Clock } from '../clock.ts';
import { createLinkedList, ListNode } from './linked-list.ts';

export type Place = {
  /** Gives it back; a second time does nothing. */
  release(): void;
};

export type Waiter = {
  /** Leaves the room; neither callback comes. */
  cancel(): void;
  /** Gets the next place that is free. */
  first(): void;
};

export type Semaphore = {
  /** A place, if one is free and nobody waits for it. */
  take(): Place | null;
  /** Waits for a place; null when the room is full. One of the callbacks comes once, later, unless cancelled. */
  wait(onPlace: (place: Place) => void, onTimeout: () => void): Waiter | null;
  /** Tells all who wait that their time is over. */
  dismiss(): void;
  readonly inUse: number;
  readonly available: number;
  readonly waiting: number;
};

export type SemaphoreDeps = {
  places: number;
  /** How long one waits; 0: nobody may wait. */
  waitMs: number;
  /** How many may wait at a time. */
  room: number;
  clock: Clock;
};

type Waiting = {
  onPlace: (place: Place) => void;
  onTimeout: () => void;
  dueAt: number;
  turn: ListNode<Waiting>;
  due: ListNode<Waiting>;
};

class TakenPlace implements Place {
  #giveBack: (() => void) | null;

  constructor(giveBack: () => void) {
    this.#giveBack = giveBack;
  }

  release(): void {
    const giveBack = this.#giveBack;
    this.#giveBack = null;
    giveBack?.();
  }
}

/** All its places are free. First come, first served. */
export function createSemaphore({ places, waitMs, room, clock }: SemaphoreDeps): Semaphore {
  let free = places;
  let isHandingOut = false;
  let cancelTimer: (() => void) | null = null;
  const turns = createLinkedList<Waiting>();
  /** All wait equally long, so whoever came first is due first, whatever their turn. */
  const dues = createLinkedList<Waiting>();

  function occupy(): Place {
    free -= 1;
    return new TakenPlace(giveBack);
  }

  function giveBack(): void {
    free += 1;
    handOut();
  }

  /** A loop: whoever gets a place may give it back at once, and thousands may do so in a row. */
  function handOut(): void {
    if (isHandingOut) return;
    isHandingOut = true;
    const errors: unknown[] = [];
    while (free > 0 && turns.head) {
      const waiting = turns.head.value;
      leave(waiting);
      const place = occupy();
      try {
        waiting.onPlace(place);
      } catch (error) {
        place.release();
        // Not thrown yet: those behind it must not wait for the next place that happens to be given back.
        errors[0] ??= error;
      }
    }
    isHandingOut = false;
    if (errors.length > 0) throw errors[0];
  }

  function leave(waiting: Waiting): boolean {
    turns.remove(waiting.turn);
    const waited = dues.remove(waiting.due);
    if (dues.size === 0) disarm();
    return waited;
  }

  function arm(): void {
    const next = dues.head;
    if (!next || cancelTimer) return;
    cancelTimer = clock.after(Math.max(0, next.value.dueAt - clock.ticks()), () => {
      cancelTimer = null;
      try {
        expire(clock.ticks());
      } finally {
        arm();
      }
    });
  }

  function disarm(): void {
    cancelTimer?.();
    cancelTimer = null;
  }

  function expire(upTo: number): void {
    while (dues.head && dues.head.value.dueAt <= upTo) {
      const waiting = dues.head.value;
      leave(waiting);
      waiting.onTimeout();
    }
  }

  function enqueue(onPlace: (place: Place) => void, onTimeout: () => void): Waiting {
    const dueAt = clock.ticks() + waitMs;
    const waiting = { onPlace, onTimeout, dueAt } as Waiting;
    waiting.turn = new ListNode(waiting);
    waiting.due = new ListNode(waiting);
    turns.append(waiting.turn);
    dues.append(waiting.due);
    arm();
    return waiting;
  }

  return {
    take: () => (free > 0 && turns.size === 0 ? occupy() : null),
    wait(onPlace, onTimeout) {
      if (waitMs === 0 || turns.size >= room) return null;
      const waiting = enqueue(onPlace, onTimeout);
      return {
        cancel: () => void leave(waiting),
        first() {
          if (turns.remove(waiting.turn)) turns.prepend(waiting.turn);
        },
      };
    },
    dismiss: () => expire(Number.POSITIVE_INFINITY),
    get inUse() {
      return places - free;
    },
    get available() {
      return free;
    },
    get waiting() {
      return turns.size;
    },
  };
}
