/** A rate with a burst. Filled by the arithmetic of the next look: no timer runs. */
import type { Clock } from '../clock.ts';

export type TokenBucket = {
  /** Takes one token; false when there is none. */
  take(): boolean;
  /** Whole tokens that could be taken now. */
  readonly available: number;
};

export type TokenBucketDeps = {
  perSecond: number;
  /** How many may be taken at once after a quiet time. */
  burst: number;
  clock: Clock;
};

const SECOND_MS = 1_000;

/** A full bucket. */
export function createTokenBucket({ perSecond, burst, clock }: TokenBucketDeps): TokenBucket {
  let tokens = burst;
  let filledAt = clock.ticks();

  function fill(): void {
    const ticks = clock.ticks();
    tokens = refilled(tokens, ticks - filledAt, perSecond, burst);
    filledAt = ticks;
  }

  return {
    take() {
      fill();
      if (tokens < 1) return false;
      tokens -= 1;
      return true;
    },
    get available() {
      fill();
      return Math.floor(tokens);
    },
  };
}

/** What a bucket with so many tokens holds after that time. */
export function refilled(
  tokens: number,
  elapsedMs: number,
  perSecond: number,
  burst: number,
): number {
  return Math.min(burst, tokens + (elapsedMs * perSecond) / SECOND_MS);
}
