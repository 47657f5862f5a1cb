/** Devices by id from this process's memory, and from the ledger when they are not there. */
import { LRUCache } from 'lru-cache';
import type { Metrics } from '../metrics/metrics.ts';
import type { Device, Devices } from './contract.ts';

export type DeviceLookup = {
  /** The device, or null when the ledger knows none; rejects when only an absent ledger could tell. */
  find(deviceId: string): Promise<Device | null>;
  /** Takes in what was learnt elsewhere, such as from a login or a registration. */
  put(device: Device): void;
  /** The device was registered, removed or changed: what is known of it, or being read, counts no more. */
  forget(deviceId: string): void;
  /** Changes may have been missed: each is read again before it is told, unless the ledger is away. */
  forgetAll(): void;
  readonly size: number;
  /** What the entries take, by a generous estimate. */
  readonly bytes: number;
};

export type DeviceLookupDeps = {
  devices: Pick<Devices, 'find'>;
  metrics?: Pick<Metrics, 'deviceLookups'>;
  maxEntries?: number;
  maxBytes?: number;
  ttlMs?: number;
  /** How long a device counts as unknown, or an outdated answer for want of the ledger, before it is read again. */
  retryTtlMs?: number;
  /** Milliseconds of a clock that never goes back. */
  now?: () => number;
};

type Known = {
  device: Device | null;
  /** How often everything had been forgotten when it was asked for. */
  age: number;
  /** Told for want of the ledger. */
  outdated: boolean;
};

/** What an entry takes beside its facts, measured generously. */
const entryBytes = 400;

/**
 * Callers that miss the same id at once share one read. While the ledger is away a known device is
 * still told after its time; that a device does not exist never is.
 */
export function createDeviceLookup({
  devices,
  metrics,
  maxEntries = 200_000,
  maxBytes = 100 * 1024 * 1024,
  ttlMs = 5 * 60_000,
  retryTtlMs = 5_000,
  now = () => performance.now(),
}: DeviceLookupDeps): DeviceLookup {
  let age = 0;

  const cache = new LRUCache<string, Known>({
    max: maxEntries,
    maxSize: maxBytes,
    sizeCalculation: ({ device }) => entryBytes + (device ? JSON.stringify(device).length : 0),
    ttl: ttlMs,
    ttlResolution: 0,
    perf: { now },
    // A put() or forget() while a read is under way wins in the cache; the readers still get their answer.
    ignoreFetchAbort: true,
    async fetchMethod(deviceId, held, { options }) {
      const askedAt = age;
      try {
        const device = await devices.find(deviceId);
        if (!device) options.ttl = retryTtlMs;
        return { device, age: askedAt, outdated: false };
      } catch (error) {
        if (!held?.device) throw error;
        options.ttl = retryTtlMs;
        return { device: held.device, age: askedAt, outdated: true };
      }
    },
  });

  /** From memory, or null for what has to be read. */
  function recall(deviceId: string): Known | null {
    // Not get(): it would throw away what is past its time, and that may be all there is.
    const known = cache.peek(deviceId);
    if (!known || known.age !== age) return null;
    cache.get(deviceId);
    return known;
  }

  async function read(deviceId: string): Promise<Known> {
    const asked = age;
    for (;;) {
      const known = await cache.fetch(deviceId, { forceRefresh: true });
      if (known && known.age >= asked) return known;
      // It was under way before everything was forgotten: once more.
    }
  }

  return {
    async find(deviceId) {
      const held = recall(deviceId);
      const known = held ?? (await read(deviceId));
      metrics?.deviceLookups.inc({ result: known.outdated ? 'stale' : held ? 'hit' : 'miss' });
      return known.device;
    },
    put(device) {
      cache.set(device.deviceId, { device, age, outdated: false });
    },
    forget(deviceId) {
      cache.delete(deviceId);
    },
    forgetAll() {
      age += 1;
    },
    get size() {
      return cache.size;
    },
    get bytes() {
      return cache.calculatedSize;
    },
  };
}
