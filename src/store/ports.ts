/** The last known state of every port. */
import type { Database } from './database.ts';
import type { Port, Ports, SightedPort } from './device-data.ts';
import { writeHalving } from './halving.ts';
import { storableJson } from './storable.ts';

/** A BKV device has at most 250 sockets of two holes. */
export const maxPorts = 500;
const rowsAtOnce = 500;

export const listPortsSql = `
  SELECT device_id AS "deviceId", socket, port, state, code,
    nullif(business_no, '') AS "businessNo", nullif(order_no, '') AS "orderNo", power_w AS "powerW", voltage_v AS "voltageV", current_a AS "currentA",
    energy_wh AS "energyWh", duration_s AS "durationS", temperature_c AS "temperatureC",
    updated_at AS "updatedAt"
  FROM ports WHERE device_id = $1 ORDER BY socket, port LIMIT ${maxPorts}`;

/**
 * What a sighting of the same state does not tell stays as it was; another state starts afresh. That a
 * port has no number is told too, by an empty one.
 */
const merged = [
  'code',
  'business_no',
  'order_no',
  'power_w',
  'voltage_v',
  'current_a',
  'energy_wh',
  'duration_s',
  'temperature_c',
]
  .map(
    (column) => `${column} = CASE WHEN held.state = excluded.state
      THEN coalesce(excluded.${column}, held.${column}) ELSE excluded.${column} END`,
  )
  .join(', ');

const noteSql = `
  INSERT INTO ports AS held (device_id, socket, port, state, code, business_no, order_no, power_w,
    voltage_v, current_a, energy_wh, duration_s, temperature_c, updated_at)
  SELECT "deviceId", socket, port, state, code, "businessNo", "orderNo", "powerW", "voltageV",
    "currentA", "energyWh", "durationS", "temperatureC", at
  FROM json_to_recordset($1::json) AS sighting ("deviceId" text, socket integer, port integer,
    state text, code integer, "businessNo" text, "orderNo" text, "powerW" double precision,
    "voltageV" double precision, "currentA" double precision, "energyWh" double precision,
    "durationS" double precision, "temperatureC" double precision, at bigint)
  ON CONFLICT (device_id, socket, port) DO UPDATE SET
    state = excluded.state, updated_at = excluded.updated_at, ${merged}
  WHERE held.updated_at <= excluded.updated_at`;

type PortRow = Omit<Port, 'updatedAt'> & { updatedAt: string };

export function createPorts({ database }: { database: Database }): Ports {
  return {
    async list(deviceId) {
      const rows = await database.read<PortRow>('ports.list', listPortsSql, [deviceId]);
      return rows.map((row) => ({ ...row, updatedAt: Number(row.updatedAt) }));
    },
    async note(sightings) {
      // The state before the last one goes first, so that nothing of a still earlier time is kept.
      const histories = historiesOf(sightings);
      const left = histories.flatMap(({ before }) => before ?? []);
      const last = histories.map(({ now }) => now);
      for (const round of [left, last]) {
        await writeHalving(round, {
          rowsAtOnce,
          subject: ({ deviceId, socket, port }) => `port ${socket}/${port} of device ${deviceId}`,
          write: (rows) => database.query('ports.note', noteSql, [storableJson(rows.map(flat))]),
        });
      }
    },
  };
}

type History = { before: SightedPort | null; now: SightedPort };

/** One of each port, since a statement may touch a row once; sorted, so that no two writers wait in a circle. */
function historiesOf(sightings: readonly SightedPort[]): History[] {
  const histories = new Map<string, History>();
  for (const next of sightings.toSorted((a, b) => a.at - b.at)) {
    const key = JSON.stringify([next.deviceId, next.socket, next.port]);
    const held = histories.get(key);
    if (held?.now.state === next.state) held.now = merge(held.now, next);
    else histories.set(key, { before: held?.now ?? null, now: next });
  }
  return [...histories.values()].sort(({ now: a }, { now: b }) => {
    if (a.deviceId !== b.deviceId) return a.deviceId < b.deviceId ? -1 : 1;
    return a.socket - b.socket || a.port - b.port;
  });
}

function merge(older: SightedPort, newer: SightedPort): SightedPort {
  return {
    ...older,
    ...newer,
    code: newer.code ?? older.code,
    readings: { ...older.readings, ...newer.readings },
  };
}

function flat({ kind: _, readings, businessNo, orderNo, ...sighting }: SightedPort) {
  return {
    ...sighting,
    ...readings,
    businessNo: businessNo === null ? '' : businessNo,
    orderNo: orderNo === null ? '' : orderNo,
  };
}
