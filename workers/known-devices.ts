/**
 * Keeps the copy in Redis of the ids of all known devices, by which gateways decide who may log in: the ledger is
 * the truth, and Redis may have lost its copy, or never have got the word of a registration or a removal.
 */
import type { Expel, KnownDevices } from '../src/bridge/known-devices.ts';
import type { Log } from '../src/log/log.ts';
import type { Devices } from '../src/store/contract.ts';
import type { DeviceIds } from '../src/store/device-ids.ts';

export type KnownCopyDeps = {
  deviceIds: Pick<DeviceIds, 'page' | 'existing'>;
  known: Pick<KnownDevices, 'add' | 'begin' | 'finish' | 'pieces'>;
  expel: Expel;
  log: Log;
  idsPerPage?: number;
};

export type Copied = { known: number; expelled: number };

/** One turn; it rejects when a store is away. Two at once do no harm. */
export function createKnownCopy(deps: KnownCopyDeps): () => Promise<Copied> {
  const { deviceIds, known, expel, log, idsPerPage: limit = 1_000 } = deps;

  async function addAll(): Promise<number> {
    let count = 0;
    let afterId: string | null = null;
    for (;;) {
      const page: string[] = await deviceIds.page({ afterId, limit });
      if (page.length > 0) await known.add(page);
      count += page.length;
      afterId = page.at(-1) ?? null;
      if (page.length < limit) return count;
    }
  }

  /**
   * A device that was removed without a word to Redis, or while its page was being copied. A registration reaches
   * the ledger before the copy, so whoever stands in the copy and not in the ledger was removed.
   */
  async function expelRemoved(): Promise<number> {
    let count = 0;
    for await (const piece of known.pieces()) {
      const existing = await deviceIds.existing(piece);
      for (const deviceId of piece) {
        if (existing.has(deviceId)) continue;
        await expel(deviceId);
        log.warn({ deviceId }, 'removed device taken out of the copy of known devices');
        count += 1;
      }
    }
    return count;
  }

  return async function copyKnown() {
    await known.begin();
    const count = await addAll();
    await known.finish();
    return { known: count, expelled: await expelRemoved() };
  };
}

/** Sightings make no device known where only known ones may log in: a removed one may still be heard of. */
export function onlyKnown(
  devices: Pick<Devices, 'seen'>,
  deviceIds: Pick<DeviceIds, 'existing'>,
): Pick<Devices, 'seen'> {
  return {
    async seen(sightings) {
      const existing = await deviceIds.existing(sightings.map(({ deviceId }) => deviceId));
      const known = sightings.filter(({ deviceId }) => existing.has(deviceId));
      if (known.length > 0) await devices.seen(known);
    },
  };
}
