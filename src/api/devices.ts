/** /v1/devices: what is known of devices, and registering them ahead of their first connection. */
import type { FastifyInstance } from 'fastify';
import type { Static } from 'typebox';
import { readDeviceId } from '../../queues/accept-check.ts';
import { DownlinkError, messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Protocol } from '../protocols/protocol.ts';
import type { Device, Devices, Pause, Pauses } from '../store/contract.ts';
import type { RecentDevices } from '../store/device-data.ts';
import type { DeviceLookup } from '../store/device-lookup.ts';
import { type DeviceJson, deviceJson, isoOf } from './representation.ts';
import {
  commonProblems,
  DeviceBody,
  DevicePage,
  DeviceQuery,
  DeviceShown,
  IdParams,
  problems,
} from './schemas.ts';

export type PresenceReading = {
  find(deviceId: string): Promise<{ gatewayId: string; protocol: string } | null>;
  findMany(
    deviceIds: readonly string[],
  ): Promise<Map<string, { gatewayId: string; protocol: string }>>;
};

export type ShowDeviceDeps = {
  devices: Pick<Devices, 'find'>;
  deviceLookup: Pick<DeviceLookup, 'put'>;
  presence: PresenceReading;
  pauses: Pick<Pauses, 'find'>;
};

/** Rejects with DEVICE_UNKNOWN, or with 503 when only a store that is away could tell. */
export type ShowDevice = (deviceId: string) => Promise<DeviceJson & { paused?: PausedJson | null }>;
type PausedJson = { since: string; by: string; reason: string | null };

export type DeviceRoutes = {
  devices: Pick<Devices, 'list' | 'register'> & RecentDevices;
  /** What this process and the others remember of the device counts no more. */
  deviceChanged(deviceId: string): void;
  /** Lets a registered device log in at once, where only known devices may. */
  admit?: (deviceId: string) => Promise<unknown>;
  log: Log;
  presence: PresenceReading;
  protocols: readonly Protocol[];
  showDevice: ShowDevice;
  now?: () => number;
};

const DEFAULT_LIMIT = 50;
/** Whoever is online was seen so lately; presence says whether it still is. */
const ONLINE_SEEN_WITHIN_MS = 5 * 60_000;
/** Pages looked through for one answer when most devices are filtered out. */
const MAX_ROUNDS = 10;

export function deviceRoutes(app: FastifyInstance, deps: DeviceRoutes): void {
  const { devices, presence, protocols, showDevice, admit, deviceChanged, log } = deps;
  const { now = Date.now } = deps;

  app.get<{ Querystring: Static<typeof DeviceQuery> }>(
    '/devices',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listDevices',
        summary: 'List devices',
        description:
          'With `online`, a page may hold fewer items than `limit` although more follow: go on while there is a nextCursor. `online=true` lists those that are connected and were seen in the last 5 minutes, the latest first; one that is seen again meanwhile moves ahead of the pages that were read. Otherwise devices come in the order of their ids.',
        tags: ['devices'],
        querystring: DeviceQuery,
        response: { 200: DevicePage, ...commonProblems },
      },
    },
    async (request) => listDevices(request.query),
  );

  app.get<{ Params: Static<typeof IdParams> }>(
    '/devices/:id',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getDevice',
        summary: 'Show a device',
        tags: ['devices'],
        params: IdParams,
        response: { 200: DeviceShown, ...commonProblems, ...problems.notFound },
      },
    },
    async (request) => showDevice(readDeviceId(protocols, request.params.id).deviceId),
  );

  app.put<{ Params: Static<typeof IdParams>; Body: Static<typeof DeviceBody> | undefined }>(
    '/devices/:id',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'registerDevice',
        summary: 'Register a device ahead of its first connection',
        tags: ['devices'],
        params: IdParams,
        body: DeviceBody,
        response: {
          200: { ...DeviceShown, description: 'It was known already' },
          201: { ...DeviceShown, description: 'Registered' },
          ...commonProblems,
          ...problems.invalid,
        },
      },
    },
    async (request, reply) => {
      const { deviceId, protocol } = readRegistration(request.params.id, request.body?.protocol);
      const isNew = await devices.register(deviceId, protocol);
      if (isNew) deviceChanged(deviceId);
      await admit?.(deviceId).catch((error: unknown) => {
        // A worker puts the copy right, within minutes.
        log.warn({ deviceId, error: messageOf(error) }, 'device not yet known to the gateways');
      });
      reply.code(isNew ? 201 : 200);
      return showDevice(deviceId);
    },
  );

  function readRegistration(text: string, asked: string | undefined) {
    const { deviceId, protocols: candidates } = readDeviceId(protocols, text);
    const names = candidates.map(({ name }) => name);
    const protocol = asked ?? names[0] ?? '';
    if (names.includes(protocol)) return { deviceId, protocol };
    const message = `must be ${names.join(' or ')}, as the form of ${deviceId} says; or leave it out`;
    throw new DownlinkError('INVALID_PARAMS', `protocol ${message}`, {
      details: { errors: [{ path: 'protocol', message }] },
    });
  }

  async function listDevices(query: Static<typeof DeviceQuery>) {
    const { online, protocol, limit = DEFAULT_LIMIT } = query;
    const since = now() - ONLINE_SEEN_WITHIN_MS;
    const items: DeviceJson[] = [];
    let cursor = query.cursor;
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      const asked = {
        ...(protocol !== undefined && { protocol }),
        ...(cursor !== undefined && { cursor }),
        limit: limit - items.length,
      };
      const page = online
        ? await devices.recentlySeen({ ...asked, since })
        : await devices.list(asked);
      items.push(...(await withPresence(page.items, online)));
      cursor = page.nextCursor ?? undefined;
      if (cursor === undefined || items.length >= limit) break;
    }
    return { items, nextCursor: cursor ?? null };
  }

  async function withPresence(page: readonly Device[], online: boolean | undefined) {
    const ids = page.map(({ deviceId }) => deviceId);
    const present = await presence.findMany(ids).catch((cause: unknown) => {
      if (online === undefined) return null;
      throw new DownlinkError(
        'STORE_UNAVAILABLE',
        'who is online cannot be told while Redis is away: leave `online` out, or try again later',
        { cause },
      );
    });
    const shown = page.map((device) =>
      deviceJson(device, present ? (present.get(device.deviceId) ?? null) : 'unknown'),
    );
    return online === undefined ? shown : shown.filter((device) => device.online === online);
  }
}

/** A device as the ledger, its presence and its pause show it. */
export function createShowDevice({
  devices,
  deviceLookup,
  presence,
  pauses,
}: ShowDeviceDeps): ShowDevice {
  return async function showDevice(deviceId) {
    const [row, session, pause] = await Promise.allSettled([
      devices.find(deviceId),
      presence.find(deviceId),
      pauses.find(deviceId),
    ]);
    const present = session.status === 'fulfilled' ? session.value : 'unknown';
    const device = row.status === 'fulfilled' ? row.value : null;
    const paused = pause.status === 'fulfilled' && { paused: pausedJson(pause.value) };
    if (device) {
      deviceLookup.put(device);
      return { ...deviceJson(device, present), ...paused };
    }
    // Connected, though the ledger has not seen it yet or is away.
    if (present !== null && present !== 'unknown') {
      return { ...deviceJson(unseen(deviceId, present.protocol), present), ...paused };
    }
    if (row.status === 'rejected') throw row.reason;
    throw unknownDevice(deviceId);
  };
}

export function unknownDevice(deviceId: string): DownlinkError {
  return new DownlinkError(
    'DEVICE_UNKNOWN',
    `device ${deviceId} is unknown: register it with PUT /v1/devices/${deviceId}, or let it connect once`,
  );
}

function pausedJson(pause: Pause | null): PausedJson | null {
  return pause && { since: isoOf(pause.pausedAt), by: pause.by, reason: pause.reason };
}

function unseen(deviceId: string, protocol: string): Device {
  return { deviceId, protocol, firstSeenAt: null, lastSeenAt: null, facts: {} };
}
