/** The devices that were seen or registered. */
import type { Device, Devices } from './contract.ts';
import { assertLimit, decodeCursor, encodeCursor } from './cursor.ts';
import type { Database } from './database.ts';
import type { RecentDevices } from './device-data.ts';
import { isDataFault, unstorable } from './sql-faults.ts';
import { storableJson } from './storable.ts';

type Sighting = Parameters<Devices['seen']>[0][number];

type DeviceRow = Omit<Device, 'firstSeenAt' | 'lastSeenAt'> & {
  firstSeenAt: string | null;
  lastSeenAt: string | null;
};

const maxSightingsPerStatement = 500;

const deviceList = `device_id AS "deviceId", protocol, first_seen_at AS "firstSeenAt",
  last_seen_at AS "lastSeenAt", facts`;

const findSql = `SELECT ${deviceList} FROM devices WHERE device_id = $1`;

const registerSql = `
  INSERT INTO devices (device_id, protocol) VALUES ($1, $2)
  ON CONFLICT (device_id) DO NOTHING RETURNING device_id`;

/** LEAST and GREATEST pass over nulls. Of facts that two sightings tell, the later one's hold. */
const seenSql = `
  INSERT INTO devices AS held (device_id, protocol, first_seen_at, last_seen_at, facts)
  SELECT "deviceId", protocol, at, at, facts FROM json_to_recordset($1::json)
    AS sighting ("deviceId" text, protocol text, at bigint, facts jsonb)
  ON CONFLICT (device_id) DO UPDATE SET
    first_seen_at = LEAST(held.first_seen_at, excluded.first_seen_at),
    last_seen_at = GREATEST(held.last_seen_at, excluded.last_seen_at),
    protocol = CASE WHEN held.last_seen_at > excluded.last_seen_at
      THEN held.protocol ELSE excluded.protocol END,
    facts = CASE WHEN held.last_seen_at > excluded.last_seen_at
      THEN excluded.facts || held.facts ELSE held.facts || excluded.facts END`;

/** Those seen in the same millisecond stand in the order of their ids. */
export const recentlySeenSql = `
  SELECT ${deviceList} FROM devices
  WHERE last_seen_at >= $1 AND last_seen_at <= $2 AND (last_seen_at < $2 OR device_id > $3)
    AND ($4::text IS NULL OR protocol = $4)
  ORDER BY last_seen_at DESC, device_id LIMIT $5`;

export function createDevices({ database }: { database: Database }): Devices & RecentDevices {
  return {
    recentlySeen: (query) => recentlySeen(database, query),
    async find(deviceId) {
      const [row] = await database.read<DeviceRow>('devices.find', findSql, [deviceId]);
      return row ? deviceOf(row) : null;
    },
    list: (query) => listDevices(database, query),
    async register(deviceId, protocol) {
      const rows = await database.read('devices.register', registerSql, [deviceId, protocol]);
      return rows.length > 0;
    },
    async seen(sightings) {
      const devices = onePerDevice(sightings);
      for (let start = 0; start < devices.length; start += maxSightingsPerStatement) {
        await writeSightings(database, devices.slice(start, start + maxSightingsPerStatement));
      }
    },
  };
}

async function listDevices(
  database: Database,
  { protocol, cursor, limit, seenSince }: Parameters<Devices['list']>[0],
) {
  assertLimit(limit);
  const values: unknown[] = [];
  const parameter = (value: unknown) => `$${values.push(value)}`;
  const conditions = ['true'];
  if (protocol !== undefined) conditions.push(`protocol = ${parameter(protocol)}`);
  if (seenSince !== undefined) conditions.push(`last_seen_at >= ${parameter(seenSince)}`);
  if (cursor !== undefined) {
    const [after] = decodeCursor(cursor, ['string']);
    conditions.push(`device_id > ${parameter(after)}`);
  }
  const text = `SELECT ${deviceList} FROM devices WHERE ${conditions.join(' AND ')}
    ORDER BY device_id LIMIT ${parameter(limit + 1)}`;
  const rows = await database.read<DeviceRow>('devices.list', text, values, { prepare: false });
  const items = rows.slice(0, limit).map(deviceOf);
  const last = items.at(-1);
  return { items, nextCursor: rows.length > limit && last ? encodeCursor([last.deviceId]) : null };
}

async function recentlySeen(
  database: Database,
  { since, protocol, cursor, limit }: Parameters<RecentDevices['recentlySeen']>[0],
) {
  assertLimit(limit);
  const [seenAt, after] =
    cursor === undefined
      ? [Number.MAX_SAFE_INTEGER, '']
      : decodeCursor(cursor, ['number', 'string']);
  const rows = await database.read<DeviceRow>('devices.recentlySeen', recentlySeenSql, [
    since,
    seenAt,
    after,
    protocol ?? null,
    limit + 1,
  ]);
  const items = rows.slice(0, limit).map(deviceOf);
  const last = items.at(-1);
  if (rows.length <= limit || !last) return { items, nextCursor: null };
  return { items, nextCursor: encodeCursor([last.lastSeenAt ?? 0, last.deviceId]) };
}

async function writeSightings(database: Database, sightings: readonly Sighting[]): Promise<void> {
  try {
    await database.query('devices.seen', seenSql, [storableJson(sightings)]);
  } catch (error) {
    if (!isDataFault(error)) throw error;
    throw unstorable(`one of ${sightings.length} device sightings`, error);
  }
}

/** A statement may touch a row once; sorted, so that two writers never wait for each other in a circle. */
function onePerDevice(sightings: readonly Sighting[]): Sighting[] {
  const latest = new Map<string, Sighting>();
  for (const sighting of sightings.toSorted((a, b) => a.at - b.at)) {
    const held = latest.get(sighting.deviceId);
    const facts = { ...held?.facts, ...sighting.facts };
    latest.set(sighting.deviceId, { ...sighting, facts });
  }
  return [...latest.values()].sort((a, b) => (a.deviceId < b.deviceId ? -1 : 1));
}

function deviceOf(row: DeviceRow): Device {
  return {
    ...row,
    firstSeenAt: row.firstSeenAt === null ? null : Number(row.firstSeenAt),
    lastSeenAt: row.lastSeenAt === null ? null : Number(row.lastSeenAt),
  };
}
