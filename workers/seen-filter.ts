/** Which sightings of devices are worth a row: at heartbeat rate they would be most of what is ever written. */
import { LRUCache } from 'lru-cache';
import type { Devices } from '../src/store/contract.ts';

export type Seen = Parameters<Devices['seen']>[0][number];

export type SeenFilter = {
  /** Those that tell something new, or were last written long enough ago. */
  news(sightings: readonly Seen[]): Seen[];
  /** They are stored now. */
  written(sightings: readonly Seen[]): void;
};

/** How far lastSeenAt may lag behind the device's last word. */
const lagMs = 30_000;
const maxDevices = 200_000;
/** A device that says more of itself is not remembered, and is written every time. */
const maxFactsLength = 1_024;

type Written = { protocol: string; at: number; facts: string };

export function createSeenFilter(): SeenFilter {
  const lastWritten = new LRUCache<string, Written>({ max: maxDevices });

  function isNews({ deviceId, protocol, at, facts }: Seen): boolean {
    const last = lastWritten.get(deviceId);
    if (!last || last.protocol !== protocol || at >= last.at + lagMs) return true;
    if (Object.keys(facts).length === 0) return false;
    const known = factsOf(last);
    return Object.entries(facts).some(
      ([name, value]) => JSON.stringify(known[name]) !== JSON.stringify(value),
    );
  }

  return {
    news: (sightings) => sightings.filter(isNews),
    written(sightings) {
      for (const { deviceId, protocol, at, facts } of sightings) {
        const last = lastWritten.peek(deviceId);
        const text = JSON.stringify({ ...(last && factsOf(last)), ...facts });
        if (text.length > maxFactsLength) lastWritten.delete(deviceId);
        else lastWritten.set(deviceId, { protocol, at: Math.max(at, last?.at ?? 0), facts: text });
      }
    },
  };
}

function factsOf({ facts }: Written): Record<string, unknown> {
  return JSON.parse(facts);
}
