/** Every frame that mattered, in partitions of a day each. */
import type { Page } from './contract.ts';
import { assertLimit, decodeCursor, encodeCursor } from './cursor.ts';
import type { Database } from './database.ts';
import type { CommandLog, LogRow } from './device-data.ts';
import { writeHalving } from './halving.ts';
import { storableJson } from './storable.ts';

const rowsAtOnce = 500;

const addSql = `
  INSERT INTO command_log (at, entry_id, device_id, direction, protocol, name, weight, msg_id,
    command_id, fields, frame)
  SELECT at, "entryId", "deviceId", direction, protocol, name, weight, "msgId", "commandId", fields,
    frame
  FROM json_to_recordset($1::json) AS entry (at bigint, "entryId" text, "deviceId" text,
    direction text, protocol text, name text, weight text, "msgId" bigint, "commandId" text,
    fields jsonb, frame text)
  ON CONFLICT (device_id, at, entry_id) DO NOTHING`;

/** The bounds of `at` stand alone beside the cursor's, for by them the days are chosen. */
export const listLogSql = `
  SELECT entry_id AS "entryId", at, device_id AS "deviceId", direction, protocol, name, weight,
    msg_id AS "msgId", command_id AS "commandId", fields, frame
  FROM command_log
  WHERE device_id = $1 AND at >= $2 AND at <= $3 AND (at, entry_id) < ($3::bigint, $4::text)
    AND ($5::text IS NULL OR direction = $5) AND ($6::text IS NULL OR name = $6)
  ORDER BY at DESC, entry_id DESC LIMIT $7`;

/**
 * The frames of commands that have ended, from their trails: the same rows whenever it is asked, so that an
 * answer that comes late adds itself and nothing else. For a statement whose CTE `written` returns commands.
 */
export const logWrittenSql = `
  INSERT INTO command_log (at, entry_id, device_id, direction, protocol, name, weight, msg_id,
    command_id, fields, frame)
  SELECT frame.at, 'c:' || written.id || ':' || attempt.key || ':' || frame.suffix,
    written.device_id, frame.direction, written.protocol,
    CASE WHEN attempt.value -> 'probe' = 'true' THEN 'probe' ELSE written.command END,
    'command', (attempt.value ->> 'wireId')::numeric::bigint, written.id, frame.fields, frame.hex
  FROM written
  CROSS JOIN LATERAL jsonb_each(written.trail) AS attempt
  CROSS JOIN LATERAL (
    SELECT coalesce(attempt.value ->> 'writtenAt', attempt.value ->> 'at')::numeric::bigint AS at
  ) AS start
  CROSS JOIN LATERAL (VALUES
    ('d', 'down', start.at, attempt.value ->> 'frameOut',
      CASE WHEN attempt.value -> 'probe' = 'true' THEN '{}' ELSE written.params END,
      attempt.value ->> 'writtenAt' IS NOT NULL OR attempt.value ->> 'frameIn' IS NOT NULL),
    ('u', 'up', start.at + coalesce((attempt.value ->> 'ms')::numeric::bigint, 0),
      attempt.value ->> 'frameIn',
      CASE WHEN attempt.value ->> 'outcome' IN ('acked', 'rejected')
        THEN coalesce(written.result, '{}') ELSE '{}' END,
      true)
  ) AS frame (suffix, direction, at, hex, fields, told)
  WHERE written.ended IS NOT NULL AND frame.told AND frame.hex IS NOT NULL
  ON CONFLICT (device_id, at, entry_id) DO NOTHING`;

type EntryRow = Omit<LogRow, 'at' | 'msgId'> & { at: string; msgId: string };

/** A row that can never be stored rejects with INTERNAL, after all others of the call were stored. */
export function createCommandLog({ database }: { database: Database }): CommandLog {
  return {
    add(rows) {
      return writeHalving(rows.toSorted(byKey), {
        rowsAtOnce,
        subject: ({ entryId }) => `log entry ${entryId}`,
        write: (part) => database.query('log.add', addSql, [storableJson(part)]),
      });
    },
    list: (query) => listLog(database, query),
  };
}

async function listLog(
  database: Database,
  { deviceId, from, to, direction, name, cursor, limit }: Parameters<CommandLog['list']>[0],
): Promise<Page<LogRow>> {
  assertLimit(limit);
  const above = [to, ''] as const;
  const after = cursor === undefined ? above : decodeCursor(cursor, ['number', 'string']);
  // A cursor of another range must not lead out of this one.
  const [at, entryId] = after[0] < to ? after : above;
  const rows = await database.read<EntryRow>('log.list', listLogSql, [
    deviceId,
    from,
    at,
    entryId,
    direction ?? null,
    name ?? null,
    limit + 1,
  ]);
  const items = rows.slice(0, limit).map(entryOf);
  const last = items.at(-1);
  const more = rows.length > limit && last !== undefined;
  return { items, nextCursor: more ? encodeCursor([last.at, last.entryId]) : null };
}

/** In the order of the index, so that no two writers wait for each other in a circle. */
function byKey(a: LogRow, b: LogRow): number {
  if (a.deviceId !== b.deviceId) return a.deviceId < b.deviceId ? -1 : 1;
  return a.at - b.at || (a.entryId < b.entryId ? -1 : 1);
}

function entryOf(row: EntryRow): LogRow {
  return { ...row, at: Number(row.at), msgId: Number(row.msgId) };
}
