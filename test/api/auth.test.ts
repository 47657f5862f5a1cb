import { fastify } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Scope } from '../../src/api/auth.ts';
import { guardRoutes } from '../../src/api/auth.ts';
import { createFailures } from '../../src/api/failures.ts';
import { bkvId, buildApi, secrets } from './build.ts';

const id = '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10';

/** Every route there is and what it asks for. A new route belongs here. */
const routes: [method: string, url: string, example: string, scope: Scope | null][] = [
  ['GET', '/v1/commands', '/v1/commands', 'read'],
  ['POST', '/v1/commands', '/v1/commands', 'send'],
  ['GET', '/v1/commands/{id}', `/v1/commands/${id}`, 'read'],
  ['DELETE', '/v1/commands/{id}', `/v1/commands/${id}`, 'send'],
  ['POST', '/v1/commands/batch', '/v1/commands/batch', 'send'],
  ['GET', '/v1/commands/{id}/explain', `/v1/commands/${id}/explain`, 'read'],
  ['POST', '/v1/commands/{id}/retry', `/v1/commands/${id}/retry`, 'send'],
  ['GET', '/v1/dead', '/v1/dead', 'read'],
  ['DELETE', '/v1/dead', '/v1/dead', 'admin'],
  ['POST', '/v1/dead/replay', '/v1/dead/replay', 'send'],
  ['GET', '/v1/schedules', '/v1/schedules', 'read'],
  ['GET', '/v1/schedules/{key}', '/v1/schedules/nightly', 'read'],
  ['PUT', '/v1/schedules/{key}', '/v1/schedules/nightly', 'send'],
  ['DELETE', '/v1/schedules/{key}', '/v1/schedules/nightly', 'send'],
  ['POST', '/v1/devices/{id}/pause', `/v1/devices/${bkvId}/pause`, 'admin'],
  ['POST', '/v1/devices/{id}/resume', `/v1/devices/${bkvId}/resume`, 'admin'],
  ['POST', '/v1/queue/pause', '/v1/queue/pause', 'admin'],
  ['POST', '/v1/queue/resume', '/v1/queue/resume', 'admin'],
  ['GET', '/v1/devices', '/v1/devices', 'read'],
  ['GET', '/v1/devices/{id}', `/v1/devices/${bkvId}`, 'read'],
  ['PUT', '/v1/devices/{id}', `/v1/devices/${bkvId}`, 'admin'],
  ['DELETE', '/v1/devices/{id}', `/v1/devices/${bkvId}`, 'admin'],
  ['GET', '/v1/devices/{id}/ports', `/v1/devices/${bkvId}/ports`, 'read'],
  ['GET', '/v1/devices/{id}/orders', `/v1/devices/${bkvId}/orders`, 'read'],
  ['GET', '/v1/devices/{id}/log', `/v1/devices/${bkvId}/log`, 'read'],
  ['GET', '/v1/devices/{id}/commands', `/v1/devices/${bkvId}/commands`, 'read'],
  ['GET', '/v1/orders/{id}', '/v1/orders/17', 'read'],
  ['GET', '/v1/protocols', '/v1/protocols', 'read'],
  ['GET', '/v1/stats', '/v1/stats', 'read'],
  ['GET', '/health/live', '/health/live', null],
  ['GET', '/health/ready', '/health/ready', null],
  ['GET', '/metrics', '/metrics', null],
];

let api: ReturnType<typeof buildApi>;

beforeAll(async () => {
  api = buildApi();
  await api.app.ready();
});
afterAll(() => api.app.close());

it('the table names every documented route', () => {
  const documented = Object.entries(api.app.swagger().paths ?? {}).flatMap(([url, methods]) =>
    Object.keys(methods as object).map((method) => `${method.toUpperCase()} ${url}`),
  );
  expect(documented.sort()).toEqual(routes.map(([method, url]) => `${method} ${url}`).sort());
});

describe.each(routes)('%s %s', (method, _url, example, scope) => {
  const body = method === 'POST' || method === 'PUT' ? {} : undefined;

  it(scope ? 'refuses callers without a key' : 'needs no key', async () => {
    const { status } = await api.call('nobody', method, example, body);
    if (scope) expect(status).toBe(401);
    else expect(status).toBe(200);
  });

  it.each(['read', 'send', 'admin'] as const)('with a key of the scope %s', async (who) => {
    const answer = await api.call(who, method, example, body);
    if (scope === null || who === scope || who === 'admin') {
      expect([401, 403]).not.toContain(answer.status);
    } else {
      expect(answer.status).toBe(403);
      expect(answer.json.code).toBe('FORBIDDEN');
      expect(answer.json.detail).toContain(scope);
    }
  });
});

describe('a key', () => {
  it.each([
    ['is missing', undefined],
    ['is wrong', 'Bearer wrong'],
    ['is a name', 'Bearer admin'],
    ['is a hash', `Bearer ${'0'.repeat(64)}`],
    ['is one letter short', `Bearer ${secrets.read.slice(0, -1)}`],
    ['comes in another scheme', `Basic ${Buffer.from(`a:${secrets.read}`).toString('base64')}`],
    ['is empty', 'Bearer '],
    ['is endless', `Bearer ${'x'.repeat(10_000)}`],
  ])('that %s is answered with 401 and the way to send one', async (_name, authorization) => {
    const answer = await api.app.inject({
      url: '/v1/stats',
      headers: authorization === undefined ? {} : { authorization },
    });
    expect(answer.statusCode).toBe(401);
    expect(answer.json()).toMatchObject({ code: 'UNAUTHENTICATED' });
    expect(answer.json().detail).toContain('Authorization: Bearer');
    expect(answer.body).not.toContain(secrets.read);
  });

  it('cannot be guessed for ever from one address, while others go on', async () => {
    const guarded = buildApi({ failures: createFailures({ limit: 5 }) });
    const guess = async () =>
      (await guarded.app.inject({ url: '/v1/stats', headers: { authorization: 'Bearer no' } }))
        .statusCode;
    const answers = [];
    for (let i = 0; i < 7; i += 1) answers.push(await guess());
    expect(answers).toEqual([401, 401, 401, 401, 401, 429, 429]);
    expect((await guarded.call('read', 'GET', '/v1/stats')).status).toBe(200);
    await guarded.app.close();
  });

  it('is limited to so many requests a second, apart from other keys', async () => {
    const limited = buildApi({ requestsPerSecond: 3 });
    const answers = [];
    for (let i = 0; i < 4; i += 1) answers.push(await limited.call('read', 'GET', '/v1/stats'));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 429]);
    expect(answers[3]?.json).toMatchObject({ code: 'TOO_MANY_REQUESTS', status: 429 });
    expect(answers[3]?.headers['retry-after']).toBeDefined();
    expect((await limited.call('admin', 'GET', '/v1/stats')).status).toBe(200);
    await limited.app.close();
  });

  it('is asked for even where none is configured', async () => {
    const open = buildApi({ apiKeys: [] });
    const answer = await open.call('admin', 'GET', '/v1/stats');
    expect(answer.status).toBe(401);
    expect(answer.json.detail).toContain('API_KEYS');
    await open.app.close();
  });
});

it('a route that names no scope keeps the process from starting', async () => {
  const app = fastify();
  app.register(async (scope) => {
    guardRoutes(scope, { apiKeys: [], failures: createFailures() });
    scope.get('/forgotten', async () => 'open');
  });
  await expect(app.ready()).rejects.toThrow('/forgotten names no scope');
});
