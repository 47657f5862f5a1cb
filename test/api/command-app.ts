/** The command routes alone over real stores, without keys: every call is made by `app`. */
import { fastify, type InjectOptions } from 'fastify';
import { onTestFinished } from 'vitest';
import { batchRoutes } from '../../src/api/batch.ts';
import { createCancel } from '../../src/api/cancel.ts';
import { commandRoutes } from '../../src/api/commands.ts';
import { createLookup } from '../../src/api/lookup.ts';
import { sendProblem } from '../../src/api/problem.ts';
import { compileValidator } from '../../src/api/validation.ts';
import { protocols } from '../../src/protocols/index.ts';
import { freshWorld } from '../queues/accept-fixture.ts';

const bodyLimit = 64 * 1024;

export async function freshCommandApp(...options: Parameters<typeof freshWorld>) {
  const world = await freshWorld(...options);
  const { ledger, outbound, keys, redis, routes, withdrawals, takeBack } = world;
  const lookup = createLookup({ ledger, outbound, keys });
  const cancel = createCancel({
    lookup,
    ledger,
    outbound,
    routes,
    withdrawals,
    takeBack,
    endsTravel: async () => (await redis.xlen(keys.settlements())) > 0,
    patienceMs: 400,
  });
  const app = fastify({ bodyLimit });
  app.setValidatorCompiler(compileValidator);
  app.setSerializerCompiler(() => (value) => JSON.stringify(value));
  app.decorateRequest('apiKey', 'app');
  app.setErrorHandler((error, request, reply) => sendProblem(request, reply, error, bodyLimit));
  commandRoutes(app, {
    accept: world.accept,
    cancel,
    lookup,
    ledger,
    waits: { start: none, close: none, hasRoom: () => false, forEnd: async () => null },
    protocols,
    apiId: 'api-test',
  });
  batchRoutes(app, { acceptMany: world.accept.many });
  onTestFinished(() => app.close());

  return {
    ...world,
    async call(method: 'POST' | 'GET' | 'DELETE', url: string, body?: unknown) {
      const request: InjectOptions = { method, url };
      if (body !== undefined) {
        request.headers = { 'content-type': 'application/json' };
        request.payload = typeof body === 'string' ? body : JSON.stringify(body);
      }
      const { statusCode, headers, body: text } = await app.inject(request);
      return { status: statusCode, headers, json: JSON.parse(text) };
    },
  };
}

const none = async () => undefined;

export type CommandApp = Awaited<ReturnType<typeof freshCommandApp>>;
