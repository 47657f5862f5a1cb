/** Devices by id from this process's memory, and from the ledger when they are not there. */
import { LRUCache } from 'lru-cache';
import type { Device, Devices } from './contract.ts';

export type DeviceLookup = {
  /** The device, or null when the ledger knows none; rejects when only an absent ledger could tell. */
  find(deviceId: string): Promise<Device | null>;
  /** Takes in what was learnt elsewhere, such as from a login or a registration. */
  put(device: Device): void;
  /** The device was removed. Other processes find out when their entries have grown old. */
  drop(deviceId: string): void;
  readonly size: number;
};

export type DeviceLookupDeps = {
  devices: Pick<Devices, 'find'>;
  maxEntries?: number;
  maxBytes?: number;
  ttlMs?: number;
  /** How long a device counts as unknown, or an outdated answer for want of the ledger, before it is read again. */
  retryTtlMs?: number;
  /** Milliseconds of a clock that never goes back. */
  now?: () => number;
};

type Known = { device: Device | null };

/** What an entry takes beside its facts, measured generously. */
const entryBytes = 400;

/**
 * Callers that miss the same id at once share one read. While the ledger is away a known device is
 * still told after its time; that a device does not exist never is.
 */
export function createDeviceLookup({
  devices,
  maxEntries = 200_000,
  maxBytes = 100 * 1024 * 1024,
  ttlMs = 5 * 60_000,
  retryTtlMs = 5_000,
  now = () => performance.now(),
}: DeviceLookupDeps): DeviceLookup {
  const cache = new LRUCache<string, Known>({
    max: maxEntries,
    maxSize: maxBytes,
    sizeCalculation: ({ device }) => entryBytes + (device ? JSON.stringify(device).length : 0),
    ttl: ttlMs,
    ttlResolution: 0,
    perf: { now },
    // A put() while a read is under way wins in the cache; the readers still get their answer.
    ignoreFetchAbort: true,
    async fetchMethod(deviceId, outdated, { options }) {
      try {
        const device = await devices.find(deviceId);
        if (!device) options.ttl = retryTtlMs;
        return { device };
      } catch (error) {
        if (!outdated?.device) throw error;
        options.ttl = retryTtlMs;
        return outdated;
      }
    },
  });
  return {
    async find(deviceId) {
      const known = await cache.fetch(deviceId);
      return known?.device ?? null;
    },
    put(device) {
      cache.set(device.deviceId, { device });
    },
    drop(deviceId) {
      cache.delete(deviceId);
    },
    get size() {
      return cache.size;
    },
  };
}
