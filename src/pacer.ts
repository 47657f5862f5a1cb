/** Lets many go at a bounded rate: the most urgent first, and among equals who came first. */

/** Time as the pacer sees it. */
export type PacerClock = {
  /** Monotonic milliseconds. */
  ticks(): number;
  /** Calls once, at least so much later; the result calls it off. */
  after(delayMs: number, call: () => void): () => void;
};

export type Pacer = {
  /**
   * Calls `go` at the key's slot, and at once when one is free. The smaller the urgency, the sooner. A key
   * that waits already keeps its place or gets a better one: as many wait as there are keys, never more.
   */
  offer(key: string, urgency: number, go: () => void): void;
  /** It does not want its slot any more. */
  drop(key: string): void;
  /** How many wait for their slot. */
  size(): number;
  /** Forgets all that wait. */
  clear(): void;
};

export type PacerDeps = {
  perSecond: number;
  /** How many may go at once after a quiet time; also what a late timer may make up for. */
  burst: number;
  clock: PacerClock;
};

export function createPacer({ perSecond, burst, clock }: PacerDeps): Pacer {
  const intervalMs = 1_000 / perSecond;
  /** How far the slots given may be ahead of the time (GCRA). */
  const toleranceMs = (burst - 1) * intervalMs;
  /** Ascending; each has a queue below. */
  const urgencies: number[] = [];
  const queues = new Map<number, Map<string, () => void>>();
  const urgencyOf = new Map<string, number>();
  let nextAt = Number.NEGATIVE_INFINITY;
  let cancelTimer: (() => void) | null = null;

  function file(key: string, urgency: number, go: () => void): void {
    urgencyOf.set(key, urgency);
    const queue = queues.get(urgency);
    if (queue) {
      queue.set(key, go);
      return;
    }
    queues.set(urgency, new Map([[key, go]]));
    const at = urgencies.findIndex((each) => each > urgency);
    urgencies.splice(at < 0 ? urgencies.length : at, 0, urgency);
  }

  function remove(key: string): void {
    const urgency = urgencyOf.get(key);
    if (urgency === undefined) return;
    urgencyOf.delete(key);
    const queue = queues.get(urgency);
    queue?.delete(key);
    if (queue?.size !== 0) return;
    queues.delete(urgency);
    urgencies.splice(urgencies.indexOf(urgency), 1);
  }

  function pump(): void {
    for (;;) {
      const queue = queues.get(urgencies[0] ?? 0);
      if (!queue) return;
      const now = clock.ticks();
      const waitMs = nextAt - toleranceMs - now;
      if (waitMs > 0) {
        arm(waitMs);
        return;
      }
      nextAt = Math.max(now, nextAt) + intervalMs;
      const [key, go] = queue.entries().next().value!;
      remove(key);
      go();
    }
  }

  function arm(waitMs: number): void {
    cancelTimer ??= clock.after(Math.ceil(waitMs), () => {
      cancelTimer = null;
      pump();
    });
  }

  return {
    offer(key, urgency, go) {
      const known = urgencyOf.get(key);
      if (known !== undefined && known > urgency) remove(key);
      file(key, Math.min(known ?? urgency, urgency), go);
      pump();
    },
    drop: remove,
    size: () => urgencyOf.size,
    clear() {
      cancelTimer?.();
      cancelTimer = null;
      urgencies.length = 0;
      queues.clear();
      urgencyOf.clear();
    },
  };
}
