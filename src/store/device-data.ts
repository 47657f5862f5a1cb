/** What is known of a device beyond its row: ports, orders, and its command log. Times are Unix milliseconds. */
import type { Direction } from '../protocols/protocol.ts';
import type { OrderSighting, PortSighting } from '../protocols/sighting.ts';
import type { Device, Page } from './contract.ts';

/** Null where nobody told. */
export type Port = {
  deviceId: string;
  socket: number;
  port: number;
  state: PortSighting['state'];
  code: number | null;
  businessNo: string | null;
  orderNo: string | null;
  powerW: number | null;
  voltageV: number | null;
  currentA: number | null;
  energyWh: number | null;
  durationS: number | null;
  temperatureC: number | null;
  updatedAt: number;
};

/** A port sighting, of whom and when. */
export type SightedPort = PortSighting & { deviceId: string; at: number };

export type Ports = {
  /** All of a device, by socket and port; at most `maxPorts`. */
  list(deviceId: string): Promise<Port[]>;
  /** The newest sighting of a port stands, whatever order they come in. */
  note(sightings: readonly SightedPort[]): Promise<void>;
};

export const orderStatuses = ['started', 'charging', 'ended'] as const;
export type OrderStatus = (typeof orderStatuses)[number];

/** A charging session. Null where nobody told. */
export type Order = {
  id: number;
  deviceId: string;
  orderKey: string;
  /** Which time round the key is, where keys come round again; from 1. */
  era: number;
  socket: number;
  port: number;
  businessNo: string | null;
  orderNo: string | null;
  status: OrderStatus;
  source: OrderSighting['source'];
  card: string | null;
  startedAt: number | null;
  endedAt: number | null;
  /** When it was first heard of. */
  createdAt: number;
  updatedAt: number;
  energyWh: number | null;
  durationS: number | null;
  powerW: number | null;
  maxPowerW: number | null;
  amountCents: number | null;
  endReason: string | null;
  endCode: number | null;
  /** The command that started it. */
  commandId: string | null;
};

/** An order sighting, of whom and when. */
export type SightedOrder = OrderSighting & { deviceId: string; at: number };

export type Orders = {
  /** Newest first by (createdAt, id); `from` inclusive, `to` exclusive, of createdAt. */
  list(query: {
    deviceId: string;
    from?: number;
    to?: number;
    status?: OrderStatus;
    cursor?: string;
    limit: number;
  }): Promise<Page<Order>>;
  find(id: number): Promise<Order | null>;
  /** Each as often as one likes, in any order: an ended order stays ended, and a repeated end changes nothing. */
  note(sightings: readonly SightedOrder[]): Promise<void>;
};

/** One frame that mattered. */
export type LogRow = {
  entryId: string;
  at: number;
  deviceId: string;
  direction: Direction;
  protocol: string;
  /** Of the message; of a command's own frames the command's. */
  name: string;
  /** `command` for a command's own frames, else the report's weight. */
  weight: string;
  msgId: number;
  commandId: string | null;
  fields: Record<string, unknown>;
  /** Hex. */
  frame: string;
};

export type CommandLog = {
  /** Stores rows, each entry once. */
  add(rows: readonly LogRow[]): Promise<void>;
  /** Newest first by (at, entryId); `from` inclusive, `to` exclusive. */
  list(query: {
    deviceId: string;
    from: number;
    to: number;
    direction?: Direction;
    name?: string;
    cursor?: string;
    limit: number;
  }): Promise<Page<LogRow>>;
};

export type RecentDevices = {
  /** Devices seen at or after `since`, the latest first. */
  recentlySeen(query: {
    since: number;
    protocol?: string;
    cursor?: string;
    limit: number;
  }): Promise<Page<Device>>;
};
