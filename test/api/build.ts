/** An API over stores in memory, with a key of every kind. */
import { createHash } from 'node:crypto';
import type { FastifyInstance, InjectOptions } from 'fastify';
import { pino } from 'pino';
import { v7 as uuidV7 } from 'uuid';
import { createBoard } from '../../dashboard/board.ts';
import { createAccept } from '../../queues/accept.ts';
import { type ApiDeps, createApi } from '../../src/api/app.ts';
import { createFailures } from '../../src/api/failures.ts';
import { createWaits } from '../../src/api/waits.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import { protocols } from '../../src/protocols/index.ts';
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

export function buildApi(more: Partial<ApiDeps> = {}) {
  const memory = createMemoryDevices();
  const book = createMemoryLedger();
  const queue = createMemoryOutbound();
  const log = pino({ level: 'silent' });
  const accept = createAccept({
    ledger: book.ledger,
    outbound: queue.outbound,
    devices: memory.devices,
    presence: memory.presence,
    protocols,
    log,
    newId: () => uuidV7(),
    graceMs: 20,
    storeTimeoutMs: 100,
    lookupTimeoutMs: 50,
  });
  const waits = createWaits({
    redis: silent as never,
    channel: 'nobody',
    ledger: book.ledger,
    log,
    pollMs: 20,
  });
  const failures = createFailures();
  const app = createApi({
    apiId: 'api-test',
    accept,
    ledger: book.ledger,
    devices: memory.devices,
    deviceLookup: { put: () => undefined },
    presence: memory.presence,
    outbound: queue.outbound,
    protocols,
    keys: createKeys('test', 4),
    waits,
    metrics: createMetrics('api'),
    log,
    failures,
    apiKeys: Object.entries(secrets).map(([name, secret]) => ({
      name,
      secretSha256: sha256(secret),
      scopes: name === 'admin' ? ['admin'] : name === 'send' ? ['send'] : ['read'],
    })),
    board: createBoard({ queues: [], users: [], failures, log }),
    ...more,
  });
  return { app, memory, book, queue, waits, call: caller(app) };
}

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
