/** Pages of commands, newest first: by (acceptedAt, id), so that new commands never shift a page. */
import { type CommandRecord, isFinal, type Status, statuses } from '../command.ts';
import { DownlinkError } from '../errors.ts';
import { type CommandRow, recordList, recordOf } from './command-rows.ts';
import type { CommandFilter, Page } from './contract.ts';
import { assertLimit, decodeCursor, encodeCursor } from './cursor.ts';
import type { Database } from './database.ts';

const newestFirst = 'ORDER BY accepted_at DESC, id DESC';

export async function listCommands(
  database: Database,
  filter: CommandFilter,
): Promise<Page<CommandRecord>> {
  assertLimit(filter.limit);
  if (filter.status?.length === 0) return { items: [], nextCursor: null };
  const { text, values } = listStatement(filter);
  // Its text depends on the filter, so each is planned for its own values.
  const rows = await database.read<CommandRow>('ledger.list', text, values, { prepare: false });
  const items = rows.slice(0, filter.limit).map(recordOf);
  const last = items.at(-1);
  const more = rows.length > filter.limit && last !== undefined;
  return { items, nextCursor: more ? encodeCursor([last.acceptedAt, last.id]) : null };
}

/** One row more than the limit tells whether there is another page. */
export function listStatement(filter: CommandFilter): { text: string; values: unknown[] } {
  const values: unknown[] = [];
  const parameter = (value: unknown) => `$${values.push(value)}`;
  const conditions: string[] = [];
  const { deviceId, command, from, to, cursor } = filter;
  if (deviceId !== undefined) conditions.push(`device_id = ${parameter(deviceId)}`);
  if (command !== undefined) conditions.push(`command = ${parameter(command)}`);
  if (from !== undefined) conditions.push(`accepted_at >= ${parameter(from)}`);
  if (to !== undefined) conditions.push(`accepted_at < ${parameter(to)}`);
  if (cursor !== undefined) {
    const [acceptedAt, id] = decodeCursor(cursor, ['number', 'string']);
    conditions.push(`(accepted_at, id) < (${parameter(acceptedAt)}, ${parameter(id)})`);
  }
  const limit = `LIMIT ${parameter(filter.limit + 1)}`;
  const branches = branchesOf(filter.status).map((branch) => {
    const where = [...branch, ...conditions].join(' AND ') || 'true';
    return `SELECT ${recordList} FROM commands WHERE ${where} ${newestFirst} ${limit}`;
  });
  if (branches.length === 1) return { text: branches.join(), values };
  const union = branches.map((branch) => `(${branch})`).join(' UNION ALL ');
  return {
    text: `SELECT * FROM (${union}) AS page ORDER BY "acceptedAt" DESC, id DESC ${limit}`,
    values,
  };
}

/**
 * One branch for each final status and one for all open ones: an index can follow the order of the
 * page only within a single value of `ended`.
 */
function branchesOf(wanted: readonly Status[] | undefined): string[][] {
  if (!wanted) return [[]];
  const chosen = statuses.filter((status) => wanted.includes(status));
  const strange = wanted.find((status) => !statuses.includes(status));
  if (strange !== undefined) {
    throw new DownlinkError('BAD_REQUEST', `status must be one of ${statuses.join(', ')}`, {
      details: { status: strange },
    });
  }
  const open = chosen.filter((status) => !isFinal(status));
  const ends = chosen.filter(isFinal).map((status) => [`ended = '${status}'`]);
  if (open.length === 0) return ends;
  const names = open.map((status) => `'${status}'`).join(', ');
  return [...ends, ['ended IS NULL', `status IN (${names})`]];
}
