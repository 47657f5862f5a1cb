/**
 * What a report or an acknowledged command tells of ports and charges, in the words that the protocols share.
 * A sighting is a witness, not a verdict: it may come late, twice or out of order, and the store decides which
 * of two counts. The end of a charge is final; what is seen of a running one yields to it.
 */

/** What was measured. A value that is missing, implausible or not measured by the device is left out. */
export type Readings = {
  voltageV?: number;
  powerW?: number;
  currentA?: number;
  energyWh?: number;
  durationS?: number;
  temperatureC?: number;
};

/** The state of a port as its device tells it; `code` is the device's own number for it. */
export type PortSighting = {
  kind: 'port';
  socket: number;
  port: number;
  state: 'idle' | 'plugged' | 'charging' | 'full' | 'fault' | 'unknown';
  code: number | null;
  /** Null: the device says that there is none. Absent: it does not say. */
  businessNo?: string | null;
  orderNo?: string | null;
  readings: Readings;
};

/** A charge. `orderKey` is the same in all that is told of it, and unique within its device. */
export type OrderSighting = {
  kind: 'order';
  orderKey: string;
  socket: number;
  port: number;
  event: 'started' | 'charging' | 'ended';
  /** In decimal digits, as commands take it and results show it. */
  businessNo: string | null;
  orderNo: string | null;
  source: 'server' | 'card' | 'offline' | 'code' | null;
  card?: string;
  /** Unix milliseconds. Of a charge that had begun before, the moment of the report less the duration. */
  startedAt?: number;
  endedAt?: number;
  readings: Readings;
  maxPowerW?: number;
  amountCents?: number;
  /** One of `endReasons`. */
  endReason?: string;
  /** The device's own number, from which the reason was read. */
  endCode?: number;
  commandId?: string;
};

export type Sighting = PortSighting | OrderSighting;

export type PortState = PortSighting['state'];

/** Why a charge ended: a closed list, so that operators can count by it. */
export const endReasons = [
  'full',
  /** The time, or the energy, that was ordered. */
  'time-up',
  'energy-up',
  /** What was ordered is used up; the device does not say whether it was time or energy. */
  'quota-up',
  /** The device's own longest time. */
  'max-time',
  'unplugged',
  'no-load',
  'low-power',
  'overload',
  'server',
  'card',
  'external',
  'door',
  'fault-temperature',
  'fault-current',
  'fault-voltage',
  'fault-metering',
  /** Relay, fuse or memory of the device itself. */
  'fault-hardware',
  'fault-water',
  'fault-fire',
  /** A number without a documented meaning. */
  'other',
] as const;
export type EndReason = (typeof endReasons)[number];
