/** Which command a newer one of its line has replaced, by the ledger's word alone. */
import type { Ledger } from './contract.ts';
import type { Database } from './database.ts';
import { storableJson } from './storable.ts';

/**
 * A command replaces others when it joins their line, and it joins when it is due: one that still waits for its
 * time, or ended before it, has replaced nothing, and none replaces what was due only after itself.
 */
export const replacedBySql = `
  SELECT held.id, newer.id AS by
  FROM json_to_recordset($1::json)
    AS asked (id text, "deviceId" text, "orderKey" text, names jsonb)
  JOIN commands AS held ON held.id = asked.id
  CROSS JOIN LATERAL (
    SELECT id FROM commands
    WHERE device_id = asked."deviceId" AND order_key = asked."orderKey" AND asked.names ? command
      AND (accepted_at, id) > (held.accepted_at, held.id)
      AND greatest(accepted_at, not_before) >= held.not_before
      AND status <> 'scheduled' AND (settled_at IS NULL OR settled_at >= not_before)
    ORDER BY accepted_at DESC, id DESC LIMIT 1
  ) AS newer`;

export async function replacedBy(
  database: Database,
  rows: Parameters<Ledger['replacedBy']>[0],
): Promise<Map<string, string>> {
  if (rows.length === 0) return new Map();
  const asked = rows.map(({ id, deviceId, orderKey, names }) => ({
    id,
    deviceId,
    orderKey,
    names,
  }));
  const found = await database.read<{ id: string; by: string }>(
    'ledger.replacedBy',
    replacedBySql,
    [storableJson(asked)],
  );
  return new Map(found.map(({ id, by }) => [id, by]));
}
