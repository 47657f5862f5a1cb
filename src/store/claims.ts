/** Accept under Idempotency-Keys: one statement claims the keys and stores their commands, each with its own or not. */
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

export type Claimant = { record: CommandRecord; idempotency: Idempotency };

/**
 * The key's unique index makes concurrent claims wait for each other, in the order of the keys, so never in a
 * circle; whoever comes second meets the winner's row and takes it over only if it is past its time. The clock
 * is the accept's own.
 */
const claimSql = `
  WITH claimed AS (
    INSERT INTO idempotency AS held (api_key, key, command_id, body_hash, expires_at)
    SELECT "apiKey", key, id, "bodyHash", "expiresAt" FROM json_to_recordset($1::json)
      AS claim ("apiKey" text, key text, id text, "bodyHash" text, "expiresAt" bigint)
    ORDER BY "apiKey", key
    ON CONFLICT (api_key, key) DO UPDATE SET
      command_id = excluded.command_id, body_hash = excluded.body_hash,
      expires_at = excluded.expires_at
    WHERE held.expires_at <= $3
    RETURNING held.command_id
  ), stored AS (
    INSERT INTO commands (${columnList})
    SELECT ${recordValues} FROM ${recordsFrom('$2')} WHERE id IN (SELECT command_id FROM claimed)
    ON CONFLICT (id) DO NOTHING
  )
  SELECT command_id AS id FROM claimed`;

const holdersSql = `
  SELECT held.api_key AS "heldBy", held.key AS "heldKey", held.body_hash AS "bodyHash", command.*
  FROM json_to_recordset($1::json) AS claim ("apiKey" text, key text)
  JOIN idempotency AS held ON held.api_key = claim."apiKey" AND held.key = claim.key
  JOIN (SELECT ${recordList} FROM commands) AS command ON command.id = held.command_id`;

/** A command that somebody has moved since it was accepted is under way: it stays. */
const unclaimSql = `
  WITH gone AS (
    DELETE FROM commands
    WHERE id = $1 AND version = 1 AND ended IS NULL AND trail = '{}' AND NOT ledger_only
    RETURNING id
  ), freed AS (
    DELETE FROM idempotency WHERE command_id IN (SELECT id FROM gone)
  )
  SELECT id FROM gone`;

/** A holder can vanish between the two statements only by the removal of its claim. */
const tries = 3;

/** Rejects as a whole, with nothing stored, when one of the commands can never be stored. */
export async function claimCommands(
  database: Database,
  claimants: readonly Claimant[],
): Promise<Claim[]> {
  const claims = new Map<Claimant, Claim>();
  let open = claimants;
  for (let attempt = 1; attempt <= tries && open.length > 0; attempt += 1) {
    const granted = await tryClaims(database, firstOfEachKey(open));
    for (const claimant of open) {
      if (granted.has(claimant)) claims.set(claimant, { claimed: true });
    }
    open = open.filter((claimant) => !granted.has(claimant));
    const holders = await findHolders(database, open);
    for (const claimant of open) {
      const holder = holders.get(keyOf(claimant.idempotency));
      if (holder) claims.set(claimant, refusal(claimant, holder));
    }
    open = open.filter((claimant) => !claims.has(claimant));
  }
  const [left] = open;
  if (left) {
    throw new DownlinkError(
      'INTERNAL',
      `the Idempotency-Key of command ${left.record.id} is held by a command that does not exist`,
    );
  }
  return claimants.map((claimant) => claims.get(claimant)!);
}

/** Takes back a command that was stored and then refused, and frees its key. */
export async function unclaimCommand(database: Database, id: string): Promise<boolean> {
  const { rows } = await database.query('ledger.unclaim', unclaimSql, [id]);
  return rows.length > 0;
}

/** A statement may meet a key once only. */
function firstOfEachKey(claimants: readonly Claimant[]): Claimant[] {
  const firsts = new Map<string, Claimant>();
  for (const claimant of claimants) {
    const key = keyOf(claimant.idempotency);
    if (!firsts.has(key)) firsts.set(key, claimant);
  }
  return [...firsts.values()];
}

async function tryClaims(database: Database, firsts: Claimant[]): Promise<Set<Claimant>> {
  const claims = firsts.map(({ record: { id }, idempotency }) => ({ ...idempotency, id }));
  const records = firsts.map(({ record }) => record);
  // Accepts of one call share a moment; where they do not, no claim is taken over before its time.
  const now = Math.min(...records.map(({ acceptedAt }) => acceptedAt));
  try {
    const { rows } = await database.query<{ id: string }>('ledger.claim', claimSql, [
      storableJson(claims),
      storableJson(records),
      now,
    ]);
    const ids = new Set(rows.map(({ id }) => id));
    return new Set(firsts.filter(({ record }) => ids.has(record.id)));
  } catch (error) {
    if (!isDataFault(error)) throw error;
    const [first] = records;
    const others = records.length > 1 ? `, or one of ${records.length - 1} claimed with it,` : '';
    throw unstorable(`command ${first?.id}${others}`, error);
  }
}

type Holder = { bodyHash: string; record: CommandRecord };
type HolderRow = CommandRow & { heldBy: string; heldKey: string; bodyHash: string };

async function findHolders(
  database: Database,
  claimants: readonly Claimant[],
): Promise<Map<string, Holder>> {
  if (claimants.length === 0) return new Map();
  const keys = firstOfEachKey([...claimants]).map(({ idempotency }) => idempotency);
  const rows = await database.read<HolderRow>('ledger.claimHolders', holdersSql, [
    storableJson(keys.map(({ apiKey, key }) => ({ apiKey, key }))),
  ]);
  return new Map(
    rows.map(({ heldBy, heldKey, bodyHash, ...row }) => [
      keyOf({ apiKey: heldBy, key: heldKey }),
      { bodyHash, record: recordOf(row) },
    ]),
  );
}

function refusal({ record, idempotency }: Claimant, holder: Holder): Claim {
  // The same accept asked before and did not hear the answer.
  if (holder.record.id === record.id) return { claimed: true };
  if (holder.bodyHash !== idempotency.bodyHash) {
    return { claimed: false, same: false, id: holder.record.id };
  }
  return { claimed: false, same: true, record: holder.record };
}

function keyOf({ apiKey, key }: Pick<Idempotency, 'apiKey' | 'key'>): string {
  return JSON.stringify([apiKey, key]);
}
