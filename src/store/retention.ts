/** Removes what is past its time, a little at a time, so that no removal holds locks for long. */
import type { Database } from './database.ts';
import { createLogDays, type LogDays } from './log-days.ts';

export type Removed = { commands: number; claims: number; reports: number };

export type Retention = LogDays & {
  /**
   * Removes at most `limit` rows of each kind: commands accepted and ended before `before`, reports from
   * before it that are in no day of the log, and claims whose time is over at `now`. Call again while a limit
   * was reached.
   */
  removeOld(query: { before: number; now: number; limit: number }): Promise<Removed>;
};

const commandsSql = `
  DELETE FROM commands WHERE id IN (
    SELECT id FROM commands
    WHERE accepted_at < $1 AND ended IS NOT NULL AND coalesce(settled_at, accepted_at) < $1
    ORDER BY accepted_at, id LIMIT $2 FOR UPDATE SKIP LOCKED
  )`;
const claimsSql = `
  DELETE FROM idempotency WHERE (api_key, key) IN (
    SELECT api_key, key FROM idempotency WHERE expires_at <= $1
    ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
  )`;
/** What no day's partition holds, and what the version before has left in its own table. */
const reportsSql = `
  WITH strays AS (
    DELETE FROM command_log_default WHERE (device_id, at, entry_id) IN (
      SELECT device_id, at, entry_id FROM command_log_default WHERE at < $1
      LIMIT $2 FOR UPDATE SKIP LOCKED
    ) RETURNING 1
  ), leftovers AS (
    DELETE FROM device_reports WHERE entry_id IN (
      SELECT entry_id FROM device_reports WHERE at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
    ) RETURNING 1
  )
  SELECT 1 FROM strays UNION ALL SELECT 1 FROM leftovers`;

export function createRetention({ database }: { database: Database }): Retention {
  const remove = async (name: string, text: string, until: number, limit: number) =>
    (await database.query(name, text, [until, limit])).rowCount ?? 0;
  return {
    ...createLogDays({ database }),
    async removeOld({ before, now, limit }) {
      return {
        // A claim outlives no command it names: claims last hours, rows last days.
        claims: await remove('retention.claims', claimsSql, now, limit),
        commands: await remove('retention.commands', commandsSql, before, limit),
        reports: await remove('retention.reports', reportsSql, before, limit),
      };
    },
  };
}
