/** Commands that are asked for again and again: what each tick hands to accept, and what came of the last one. */
import type { Schedule, Schedules } from './contract.ts';
import { assertLimit, decodeCursor, encodeCursor } from './cursor.ts';
import type { Database } from './database.ts';
import { storableJson } from './storable.ts';

/** int8 columns, which pg hands over as text. */
type ScheduleRow = Omit<Schedule, 'everyMs' | 'createdAt' | 'updatedAt' | 'lastTickAt'> & {
  everyMs: string | null;
  createdAt: string;
  updatedAt: string;
  lastTickAt: string | null;
};

const scheduleList = `key, cron, every_ms AS "everyMs", time_zone AS "timeZone", body,
  api_key AS "apiKey", created_at AS "createdAt", updated_at AS "updatedAt",
  last_tick_at AS "lastTickAt", last_command_id AS "lastCommandId", last_error AS "lastError"`;

/** What came of its last tick stays: that tick happened, whatever the schedule says from now on. */
const putSql = `
  INSERT INTO schedules AS held
    (key, cron, every_ms, time_zone, body, api_key, created_at, updated_at)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
  ON CONFLICT (key) DO UPDATE SET
    cron = excluded.cron, every_ms = excluded.every_ms, time_zone = excluded.time_zone,
    body = excluded.body, api_key = excluded.api_key, updated_at = excluded.updated_at
  RETURNING held.xmax = 0 AS fresh`;
const findSql = `SELECT ${scheduleList} FROM schedules WHERE key = $1`;
const listSql = `SELECT ${scheduleList} FROM schedules WHERE key > $1 ORDER BY key LIMIT $2`;
const removeSql = 'DELETE FROM schedules WHERE key = $1 RETURNING key';
/** Two workers may tell of two ticks at once: the later tick stands. */
const tickedSql = `
  UPDATE schedules SET last_tick_at = $2, last_command_id = $3, last_error = $4
  WHERE key = $1 AND (last_tick_at IS NULL OR last_tick_at <= $2)`;

export function createSchedules({ database }: { database: Database }): Schedules {
  return {
    async put({ key, cron, everyMs, timeZone, body, apiKey, updatedAt }) {
      const values = [key, cron, everyMs, timeZone, storableJson(body), apiKey, updatedAt];
      const [row] = await database.read<{ fresh: boolean }>('schedules.put', putSql, values);
      return row?.fresh === true;
    },
    async find(key) {
      const [row] = await database.read<ScheduleRow>('schedules.find', findSql, [key]);
      return row ? scheduleOf(row) : null;
    },
    async list({ cursor, limit }) {
      assertLimit(limit);
      const [after] = cursor === undefined ? [''] : decodeCursor(cursor, ['string']);
      const values = [after, limit + 1];
      const rows = await database.read<ScheduleRow>('schedules.list', listSql, values);
      const items = rows.slice(0, limit).map(scheduleOf);
      const last = items.at(-1);
      return { items, nextCursor: rows.length > limit && last ? encodeCursor([last.key]) : null };
    },
    async remove(key) {
      return (await database.read('schedules.remove', removeSql, [key])).length > 0;
    },
    async ticked(key, { at, commandId, error }) {
      await database.read('schedules.ticked', tickedSql, [key, at, commandId, storableText(error)]);
    },
  };
}

/** An error's own words may hold what no text column takes. */
function storableText(text: string | null): string | null {
  return text === null ? null : (JSON.parse(storableJson(text)) as string);
}

function scheduleOf(row: ScheduleRow): Schedule {
  return {
    ...row,
    everyMs: numberOf(row.everyMs),
    createdAt: Number(row.createdAt),
    updatedAt: Number(row.updatedAt),
    lastTickAt: numberOf(row.lastTickAt),
  };
}

function numberOf(text: string | null): number | null {
  return text === null ? null : Number(text);
}
