/** Devices whose commands are held back by order of an operator. */
import type { Pause, Pauses } from './contract.ts';
import type { Database } from './database.ts';

type PauseRow = Omit<Pause, 'pausedAt'> & { pausedAt: string };

const pauseList = 'device_id AS "deviceId", paused_at AS "pausedAt", by, reason';

const pauseSql = `
  INSERT INTO device_pauses (device_id, paused_at, by, reason) VALUES ($1, $2, $3, $4)
  ON CONFLICT (device_id) DO NOTHING RETURNING device_id`;
const resumeSql = 'DELETE FROM device_pauses WHERE device_id = $1 RETURNING device_id';
const findSql = `SELECT ${pauseList} FROM device_pauses WHERE device_id = $1`;
const listSql = `
  SELECT ${pauseList} FROM device_pauses WHERE device_id > $1 ORDER BY device_id LIMIT $2`;

export function createPauses({ database }: { database: Database }): Pauses {
  return {
    async pause({ deviceId, pausedAt, by, reason }) {
      const values = [deviceId, pausedAt, by, reason];
      return (await database.read('pauses.pause', pauseSql, values)).length > 0;
    },
    async resume(deviceId) {
      return (await database.read('pauses.resume', resumeSql, [deviceId])).length > 0;
    },
    async find(deviceId) {
      const [row] = await database.read<PauseRow>('pauses.find', findSql, [deviceId]);
      return row ? pauseOf(row) : null;
    },
    async list({ afterId, limit }) {
      const rows = await database.read<PauseRow>('pauses.list', listSql, [afterId ?? '', limit]);
      return rows.map(pauseOf);
    },
  };
}

function pauseOf(row: PauseRow): Pause {
  return { ...row, pausedAt: Number(row.pausedAt) };
}
