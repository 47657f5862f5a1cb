/** Dead letters: commands that ended as failed or unknown, until an operator has seen to them. */
import type { CommandRecord } from '../command.ts';
import { type CommandRow, recordList, recordOf } from './command-rows.ts';
import type { DeadFilter, Ledger, Page } from './contract.ts';
import { assertLimit, decodeCursor, encodeCursor } from './cursor.ts';
import type { Database } from './database.ts';

/** In the words of the index `commands_dead`; literals, from which alone its use can be proved. */
const dead = "ended IN ('failed', 'unknown') AND purged_at IS NULL";
const deadAs = {
  failed: "ended = 'failed' AND purged_at IS NULL",
  unknown: "ended = 'unknown' AND purged_at IS NULL",
} as const satisfies Record<NonNullable<DeadFilter['status']>, string>;

type Statement = { text: string; values: unknown[] };

/** Newest end first: by (settledAt, id). */
export async function listDead(
  database: Database,
  filter: Parameters<Ledger['listDead']>[0],
): Promise<Page<CommandRecord>> {
  assertLimit(filter.limit);
  const { text, values } = listDeadStatement(filter);
  // Its text depends on the filter, so each is planned for its own values.
  const rows = await database.read<CommandRow>('ledger.listDead', text, values, { prepare: false });
  const items = rows.slice(0, filter.limit).map(recordOf);
  const last = items.at(-1);
  if (rows.length <= filter.limit || !last) return { items, nextCursor: null };
  return { items, nextCursor: encodeCursor([last.settledAt ?? 0, last.id]) };
}

/** One row more than the limit tells whether there is another page. */
export function listDeadStatement({
  cursor,
  limit,
  ...filter
}: Parameters<Ledger['listDead']>[0]): Statement {
  const { conditions, parameter, values } = conditionsOf(filter);
  if (cursor !== undefined) {
    const [settledAt, id] = decodeCursor(cursor, ['number', 'string']);
    conditions.push(`(settled_at, id) < (${parameter(settledAt)}, ${parameter(id)})`);
  }
  const text = `SELECT ${recordList} FROM commands WHERE ${conditions.join(' AND ')}
    ORDER BY settled_at DESC, id DESC LIMIT ${parameter(limit + 1)}`;
  return { text, values };
}

/** Oldest first. A row whose answer comes at this moment is no dead letter any more, and is left alone. */
export async function purgeDead(
  database: Database,
  filter: Parameters<Ledger['purgeDead']>[0],
): Promise<{ id: string; deviceId: string }[]> {
  const { text, values } = purgeDeadStatement(filter);
  return database.read('ledger.purgeDead', text, values, { prepare: false });
}

/** Rows are locked in the order of their ids, as batches of writes lock them. */
export function purgeDeadStatement({
  limit,
  at,
  ...filter
}: Parameters<Ledger['purgeDead']>[0]): Statement {
  const { conditions, parameter, values } = conditionsOf(filter);
  const text = `
    WITH chosen AS MATERIALIZED (
      SELECT id FROM commands WHERE ${conditions.join(' AND ')}
      ORDER BY settled_at, id LIMIT ${parameter(limit)}
    ), locked AS MATERIALIZED (
      SELECT id FROM commands WHERE id IN (SELECT id FROM chosen) AND ${dead}
      ORDER BY id FOR UPDATE
    )
    UPDATE commands AS held SET purged_at = ${parameter(at)}
    FROM locked WHERE held.id = locked.id
    RETURNING held.id, held.device_id AS "deviceId"`;
  return { text, values };
}

function conditionsOf({ ids, deviceId, command, code, status, since, until }: DeadFilter) {
  const values: unknown[] = [];
  const parameter = (value: unknown) => `$${values.push(value)}`;
  const conditions = [status ? deadAs[status] : dead, `settled_at >= ${parameter(since)}`];
  if (until !== undefined) conditions.push(`settled_at < ${parameter(until)}`);
  if (ids !== undefined) conditions.push(`id = ANY(${parameter(ids)}::text[])`);
  if (deviceId !== undefined) conditions.push(`device_id = ${parameter(deviceId)}`);
  if (command !== undefined) conditions.push(`command = ${parameter(command)}`);
  if (code !== undefined) conditions.push(`code = ${parameter(code)}`);
  return { conditions, parameter, values };
}
