/** Between a command record and its row: the columns, the statement that writes rows, and reading them back. */
import type { CommandRecord } from '../command.ts';

/** Property of the record → column and its type. The one list of columns; every statement is made of it. */
const columns = {
  id: ['id', 'text'],
  deviceId: ['device_id', 'text'],
  protocol: ['protocol', 'text'],
  command: ['command', 'text'],
  params: ['params', 'jsonb'],
  priority: ['priority', 'smallint'],
  acceptedAt: ['accepted_at', 'bigint'],
  notBefore: ['not_before', 'bigint'],
  deadline: ['deadline', 'bigint'],
  ackTimeoutMs: ['ack_timeout_ms', 'integer'],
  attempts: ['attempts', 'integer'],
  backoffMs: ['backoff_ms', 'integer'],
  orderKey: ['order_key', 'text'],
  onAmbiguous: ['on_ambiguous', 'text'],
  labels: ['labels', 'jsonb'],
  apiKey: ['api_key', 'text'],
  waiter: ['waiter', 'text'],
  replayOf: ['replay_of', 'text'],
  status: ['status', 'text'],
  version: ['version', 'integer'],
  reason: ['reason', 'text'],
  code: ['code', 'text'],
  result: ['result', 'jsonb'],
  late: ['late', 'boolean'],
  inferred: ['inferred', 'boolean'],
  settledAt: ['settled_at', 'bigint'],
  trail: ['trail', 'jsonb'],
} as const satisfies Record<keyof CommandRecord, readonly [column: string, type: string]>;

const properties = Object.keys(columns) as (keyof CommandRecord)[];

/** Columns of `commands`, for INSERT. */
export const columnList = properties.map((property) => columns[property][0]).join(', ');

/** Columns under the names of the record's properties, for SELECT. */
export const recordList = properties
  .map((property) => `${columns[property][0]} AS "${property}"`)
  .join(', ');

/** Records as they come in parameter `parameter`, a JSON array; for FROM. */
export function recordsFrom(parameter: string): string {
  const fields = properties.map((property) => `"${property}" ${columns[property][1]}`);
  return `json_to_recordset(${parameter}::json) AS record (${fields.join(', ')})`;
}

/** The properties of `record`, in the order of `columnList`. */
export const recordValues = properties.map((property) => `"${property}"`).join(', ');

/** int8 columns, which pg hands over as text. */
type Row = Omit<CommandRecord, 'acceptedAt' | 'notBefore' | 'deadline' | 'settledAt'> & {
  acceptedAt: string;
  notBefore: string;
  deadline: string;
  settledAt: string | null;
};
export type CommandRow = Row;

export function recordOf(row: CommandRow): CommandRecord {
  return {
    ...row,
    acceptedAt: Number(row.acceptedAt),
    notBefore: Number(row.notBefore),
    deadline: Number(row.deadline),
    settledAt: row.settledAt === null ? null : Number(row.settledAt),
  };
}
