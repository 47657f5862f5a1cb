/** DELETE /v1/devices/:id: the device is unknown from then on, and its session ends. */
import type { FastifyInstance } from 'fastify';
import type { Static } from 'typebox';
import { readDeviceId } from '../../queues/accept-check.ts';
import type { Expel } from '../bridge/known-devices.ts';
import { isFinal, statuses } from '../command.ts';
import { DownlinkError } from '../errors.ts';
import type { Protocol } from '../protocols/protocol.ts';
import type { Ledger } from '../store/contract.ts';
import type { DeviceIds } from '../store/device-ids.ts';
import type { PresenceReading } from './devices.ts';
import { commonProblems, IdParams, NoContent, problems } from './schemas.ts';

export type RemoveDeviceDeps = {
  deviceIds: Pick<DeviceIds, 'remove'>;
  ledger: Pick<Ledger, 'list'>;
  /** What this process and the others remember of the device counts no more. */
  deviceChanged(deviceId: string): void;
  presence: Pick<PresenceReading, 'find'>;
  expel: Expel;
};

/** Rejects with DEVICE_UNKNOWN, with CONFLICT while commands are unfinished, or with 503; it may be called again. */
export type RemoveDevice = (deviceId: string) => Promise<void>;

const unfinished = statuses.filter((status) => !isFinal(status));

export function createRemoveDevice(deps: RemoveDeviceDeps): RemoveDevice {
  const { deviceIds, ledger, deviceChanged, presence, expel } = deps;

  async function conflict(deviceId: string): Promise<DownlinkError> {
    const { items } = await ledger.list({ deviceId, status: unfinished, limit: 1 });
    const [id] = items.map((item) => item.id);
    const named = id === undefined ? '' : `, such as ${id}`;
    return new DownlinkError(
      'CONFLICT',
      `device ${deviceId} has unfinished commands${named}: cancel them first, or wait for their end`,
      id === undefined ? {} : { details: { id } },
    );
  }

  return async function removeDevice(deviceId) {
    // Before anything is changed: without Redis its session cannot be ended.
    const session = await presence.find(deviceId).catch((cause: unknown) => {
      throw new DownlinkError('STORE_UNAVAILABLE', 'the session cannot be ended without Redis', {
        cause,
      });
    });
    const outcome = await deviceIds.remove(deviceId);
    if (outcome === 'busy') throw await conflict(deviceId);
    deviceChanged(deviceId);
    // Also when there was no row: an earlier removal may not have come this far.
    const ended = await expel(deviceId).catch((cause: unknown) => {
      throw new DownlinkError('STORE_UNAVAILABLE', 'the session was not ended', { cause });
    });
    if (outcome === 'removed' || session || ended) return;
    throw new DownlinkError(
      'DEVICE_UNKNOWN',
      `device ${deviceId} is unknown: nothing is left to remove`,
    );
  };
}

export type DeviceRemovalRoutes = { removeDevice: RemoveDevice; protocols: readonly Protocol[] };

export function deviceRemovalRoutes(app: FastifyInstance, deps: DeviceRemovalRoutes): void {
  const { removeDevice, protocols } = deps;

  app.delete<{ Params: Static<typeof IdParams> }>(
    '/devices/:id',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'removeDevice',
        summary: 'Remove a device and end its session',
        description:
          'Its commands stay. Where any device may log in, it is known again as soon as it does; where only known devices may, it is refused until it is registered.',
        tags: ['devices'],
        params: IdParams,
        response: {
          204: NoContent,
          ...commonProblems,
          ...problems.notFound,
          ...problems.conflict,
        },
      },
    },
    async (request, reply) => {
      await removeDevice(readDeviceId(protocols, request.params.id).deviceId);
      return reply.code(204).send();
    },
  );
}
