/** What a failed statement means: whether the store is away, the values are at fault, or another try helps. */
import { DownlinkError, messageOf } from '../errors.ts';

/**
 * `away`: no answer, or none to be had now. `data`: these values can never be stored. `retry`: rolled back
 * for the sake of another statement. `schema`: the tables are not what this version expects.
 */
export type SqlFault = 'away' | 'data' | 'retry' | 'schema';

/** By class of SQLSTATE, its first two digits. */
const faultOfClass: Readonly<Record<string, SqlFault>> = {
  '21': 'data',
  '22': 'data',
  '23': 'data',
  '54': 'data',
  '40': 'retry',
  '42': 'schema',
  '3F': 'schema',
};

export function faultOf(error: unknown): SqlFault {
  // JSON.stringify refuses cycles and BigInts.
  if (error instanceof TypeError) return 'data';
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  // System errors (ECONNRESET) have codes too; PostgreSQL's are five characters.
  if (typeof code !== 'string' || code.length !== 5) return 'away';
  return faultOfClass[code.slice(0, 2)] ?? 'away';
}

export function isDataFault(error: unknown): boolean {
  return faultOf(error) === 'data';
}

export function unavailable(subject: string, cause: unknown): DownlinkError {
  const hint = faultOf(cause) === 'schema' ? '; the database may need its migrations' : '';
  return new DownlinkError('LEDGER_UNAVAILABLE', `${subject}: ${messageOf(cause)}${hint}`, {
    cause,
  });
}

export function unstorable(subject: string, cause: unknown): DownlinkError {
  return new DownlinkError('INTERNAL', `${subject} cannot be stored: ${messageOf(cause)}`, {
    cause,
  });
}
