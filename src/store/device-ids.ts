/** The ids of all known devices, and the removal of one. */
import type { Database } from './database.ts';

export type DeviceIds = {
  /** In their order; fewer than `limit` are the last. */
  page(query: { afterId: string | null; limit: number }): Promise<string[]>;
  /** Which of these are known. */
  existing(deviceIds: readonly string[]): Promise<Set<string>>;
  /** Removes the device, unless commands of it are unfinished; what is kept of it besides stays. */
  remove(deviceId: string): Promise<'removed' | 'unknown' | 'busy'>;
};

const pageSql = 'SELECT device_id FROM devices WHERE device_id > $1 ORDER BY device_id LIMIT $2';
const existingSql = 'SELECT device_id FROM devices WHERE device_id = ANY($1::text[])';
const removeSql = `
  DELETE FROM devices WHERE device_id = $1 AND NOT EXISTS (
    SELECT 1 FROM commands WHERE device_id = $1 AND ended IS NULL
  ) RETURNING device_id`;

type IdRow = { device_id: string };

const idOf = ({ device_id }: IdRow) => device_id;

export function createDeviceIds({ database }: { database: Database }): DeviceIds {
  async function existing(deviceIds: readonly string[]): Promise<Set<string>> {
    if (deviceIds.length === 0) return new Set();
    const rows = await database.read<IdRow>('devices.existing', existingSql, [deviceIds]);
    return new Set(rows.map(idOf));
  }

  return {
    async page({ afterId, limit }) {
      const rows = await database.read<IdRow>('devices.ids', pageSql, [afterId ?? '', limit]);
      return rows.map(idOf);
    },
    existing,
    async remove(deviceId) {
      const rows = await database.read('devices.remove', removeSql, [deviceId]);
      if (rows.length > 0) return 'removed';
      return (await existing([deviceId])).has(deviceId) ? 'busy' : 'unknown';
    },
  };
}
