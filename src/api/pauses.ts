/** Holding commands back by order of an operator: those of one device, or all of them. */
import type { FastifyInstance } from 'fastify';
import type { Static } from 'typebox';
import { readDeviceId } from '../../queues/accept-check.ts';
import type { Outbound } from '../../queues/contract.ts';
import type { Keys } from '../bridge/keys.ts';
import { wholeLane } from '../bridge/messages.ts';
import type { Outbox } from '../bridge/outbox.ts';
import type { Routes } from '../bridge/routes-contract.ts';
import type { Log } from '../log/log.ts';
import type { Protocol } from '../protocols/protocol.ts';
import type { Pauses } from '../store/contract.ts';
import type { ShowDevice } from './devices.ts';
import {
  commonProblems,
  DeviceShown,
  IdParams,
  PauseBody,
  problems,
  QueuePaused,
} from './schemas.ts';

export type Pausing = {
  /** False when it is stored, and will hold as soon as the queue store is back. */
  pause(deviceId: string, by: string, reason: string | null): Promise<boolean>;
  resume(deviceId: string): Promise<boolean>;
};

export type PausingDeps = {
  pauses: Pick<Pauses, 'pause' | 'resume' | 'find'>;
  routes: Pick<Routes, 'setPaused'>;
  outbox: Outbox;
  keys: Keys;
  log: Log;
  now(): number;
};

/** The ledger's word is the truth; what the workers read is its copy in Redis, which a duty renews. */
export function createPausing({ pauses, routes, outbox, keys, log, now }: PausingDeps): Pausing {
  async function copy(deviceId: string, pausedAt: number | null): Promise<boolean> {
    try {
      await routes.setPaused(deviceId, pausedAt);
      return true;
    } catch (error) {
      log.warn({ error, deviceId, pausedAt }, 'pause not yet known to the workers');
      return false;
    }
  }

  return {
    async pause(deviceId, by, reason) {
      const pausedAt = now();
      const isNew = await pauses.pause({ deviceId, pausedAt, by, reason });
      const since = isNew ? pausedAt : ((await pauses.find(deviceId))?.pausedAt ?? pausedAt);
      return copy(deviceId, since);
    },
    async resume(deviceId) {
      await pauses.resume(deviceId);
      // Also when it was not paused: a copy may have been left behind.
      const told = await copy(deviceId, null);
      if (told)
        outbox.send(keys.eventsChannel(), {
          t: 'wake',
          deviceId,
          room: wholeLane,
          event: `resume-${deviceId}-${now()}`,
        });
      return told;
    },
  };
}

export type PauseRoutes = {
  pausing: Pausing;
  showDevice: ShowDevice;
  outbound: Pick<Outbound, 'pause' | 'resume'>;
  protocols: readonly Protocol[];
};

const deviceAnswers = {
  200: { ...DeviceShown, description: 'It holds' },
  202: { ...DeviceShown, description: 'Stored; it holds as soon as Redis is back' },
  ...commonProblems,
  ...problems.notFound,
};

export function pauseRoutes(app: FastifyInstance, deps: PauseRoutes): void {
  const { pausing, showDevice, outbound, protocols } = deps;

  /** Pausing a device that nobody knows is a slip of the pen. */
  async function readKnown(text: string): Promise<string> {
    const { deviceId } = readDeviceId(protocols, text);
    await showDevice(deviceId);
    return deviceId;
  }

  app.post<{ Params: Static<typeof IdParams>; Body: Static<typeof PauseBody> | undefined }>(
    '/devices/:id/pause',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'pauseDevice',
        summary: 'Hold back all commands of a device, stops included',
        description:
          'What is at its gateway already may still be written. Times to live go on, so that held commands may expire. A second pause leaves the first as it is.',
        tags: ['devices'],
        params: IdParams,
        body: PauseBody,
        response: { ...deviceAnswers, ...problems.mediaType },
      },
    },
    async (request, reply) => {
      const deviceId = await readKnown(request.params.id);
      const holds = await pausing.pause(deviceId, request.apiKey, request.body?.reason ?? null);
      reply.code(holds ? 200 : 202);
      return showDevice(deviceId);
    },
  );

  app.post<{ Params: Static<typeof IdParams> }>(
    '/devices/:id/resume',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'resumeDevice',
        summary: 'Let the commands of a paused device go',
        tags: ['devices'],
        params: IdParams,
        response: deviceAnswers,
      },
    },
    async (request, reply) => {
      const deviceId = await readKnown(request.params.id);
      reply.code((await pausing.resume(deviceId)) ? 200 : 202);
      return showDevice(deviceId);
    },
  );

  app.post(
    '/queue/pause',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'pauseQueue',
        summary: 'Let no worker take another command',
        description: 'Commands are accepted all the same. What a worker has in hand goes on.',
        tags: ['operation'],
        response: { 200: QueuePaused, ...commonProblems },
      },
    },
    async () => {
      await outbound.pause();
      return { paused: true };
    },
  );

  app.post(
    '/queue/resume',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'resumeQueue',
        summary: 'Let the workers go on',
        tags: ['operation'],
        response: { 200: { ...QueuePaused, examples: [{ paused: false }] }, ...commonProblems },
      },
    },
    async () => {
      await outbound.resume();
      return { paused: false };
    },
  );
}
