/** What is known of one device beside its row: ports, orders, command log, commands. */
import type { FastifyInstance } from 'fastify';
import type { Static } from 'typebox';
import { instantOf } from '../../queues/accept-body.ts';
import { type DeviceLookup, type PresenceLookup, readDeviceId } from '../../queues/accept-check.ts';
import type { Fault } from '../../queues/faults.ts';
import { DownlinkError } from '../errors.ts';
import type { Protocol } from '../protocols/protocol.ts';
import type { Ledger } from '../store/contract.ts';
import type { CommandLog, LogRow, Order, Orders, Port, Ports } from '../store/device-data.ts';
import { readFilter } from './commands.ts';
import {
  DeviceCommandQuery,
  LogPage,
  LogQuery,
  maxLogDays,
  OrderPage,
  OrderParams,
  OrderQuery,
  OrderShown,
  PortPage,
} from './device-data-schemas.ts';
import { unknownDevice } from './devices.ts';
import { commandJson, isoOf } from './representation.ts';
import { CommandPage, commonProblems, IdParams, problems } from './schemas.ts';

/** Rejects with DEVICE_UNKNOWN for a device that nobody knows, or with 503 when only the ledger could tell. */
export type RequireDevice = (deviceId: string) => Promise<void>;

export type RequireDeviceDeps = { deviceLookup: DeviceLookup; presence: PresenceLookup };

export function createRequireDevice({ deviceLookup, presence }: RequireDeviceDeps): RequireDevice {
  return async function requireDevice(deviceId) {
    if (await deviceLookup.find(deviceId)) return;
    // Connected, though the ledger has not seen it yet.
    if (await presence.find(deviceId).catch(() => null)) return;
    throw unknownDevice(deviceId);
  };
}

export type DeviceDataRoutes = {
  ports: Pick<Ports, 'list'>;
  orders: Pick<Orders, 'list' | 'find'>;
  commandLog: Pick<CommandLog, 'list'>;
  ledger: Pick<Ledger, 'list'>;
  requireDevice: RequireDevice;
  protocols: readonly Protocol[];
  now?: () => number;
};

const DEFAULT_LIMIT = 50;
const DAY_MS = 86_400_000;

export function deviceDataRoutes(app: FastifyInstance, deps: DeviceDataRoutes): void {
  const { ports, orders, commandLog, ledger, requireDevice, protocols, now = Date.now } = deps;

  async function knownId({ id }: Static<typeof IdParams>): Promise<string> {
    const { deviceId } = readDeviceId(protocols, id);
    await requireDevice(deviceId);
    return deviceId;
  }

  app.get<{ Params: Static<typeof IdParams> }>(
    '/devices/:id/ports',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listPorts',
        summary: 'List the ports of a device with their last known state',
        tags: ['devices'],
        params: IdParams,
        response: { 200: PortPage, ...commonProblems, ...problems.notFound },
      },
    },
    async (request) => {
      const items = await ports.list(await knownId(request.params));
      return { items: items.map(portJson), nextCursor: null };
    },
  );

  app.get<{ Params: Static<typeof IdParams>; Querystring: Static<typeof OrderQuery> }>(
    '/devices/:id/orders',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listOrders',
        summary: 'List the orders of a device, its charging sessions, newest first',
        tags: ['devices'],
        params: IdParams,
        querystring: OrderQuery,
        response: { 200: OrderPage, ...commonProblems, ...problems.notFound },
      },
    },
    async (request) => {
      const { status, cursor, limit = DEFAULT_LIMIT } = request.query;
      const { from, to } = readRange(request.query);
      const deviceId = await knownId(request.params);
      const { items, nextCursor } = await orders.list({
        deviceId,
        ...(from !== undefined && { from }),
        ...(to !== undefined && { to }),
        ...(status !== undefined && { status }),
        ...(cursor !== undefined && { cursor }),
        limit,
      });
      return { items: items.map(orderJson), nextCursor };
    },
  );

  app.get<{ Params: Static<typeof OrderParams> }>(
    '/orders/:id',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getOrder',
        summary: 'Show an order',
        tags: ['devices'],
        params: OrderParams,
        response: { 200: OrderShown, ...commonProblems, ...problems.notFound },
      },
    },
    async (request) => {
      const { id } = request.params;
      const order = await orders.find(Number(id));
      if (order) return orderJson(order);
      throw new DownlinkError(
        'NOT_FOUND',
        `there is no order ${id}: GET /v1/devices/:id/orders lists those of a device`,
      );
    },
  );

  app.get<{ Params: Static<typeof IdParams>; Querystring: Static<typeof LogQuery> }>(
    '/devices/:id/log',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listLog',
        summary: 'List the frames from and to a device, newest first',
        description: `The last 24 hours, or \`from\` … \`to\`, at most ${maxLogDays} days. Heartbeats are not kept; frames of a command appear with its end.`,
        tags: ['devices'],
        params: IdParams,
        querystring: LogQuery,
        response: { 200: LogPage, ...commonProblems, ...problems.notFound },
      },
    },
    async (request) => {
      const { direction, name, cursor, limit = DEFAULT_LIMIT } = request.query;
      const range = readLogRange(request.query, now());
      const deviceId = await knownId(request.params);
      const { items, nextCursor } = await commandLog.list({
        deviceId,
        ...range,
        ...(direction !== undefined && { direction }),
        ...(name !== undefined && { name }),
        ...(cursor !== undefined && { cursor }),
        limit,
      });
      return { items: items.map(logJson), nextCursor };
    },
  );

  app.get<{ Params: Static<typeof IdParams>; Querystring: Static<typeof DeviceCommandQuery> }>(
    '/devices/:id/commands',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listDeviceCommands',
        summary: 'List the commands of a device, newest first',
        tags: ['devices'],
        params: IdParams,
        querystring: DeviceCommandQuery,
        response: { 200: CommandPage, ...commonProblems, ...problems.notFound },
      },
    },
    async (request) => {
      const filter = readFilter({ ...request.query, deviceId: request.params.id }, protocols);
      await knownId(request.params);
      const { items, nextCursor } = await ledger.list(filter);
      return { items: items.map(commandJson), nextCursor };
    },
  );
}

type Range = { from?: number; to?: number };

function readRange(query: { from?: string; to?: string }): Range {
  const faults: Fault[] = [];
  const range: Range = {};
  for (const path of ['from', 'to'] as const) {
    const text = query[path];
    if (text === undefined) continue;
    const ms = instantOf(text);
    if (ms !== null) range[path] = ms;
    else faults.push({ path, message: 'must be a moment such as 2030-01-31T08:00:00Z' });
  }
  if (faults.length > 0) throw badRange(faults);
  assertOrder(range.from, range.to);
  return range;
}

/** The last 24 hours, where the caller does not say otherwise. */
function readLogRange(query: { from?: string; to?: string }, now: number) {
  const given = readRange(query);
  const to = given.to ?? now;
  const from = given.from ?? to - DAY_MS;
  assertOrder(from, to);
  if (to - from > maxLogDays * DAY_MS) {
    const days = ((to - from) / DAY_MS).toFixed(1);
    const message = `must be at most ${maxLogDays} days before to, which is ${isoOf(to)}, not ${days}: ask for one part after the other`;
    throw badRange([{ path: 'from', message }]);
  }
  return { from, to };
}

function assertOrder(from: number | undefined, to: number | undefined): void {
  if (from === undefined || to === undefined || from < to) return;
  throw badRange([{ path: 'from', message: `must be before to, which is ${isoOf(to)}` }]);
}

function badRange(faults: Fault[]): DownlinkError {
  const detail = faults.map(({ path, message }) => `${path} ${message}`).join('; ');
  return new DownlinkError('BAD_REQUEST', detail, { details: { errors: faults } });
}

function portJson(port: Port) {
  return { ...port, updatedAt: isoOf(port.updatedAt) };
}

/** Without what only puts it together: its key, and which time round that key is. */
function orderJson({ orderKey: _, era: __, ...order }: Order) {
  return {
    ...order,
    id: String(order.id),
    startedAt: isoOf(order.startedAt),
    endedAt: isoOf(order.endedAt),
    createdAt: isoOf(order.createdAt),
    updatedAt: isoOf(order.updatedAt),
  };
}

function logJson({ entryId, at, ...entry }: LogRow) {
  return { id: entryId, at: isoOf(at), ...entry };
}
