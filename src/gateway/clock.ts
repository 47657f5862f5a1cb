/** Time as the gateway sees it; tests bring their own. */
export type Clock = {
  /** Unix milliseconds: for what other hosts read, such as deadlines and receipts. */
  now(): number;
  /** Monotonic milliseconds: for waits, which a corrected wall clock must not move. */
  ticks(): number;
  /** Calls once, at least so much later; the result calls it off. */
  after(delayMs: number, call: () => void): () => void;
};

export const systemClock: Clock = {
  now: () => Date.now(),
  ticks: () => performance.now(),
  after(delayMs, call) {
    const timeout = setTimeout(call, delayMs);
    return () => clearTimeout(timeout);
  },
};
