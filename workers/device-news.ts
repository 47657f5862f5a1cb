/** Tells other processes of devices that were heard of for the first time, which they may believe to be unknown. */
import { LRUCache } from 'lru-cache';
import type { DeviceChanges } from '../src/bridge/device-changes.ts';
import type { Devices } from '../src/store/contract.ts';
import type { DeviceIds } from '../src/store/device-ids.ts';

export type DeviceNewsDeps = {
  devices: Devices;
  deviceIds: Pick<DeviceIds, 'existing'>;
  changes: Pick<DeviceChanges, 'announce'>;
  maxDevices?: number;
};

/** The same devices; what is seen for the first time, or in another protocol, is announced once it is stored. */
export function announcingNews(deps: DeviceNewsDeps): Devices {
  const { devices, deviceIds, changes, maxDevices = 200_000 } = deps;
  /** Device → the protocol it was last seen to speak, so that the ledger is asked once for each. */
  const spoken = new LRUCache<string, string>({ max: maxDevices });

  return {
    ...devices,
    async seen(sightings) {
      const unheard = sightings.filter(({ deviceId }) => !spoken.has(deviceId));
      const existing = await deviceIds.existing(unheard.map(({ deviceId }) => deviceId));
      await devices.seen(sightings);
      const news = sightings.filter(({ deviceId, protocol }) => {
        const before = spoken.get(deviceId);
        return before === undefined ? !existing.has(deviceId) : before !== protocol;
      });
      for (const { deviceId, protocol } of sightings) spoken.set(deviceId, protocol);
      if (news.length > 0) changes.announce(news.map(({ deviceId }) => deviceId));
    },
  };
}
