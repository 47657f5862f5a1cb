/** An API over stores in memory, with a key of every kind. */
import { createHash } from 'node:crypto';
import type { FastifyInstance, InjectOptions } from 'fastify';
import { pino } from 'pino';
import { v7 as uuidV7 } from 'uuid';
import { createBoard } from '../../dashboard/board.ts';
import type { Accept } from '../../queues/accept-contract.ts';
import { type ApiDeps, createApi } from '../../src/api/app.ts';
import { createFailures } from '../../src/api/failures.ts';
import { createUseCases } from '../../src/api/use-cases.ts';
import { createWaits } from '../../src/api/waits.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import { protocols } from '../../src/protocols/index.ts';
import type { Schedule, Schedules } from '../../src/store/contract.ts';
import { createMemoryRoutes, createMemoryWithdrawals } from '../support/memory-routes.ts';
import {
  createMemoryDevices,
  createMemoryLedger,
  createMemoryOutbound,
} from '../support/memory-stores.ts';

export const bkvId = '82200520004869';
export const ap3000Id = '04ab373b';
export const stop = { deviceId: bkvId, command: 'charge.stop', params: { socket: 1, port: 0 } };

export const secrets = {
  read: 'secret-of-the-reader',
  send: 'secret-of-the-sender',
  admin: 'secret-of-the-admin!',
} as const;

export const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

/** A channel nobody speaks on. */
const silent = {
  subscribe: async () => 1,
  unsubscribe: async () => 1,
  on: () => silent,
  off: () => silent,
};

/** `accept`: in place of the real one. */
function createMemorySchedules(): Schedules {
  const held = new Map<string, Schedule>();
  return {
    async put(given) {
      const known = held.get(given.key);
      const ticks = { lastTickAt: null, lastCommandId: null, lastError: null };
      held.set(given.key, { createdAt: given.updatedAt, ...ticks, ...known, ...given });
      return known === undefined;
    },
    find: async (key) => held.get(key) ?? null,
    list: async () => ({ items: [...held.values()], nextCursor: null }),
    remove: async (key) => held.delete(key),
    ticked: async () => undefined,
  };
}

export function buildApi({ accept, ...more }: Partial<ApiDeps> & { accept?: Accept } = {}) {
  const memory = createMemoryDevices();
  const book = createMemoryLedger();
  const queue = createMemoryOutbound();
  const places = createMemoryRoutes();
  const gateways = createMemoryWithdrawals();
  const log = pino({ level: 'silent' });
  const keys = createKeys('test', 4);
  const { ledger } = book;
  const { outbound } = queue;
  const { devices, presence } = memory;
  const pauses = { list: nobody, find: nothing, pause: no, resume: no };
  const useCases = createUseCases({
    ledger,
    outbound,
    routes: places.routes,
    withdrawals: { ...gateways.withdrawals, receive: () => false },
    outbox: { send: () => undefined },
    devices,
    deviceLookup: { find: devices.find, put: () => undefined, forget: () => undefined },
    deviceChanges: { announce: () => undefined },
    deviceIds: {
      remove: async (deviceId) => (memory.known.delete(deviceId) ? 'removed' : 'unknown'),
    },
    expel: async (deviceId) => memory.present.delete(deviceId),
    presence,
    pauses,
    protocols,
    keys,
    caps: { maxPerKey: 50, maxPerDevice: 500 },
    log,
    newId: () => uuidV7(),
    notify: () => undefined,
    endsTravel: no,
    liveGateways: async () => new Map(),
    liveWorkers: async () => 1,
    patience: { graceMs: 20, storeTimeoutMs: 100, lookupTimeoutMs: 50 },
  });
  if (accept) useCases.accept = Object.assign(accept, { many: useCases.accept.many });
  const waits = createWaits({
    redis: silent as never,
    channel: 'nobody',
    ledger,
    log,
    pollMs: 20,
  });
  const failures = createFailures();
  const app = createApi({
    apiId: 'api-test',
    useCases,
    ledger,
    devices,
    ports: { list: nobody },
    orders: { list: noPage, find: nothing },
    commandLog: { list: noPage },
    presence,
    pauses,
    schedules: createMemorySchedules(),
    scheduleQueue: { arm: async () => 'armed', disarm: no },
    outbound,
    protocols,
    waits,
    metrics: createMetrics('api'),
    log,
    failures,
    apiKeys: Object.entries(secrets).map(([name, secret]) => ({
      name,
      secretSha256: sha256(secret),
      scopes: name === 'admin' ? ['admin'] : name === 'send' ? ['send'] : ['read'],
    })),
    board: createBoard({
      queues: [],
      retry: () => Promise.reject(new Error('there is no board here')),
      users: [],
      failures,
      log,
    }),
    ...more,
  });
  return { app, memory, book, queue, places, gateways, waits, call: caller(app) };
}

const no = async () => false;
const nothing = async () => null;
const nobody = async () => [];
const noPage = async () => ({ items: [], nextCursor: null });

export type Who = keyof typeof secrets | 'nobody';

/** Calls the API as somebody; a body that is no text is sent as JSON. */
export function caller(app: FastifyInstance) {
  return async function call(
    who: Who,
    method: string,
    url: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ) {
    const response = await app.inject({
      method: method as NonNullable<InjectOptions['method']>,
      url,
      headers: {
        ...(who !== 'nobody' && { authorization: `Bearer ${secrets[who]}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && {
        payload: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
      }),
    });
    return {
      status: response.statusCode,
      headers: response.headers,
      text: response.body,
      get json() {
        return JSON.parse(response.body);
      },
    };
  };
}
