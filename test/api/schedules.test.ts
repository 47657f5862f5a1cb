/** /v1/schedules over a real PostgreSQL and a real Redis. */
import { type FastifyInstance, fastify } from 'fastify';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createCheck } from '../../queues/accept-check.ts';
import { createScheduleQueue, type ScheduleQueue } from '../../queues/schedules.ts';
import { sendProblem } from '../../src/api/problem.ts';
import { scheduleRoutes } from '../../src/api/schedules.ts';
import { compileValidator } from '../../src/api/validation.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { createLog } from '../../src/log/log.ts';
import { protocols } from '../../src/protocols/index.ts';
import { createDatabase } from '../../src/store/database.ts';
import { createDevices } from '../../src/store/devices.ts';
import { createSchedules } from '../../src/store/schedules.ts';
import { freshDatabase, freshRedis } from '../support/stores.ts';

const deviceId = '82200520004869';
const command = { deviceId, command: 'port.query', params: { socket: 1 } };
const log = createLog({ level: 'silent', role: 'test' });
const noon = Date.parse('2026-01-31T12:00:00Z');

let app: FastifyInstance;
let engine: ScheduleQueue;
const closers: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  const [store, database] = await Promise.all([freshRedis(), freshDatabase()]);
  const pool = connectPostgres({ url: database.url, applicationName: 'test', max: 2 });
  closers.push(() => pool.end());
  const redis = connectRedis({ url: store.url, purpose: 'commands', name: 'test' });
  closers.push(() => closeRedis(redis));
  engine = createScheduleQueue({
    redis,
    keys: createKeys(store.prefix, 4),
    onError: () => undefined,
  });
  closers.push(() => engine.close());
  const db = createDatabase({ pool });
  const devices = createDevices({ database: db });
  await devices.register(deviceId, 'bkv');
  app = appWith(engine, createSchedules({ database: db }), devices);
  closers.push(() => app.close());
});
afterAll(async () => {
  for (const close of closers.reverse()) await close();
});

function appWith(
  scheduleQueue: Pick<ScheduleQueue, 'arm' | 'disarm'>,
  schedules: ReturnType<typeof createSchedules>,
  devices: ReturnType<typeof createDevices>,
): FastifyInstance {
  const made = fastify();
  made.decorateRequest('apiKey', 'app');
  made.setValidatorCompiler(compileValidator);
  made.setErrorHandler((error, request, reply) => sendProblem(request, reply, error, 65_536));
  const check = createCheck({
    devices,
    presence: { find: async () => null },
    protocols,
    now: () => noon,
    lookupTimeoutMs: 1_000,
  });
  const deps = { schedules, scheduleQueue, check, log, now: () => noon };
  made.register(async (v1) => scheduleRoutes(v1, deps), { prefix: '/v1' });
  return made;
}

async function call(method: 'GET' | 'PUT' | 'DELETE', url: string, payload?: object) {
  const response = await app.inject({ method, url, ...(payload && { payload }) });
  return { status: response.statusCode, body: response.json() };
}
const put = (key: string, payload: object) => call('PUT', `/v1/schedules/${key}`, payload);

test('a schedule is added, shown, changed and removed', async () => {
  const added = await put('morning', { cron: '0 8 * * *', timeZone: 'Asia/Shanghai', command });
  expect(added.status).toBe(201);
  const shown = {
    key: 'morning',
    cron: '0 8 * * *',
    everyMs: null,
    timeZone: 'Asia/Shanghai',
    command,
    apiKey: 'app',
    createdAt: '2026-01-31T12:00:00.000Z',
    updatedAt: '2026-01-31T12:00:00.000Z',
    nextTickAt: '2026-02-01T00:00:00.000Z',
    lastTickAt: null,
    lastCommandId: null,
    lastError: null,
  };
  expect(added.body).toEqual({ ...shown, armed: true });
  expect((await call('GET', '/v1/schedules/morning')).body).toEqual(shown);
  expect((await engine.queue.getJobScheduler('morning'))?.pattern).toBe('0 8 * * *');

  const changed = await put('morning', { everyMs: 900_000, command });
  expect(changed.status).toBe(200);
  expect(changed.body).toMatchObject({
    cron: null,
    everyMs: 900_000,
    timeZone: 'UTC',
    nextTickAt: '2026-01-31T12:15:00.000Z',
  });
  expect((await engine.queue.getJobScheduler('morning'))?.every).toBe(900_000);

  const removed = await call('DELETE', '/v1/schedules/morning');
  expect(removed).toMatchObject({ status: 200, body: { key: 'morning', nextTickAt: null } });
  expect(await engine.keys()).toEqual([]);
  for (const method of ['GET', 'DELETE'] as const) {
    const answer = await call(method, '/v1/schedules/morning');
    expect(answer).toMatchObject({ status: 404, body: { code: 'SCHEDULE_NOT_FOUND' } });
  }
});

test('schedules are listed by key, page by page', async () => {
  for (const key of ['c', 'a', 'b']) await put(key, { everyMs: 60_000, command });
  const first = await call('GET', '/v1/schedules?limit=2');
  expect(first.body.items.map(({ key }: { key: string }) => key)).toEqual(['a', 'b']);
  const rest = await call('GET', `/v1/schedules?cursor=${first.body.nextCursor}`);
  expect(rest.body.items.map(({ key }: { key: string }) => key)).toEqual(['c']);
  expect(rest.body.nextCursor).toBeNull();
});

describe('what no tick could do is refused at once', () => {
  test.each([
    ['no timing', { command }, 400, 'BAD_REQUEST', 'cron'],
    ['two timings', { cron: '0 8 * * *', everyMs: 60_000, command }, 400, 'BAD_REQUEST', 'cron'],
    ['no cron', { cron: 'at noon', command }, 400, 'BAD_REQUEST', 'cron'],
    ['too often', { everyMs: 10, command }, 400, 'BAD_REQUEST', 'everyMs'],
    ['no zone', { cron: '0 8 * * *', timeZone: 'X', command }, 400, 'BAD_REQUEST', 'timeZone'],
    ['no command', { everyMs: 60_000 }, 400, 'BAD_REQUEST', 'command'],
    [
      'a delay in the command',
      { everyMs: 60_000, command: { ...command, delayMs: 5 } },
      400,
      'BAD_REQUEST',
      'command.delayMs',
    ],
    [
      'wrong params',
      { everyMs: 60_000, command: { ...command, params: { socket: 'one' } } },
      422,
      'INVALID_PARAMS',
      'command.params.socket',
    ],
    [
      'neither form',
      { everyMs: 60_000, command: { deviceId } },
      400,
      'BAD_REQUEST',
      'command.command',
    ],
  ])('%s', async (_what, payload, status, code, path) => {
    const answer = await put('wrong', payload);
    expect(answer).toMatchObject({ status, body: { code } });
    expect(answer.body.errors.map((error: { path: string }) => error.path)).toContain(path);
    expect((await call('GET', '/v1/schedules/wrong')).status).toBe(404);
  });

  test('an unknown device, an unknown command, a key with a colon', async () => {
    const other = { ...command, deviceId: '82200520009999' };
    expect(await put('wrong', { everyMs: 60_000, command: other })).toMatchObject({
      status: 404,
      body: { code: 'DEVICE_UNKNOWN' },
    });
    const unknown = { deviceId, command: 'make.coffee' };
    expect(await put('wrong', { everyMs: 60_000, command: unknown })).toMatchObject({
      status: 422,
      body: { code: 'COMMAND_UNKNOWN' },
    });
    expect(await put('a:b', { everyMs: 60_000, command })).toMatchObject({
      status: 400,
      body: { code: 'BAD_REQUEST' },
    });
  });
});

test('while the queue store is away a schedule is stored, and says that it does not tick yet', async () => {
  const gone = connectRedis({ url: 'redis://127.0.0.1:1', purpose: 'commands', name: 'test' });
  const away = createScheduleQueue({
    redis: gone,
    keys: createKeys('away', 4),
    onError: () => undefined,
    timeoutMs: 200,
  });
  const pool = connectPostgres({
    url: (await freshDatabase()).url,
    applicationName: 'test',
    max: 1,
  });
  const database = createDatabase({ pool });
  const devices = createDevices({ database });
  await devices.register(deviceId, 'bkv');
  const lonely = appWith(away, createSchedules({ database }), devices);
  const payload = { everyMs: 60_000, command };
  const answer = await lonely.inject({ method: 'PUT', url: '/v1/schedules/a', payload });
  expect(answer.statusCode).toBe(201);
  expect(answer.json()).toMatchObject({ key: 'a', armed: false });
  expect((await lonely.inject({ method: 'GET', url: '/v1/schedules/a' })).statusCode).toBe(200);
  const removed = await lonely.inject({ method: 'DELETE', url: '/v1/schedules/a' });
  expect(removed.statusCode).toBe(200);
  await lonely.close();
  gone.disconnect();
  await away.close().catch(() => undefined);
  await pool.end();
});
