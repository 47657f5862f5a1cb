/** How long heartbeats wait for their answers: a histogram of a few hundred numbers, however long a fleet runs. */

export type RoundTrips = {
  /** Answers by bucket; bucket n ends at `firstMs × growth ** n`. */
  counts: readonly number[];
  count: number;
  maxMs: number;
  /** Heartbeats whose connection ended before their answer. */
  lost: number;
  /** Heartbeats that are not answered yet, and how long the oldest has waited. */
  waiting: number;
  oldestMs: number;
};

export type RoundTripRecord = {
  add(ms: number): void;
  lose(): void;
  /** What was recorded, with how long each of those that are not answered yet has waited. */
  read(waitingMs: readonly number[]): RoundTrips;
  clear(): void;
};

/** A reading is at most this factor above what was measured. */
const growth = 1.05;
const firstMs = 0.01;
const longestMs = 600_000;
const lastBucket = bucketOf(longestMs);

export function createRoundTrips(): RoundTripRecord {
  const counts = new Array<number>(lastBucket + 1).fill(0);
  let count = 0;
  let maxMs = 0;
  let lost = 0;

  return {
    add(ms) {
      const bucket = Math.min(lastBucket, bucketOf(ms));
      counts[bucket] = counts[bucket]! + 1;
      count += 1;
      maxMs = Math.max(maxMs, ms);
    },
    lose() {
      lost += 1;
    },
    read(waitingMs) {
      const oldestMs = waitingMs.reduce((oldest, ms) => Math.max(oldest, ms), 0);
      return { counts: [...counts], count, maxMs, lost, waiting: waitingMs.length, oldestMs };
    },
    clear() {
      counts.fill(0);
      count = 0;
      maxMs = 0;
      lost = 0;
    },
  };
}

/** The time that so large a share of the answers did not exceed, to the bucket; NaN without answers. */
export function roundTripAt({ counts, count, maxMs }: RoundTrips, share: number): number {
  const wanted = Math.max(1, Math.ceil(count * share));
  let seen = 0;
  for (const [bucket, inBucket] of counts.entries()) {
    seen += inBucket;
    if (seen >= wanted) return Math.min(maxMs, firstMs * growth ** bucket);
  }
  return Number.NaN;
}

/** Several fleets as one. */
export function mergeRoundTrips(all: readonly RoundTrips[]): RoundTrips {
  const sum = (pick: (trips: RoundTrips) => number) => all.reduce((n, one) => n + pick(one), 0);
  const most = (pick: (trips: RoundTrips) => number) => Math.max(0, ...all.map(pick));
  return {
    counts: Array.from({ length: lastBucket + 1 }, (_, n) => sum(({ counts }) => counts[n] ?? 0)),
    count: sum(({ count }) => count),
    maxMs: most(({ maxMs }) => maxMs),
    lost: sum(({ lost }) => lost),
    waiting: sum(({ waiting }) => waiting),
    oldestMs: most(({ oldestMs }) => oldestMs),
  };
}

function bucketOf(ms: number): number {
  return ms <= firstMs ? 0 : Math.ceil(Math.log(ms / firstMs) / Math.log(growth));
}
