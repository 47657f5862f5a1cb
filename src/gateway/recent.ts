/** A map whose entries are forgotten after a while, and the oldest when there are too many. */
import type { Clock } from './clock.ts';

export type Recent<V> = {
  get(key: string): V | undefined;
  has(key: string): boolean;
  /** Remembers it from now on. */
  set(key: string, value: V): void;
  delete(key: string): void;
  values(): V[];
  clear(): void;
  size(): number;
  /** Forgets what is over its time. */
  sweep(): void;
};

export type RecentDeps = { keepMs: number; maxEntries: number; clock: Clock };

export function createRecent<V>({ keepMs, maxEntries, clock }: RecentDeps): Recent<V> {
  /** Oldest first, which is also the order in which they are forgotten. */
  const entries = new Map<string, { value: V; until: number }>();

  return {
    get: (key) => entries.get(key)?.value,
    has: (key) => entries.has(key),
    set(key, value) {
      entries.delete(key);
      entries.set(key, { value, until: clock.ticks() + keepMs });
      if (entries.size > maxEntries) entries.delete(entries.keys().next().value!);
    },
    delete: (key) => void entries.delete(key),
    values: () => Array.from(entries.values(), ({ value }) => value),
    clear: () => entries.clear(),
    size: () => entries.size,
    sweep() {
      const ticks = clock.ticks();
      for (const [key, { until }] of entries) {
        if (until > ticks) return;
        entries.delete(key);
      }
    },
  };
}
