/** Charging sessions, put together from whatever devices and commands tell of them. */
import { DownlinkError } from '../errors.ts';
import type { Page } from './contract.ts';
import { assertLimit, decodeCursor, encodeCursor } from './cursor.ts';
import type { Database } from './database.ts';
import { type Order, type Orders, orderStatuses, type SightedOrder } from './device-data.ts';
import { writeHalving } from './halving.ts';
import { storableJson } from './storable.ts';

const rowsAtOnce = 500;
/**
 * The short numbers that devices give come round again: one that was not heard of for so long names a new order.
 * An order number names one order for ever, and its end may be repeated weeks later.
 */
const businessNoReuseMs = 7 * 86_400_000;
/** A start that comes so long after an order's end is none of that order. */
const endSettledMs = 60_000;

const orderList = `id, device_id AS "deviceId", order_key AS "orderKey", era, socket, port,
  business_no AS "businessNo", order_no AS "orderNo", status, source, card,
  started_at AS "startedAt", ended_at AS "endedAt", created_at AS "createdAt",
  updated_at AS "updatedAt", energy_wh AS "energyWh", duration_s AS "durationS",
  power_w AS "powerW", max_power_w AS "maxPowerW", amount_cents AS "amountCents",
  end_reason AS "endReason", end_code AS "endCode", command_id AS "commandId"`;

const findSql = `SELECT ${orderList} FROM orders WHERE id = $1`;

/** Without a cursor the page begins above every row. */
export const listOrdersSql = `
  SELECT ${orderList} FROM orders
  WHERE device_id = $1 AND created_at >= $2 AND (created_at, id) < ($3::bigint, $4::bigint)
    AND ($5::text IS NULL OR status = $5)
  ORDER BY created_at DESC, id DESC LIMIT $6`;

/** Column → where its value is in a sighting. Told by an end they stand for good, else the latest word counts. */
const valueColumns = {
  business_no: '"businessNo"',
  order_no: '"orderNo"',
  source: 'source',
  card: 'card',
  ended_at: '"endedAt"',
  energy_wh: '"energyWh"',
  duration_s: '"durationS"',
  power_w: '"powerW"',
  max_power_w: '"maxPowerW"',
  amount_cents: '"amountCents"',
  end_reason: '"endReason"',
  end_code: '"endCode"',
  command_id: '"commandId"',
} as const;

/** Column, value, and the bit in `settled` that says that an end told it. */
const values = Object.entries(valueColumns).map(
  ([column, value], index) => [column, value, 1 << index] as const,
);
const columnList = values.map(([column]) => column).join(', ');
const valueList = values.map(([, value]) => value).join(', ');

const settledBits = values
  .map(([, value, bit]) => `CASE WHEN ${value} IS NULL THEN 0 ELSE ${bit} END`)
  .join(' + ');

const mergedValues = values
  .map(([column, , bit]) => {
    const latest =
      column === 'max_power_w'
        ? `GREATEST(held.${column}, excluded.${column})`
        : `CASE WHEN excluded.sighted_at >= coalesce(held.sighted_at, 0)
            THEN coalesce(excluded.${column}, held.${column})
            ELSE coalesce(held.${column}, excluded.${column}) END`;
    return `${column} = CASE WHEN held.settled & ${bit} <> 0 THEN held.${column}
      WHEN excluded.settled & ${bit} <> 0 THEN excluded.${column} ELSE ${latest} END`;
  })
  .join(', ');

const tellsMore = values
  .map(([column]) => `held.${column} IS NULL AND excluded.${column} IS NOT NULL`)
  .concat('excluded.max_power_w > held.max_power_w')
  .join(' OR ');

/**
 * An order of the key is near when it began before the sighting and no other of the key began between the two;
 * failing that, the first one, for the sightings of an order may come in any order. The sighting joins it, or
 * opens the next era. Whoever opens the same one at the same time meets in the unique index, and they merge.
 * An ended order changes by nothing that is seen of it after its end, but by what an end tells for the first time.
 */
const noteSql = `
  WITH sighting AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS sighting ("deviceId" text, "orderKey" text,
      socket integer, port integer, "businessNo" text, "orderNo" text, status text, source text,
      card text, "startToldAt" bigint, "endedAt" bigint, at bigint, "reuseMs" bigint,
      "energyWh" double precision, "durationS" double precision, "powerW" double precision,
      "maxPowerW" double precision, "amountCents" integer, "endReason" text, "endCode" integer,
      "commandId" text)
  ), placed AS MATERIALIZED (
    SELECT sighting.*, CASE
      WHEN near.era IS NULL THEN 1
      WHEN (sighting."reuseMs" IS NULL OR (sighting.at - near.updated_at < sighting."reuseMs"
          AND near.created_at - sighting.at < sighting."reuseMs"))
        AND NOT (sighting.status = 'started' AND near.status = 'ended'
          AND sighting.at > near.updated_at + ${endSettledMs})
      THEN near.era
      ELSE (SELECT max(era) + 1 FROM orders
        WHERE device_id = sighting."deviceId" AND order_key = sighting."orderKey")
      END AS era
    FROM sighting LEFT JOIN LATERAL (
      SELECT era, status, created_at, updated_at FROM orders
      WHERE device_id = sighting."deviceId" AND order_key = sighting."orderKey"
      ORDER BY created_at <= sighting.at DESC, abs(created_at - sighting.at), era LIMIT 1
    ) AS near ON true
  )
  INSERT INTO orders AS held (device_id, order_key, era, socket, port, status, start_told_at,
    created_at, updated_at, sighted_at, settled, ${columnList})
  SELECT "deviceId", "orderKey", era, socket, port, status, "startToldAt", at, at,
    CASE WHEN status <> 'ended' THEN at END,
    CASE WHEN status = 'ended' THEN ${settledBits} ELSE 0 END, ${valueList}
  FROM placed ORDER BY "deviceId", "orderKey"
  ON CONFLICT (device_id, order_key, era) DO UPDATE SET
    status = CASE WHEN 'ended' IN (held.status, excluded.status) THEN 'ended'
      WHEN 'charging' IN (held.status, excluded.status) THEN 'charging' ELSE 'started' END,
    start_told_at = LEAST(held.start_told_at, excluded.start_told_at),
    created_at = LEAST(held.created_at, excluded.created_at),
    updated_at = GREATEST(held.updated_at, excluded.updated_at),
    sighted_at = GREATEST(held.sighted_at, excluded.sighted_at),
    settled = held.settled | excluded.settled,
    ${mergedValues}
  WHERE held.status <> 'ended'
    OR excluded.settled & ~held.settled <> 0
    OR excluded.updated_at <= held.updated_at AND (excluded.created_at < held.created_at
      OR excluded.sighted_at > coalesce(held.sighted_at, 0)
      OR excluded.start_told_at < coalesce(held.start_told_at, excluded.start_told_at + 1)
      OR ${tellsMore})`;

type OrderRow = Omit<Order, 'id' | 'startedAt' | 'endedAt' | 'createdAt' | 'updatedAt'> & {
  id: string;
  startedAt: string | null;
  endedAt: string | null;
  createdAt: string;
  updatedAt: string;
};

export function createOrders({ database }: { database: Database }): Orders {
  return {
    list: (query) => listOrders(database, query),
    async find(id) {
      const [row] = await database.read<OrderRow>('orders.find', findSql, [id]);
      return row ? orderOf(row) : null;
    },
    async note(sightings) {
      for (const round of roundsOf(sightings)) {
        await writeHalving(round, {
          rowsAtOnce,
          subject: ({ deviceId, orderKey }) => `order ${orderKey} of device ${deviceId}`,
          write: (rows) => database.query('orders.note', noteSql, [storableJson(rows.map(flat))]),
        });
      }
    },
  };
}

async function listOrders(
  database: Database,
  { deviceId, from, to, status, cursor, limit }: Parameters<Orders['list']>[0],
): Promise<Page<Order>> {
  assertLimit(limit);
  if (status !== undefined && !orderStatuses.includes(status)) {
    throw new DownlinkError('BAD_REQUEST', `status must be one of ${orderStatuses.join(', ')}`, {
      details: { status },
    });
  }
  const above = [to ?? Number.MAX_SAFE_INTEGER, 0] as const;
  const after = cursor === undefined ? above : decodeCursor(cursor, ['number', 'number']);
  // A cursor of another range must not lead out of this one.
  const [createdAt, id] = after[0] < above[0] ? after : above;
  const rows = await database.read<OrderRow>('orders.list', listOrdersSql, [
    deviceId,
    from ?? 0,
    createdAt,
    id,
    status ?? null,
    limit + 1,
  ]);
  const items = rows.slice(0, limit).map(orderOf);
  const last = items.at(-1);
  const more = rows.length > limit && last !== undefined;
  return { items, nextCursor: more ? encodeCursor([last.createdAt, last.id]) : null };
}

/**
 * A statement may touch a row once, so the second sighting of a key waits for the next round. What a session
 * tells again and again while it charges is one sighting. Sorted, so that no two writers wait in a circle.
 */
function roundsOf(sightings: readonly SightedOrder[]): SightedOrder[][] {
  const ofKey = new Map<string, SightedOrder[]>();
  for (const next of sightings.toSorted((a, b) => a.at - b.at)) {
    const key = JSON.stringify([next.deviceId, next.orderKey]);
    const sequence = ofKey.get(key) ?? [];
    const last = sequence.at(-1);
    if (last?.event === 'charging' && next.event === 'charging') {
      sequence.splice(-1, 1, laterOf(last, next));
    } else {
      sequence.push(next);
    }
    ofKey.set(key, sequence);
  }
  const rounds: SightedOrder[][] = [];
  for (const sequence of ofKey.values()) {
    for (const [index, sighting] of sequence.entries()) {
      const round = rounds[index];
      if (round) round.push(sighting);
      else rounds.push([sighting]);
    }
  }
  return rounds.map((round) => round.sort(byKey));
}

function laterOf(last: SightedOrder, next: SightedOrder): SightedOrder {
  const known = Object.fromEntries(Object.entries(next).filter(([, value]) => value !== null));
  const starts = [last.startedAt, next.startedAt].filter((at) => at !== undefined);
  const powers = [last, next]
    .flatMap(({ maxPowerW, readings }) => [maxPowerW, readings.powerW])
    .filter((power) => power !== undefined);
  return {
    ...last,
    ...known,
    ...(starts.length > 0 && { startedAt: Math.min(...starts) }),
    ...(powers.length > 0 && { maxPowerW: Math.max(...powers) }),
    readings: { ...last.readings, ...next.readings },
  };
}

function byKey(a: SightedOrder, b: SightedOrder): number {
  if (a.deviceId !== b.deviceId) return a.deviceId < b.deviceId ? -1 : 1;
  return a.orderKey < b.orderKey ? -1 : 1;
}

function flat({ kind: _, event, readings, startedAt, endedAt, maxPowerW, ...rest }: SightedOrder) {
  const { at, orderNo } = rest;
  return {
    ...rest,
    reuseMs: orderNo === null ? businessNoReuseMs : null,
    status: event,
    startToldAt: startedAt ?? (event === 'started' ? at : null),
    endedAt: event === 'ended' ? (endedAt ?? at) : null,
    energyWh: readings.energyWh,
    durationS: readings.durationS,
    powerW: readings.powerW,
    maxPowerW: maxPowerW ?? (event === 'ended' ? null : readings.powerW),
  };
}

function orderOf(row: OrderRow): Order {
  const optional = (value: string | null) => (value === null ? null : Number(value));
  return {
    ...row,
    id: Number(row.id),
    startedAt: optional(row.startedAt),
    endedAt: optional(row.endedAt),
    createdAt: Number(row.createdAt),
    updatedAt: Number(row.updatedAt),
  };
}
