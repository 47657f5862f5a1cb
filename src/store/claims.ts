/** Accept under an Idempotency-Key: one statement claims the key and stores the command, or does neither. */
import type { CommandRecord } from '../command.ts';
import { DownlinkError } from '../errors.ts';
import {
  type CommandRow,
  columnList,
  recordList,
  recordOf,
  recordsFrom,
  recordValues,
} from './command-rows.ts';
import type { Claim, Idempotency } from './contract.ts';
import type { Database } from './database.ts';
import { isDataFault, unstorable } from './sql-faults.ts';
import { storableJson } from './storable.ts';

/**
 * The key's unique index makes concurrent claims wait for each other; whoever comes second meets the
 * winner's row and takes it over only if it is past its time. The clock is the accept's own.
 */
const claimSql = `
  WITH claimed AS (
    INSERT INTO idempotency AS held (api_key, key, command_id, body_hash, expires_at)
    VALUES ($2, $3, $4, $5, $6)
    ON CONFLICT (api_key, key) DO UPDATE SET
      command_id = excluded.command_id, body_hash = excluded.body_hash,
      expires_at = excluded.expires_at
    WHERE held.expires_at <= $7
    RETURNING held.command_id
  ), stored AS (
    INSERT INTO commands (${columnList})
    SELECT ${recordValues} FROM ${recordsFrom('$1')} WHERE EXISTS (SELECT FROM claimed)
    ON CONFLICT (id) DO NOTHING
  )
  SELECT EXISTS (SELECT FROM claimed) AS claimed`;

const holderSql = `
  SELECT held.body_hash AS "bodyHash", command.*
  FROM idempotency AS held
  JOIN (SELECT ${recordList} FROM commands) AS command ON command.id = held.command_id
  WHERE held.api_key = $1 AND held.key = $2`;

/** A holder can vanish between the two statements only by the removal of expired claims. */
const tries = 3;

export async function claimCommand(
  database: Database,
  record: CommandRecord,
  idempotency: Idempotency,
): Promise<Claim> {
  for (let attempt = 1; attempt <= tries; attempt += 1) {
    if (await tryClaim(database, record, idempotency)) return { claimed: true };
    const holder = await findHolder(database, idempotency);
    if (holder === null) continue;
    // The same accept asked before and did not hear the answer.
    if (holder.record.id === record.id) return { claimed: true };
    if (holder.bodyHash !== idempotency.bodyHash) {
      return { claimed: false, same: false, id: holder.record.id };
    }
    return { claimed: false, same: true, record: holder.record };
  }
  throw new DownlinkError(
    'INTERNAL',
    `the Idempotency-Key of command ${record.id} is held by a command that does not exist`,
  );
}

async function tryClaim(
  database: Database,
  record: CommandRecord,
  { apiKey, key, bodyHash, expiresAt }: Idempotency,
): Promise<boolean> {
  try {
    const { rows } = await database.query<{ claimed: boolean }>('ledger.claim', claimSql, [
      storableJson([record]),
      apiKey,
      key,
      record.id,
      bodyHash,
      expiresAt,
      record.acceptedAt,
    ]);
    return rows[0]?.claimed === true;
  } catch (error) {
    if (isDataFault(error)) throw unstorable(`command ${record.id}`, error);
    throw error;
  }
}

async function findHolder(
  database: Database,
  { apiKey, key }: Idempotency,
): Promise<{ bodyHash: string; record: CommandRecord } | null> {
  const rows = await database.read<CommandRow & { bodyHash: string }>(
    'ledger.claimHolder',
    holderSql,
    [apiKey, key],
  );
  if (!rows[0]) return null;
  const { bodyHash, ...row } = rows[0];
  return { bodyHash, record: recordOf(row) };
}
