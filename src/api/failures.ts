/** Counts wrong credentials per address, so that guessing them is slow and does not fill the log. */
import { LRUCache } from 'lru-cache';

export type Failures = {
  /** Notes one more; true when the address has had too many lately. */
  note(address: string): boolean;
};

const WINDOW_MS = 60_000;
const ADDRESSES = 10_000;

/** At most `limit` failures a minute and address; addresses are bounded too. */
export function createFailures({ limit = 100 }: { limit?: number } = {}): Failures {
  const counts = new LRUCache<string, { count: number }>({ max: ADDRESSES, ttl: WINDOW_MS });
  return {
    note(address) {
      const entry = counts.get(address) ?? { count: 0 };
      if (entry.count === 0) counts.set(address, entry);
      entry.count += 1;
      return entry.count > limit;
    },
  };
}
