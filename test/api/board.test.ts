import { Writable } from 'node:stream';
import { Queue, Worker } from 'bullmq';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createBoard } from '../../dashboard/board.ts';
import { createBoardRetry } from '../../dashboard/retry.ts';
import { createFailures } from '../../src/api/failures.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { createLog } from '../../src/log/log.ts';
import { eventually } from '../support/eventually.ts';
import { freshRedis } from '../support/stores.ts';
import { buildApi, sha256 } from './build.ts';

const basic = (name: string, password: string) =>
  `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;
const viewer = basic('eve', 'looks-only');
const admin = basic('ada', 'may:act');
const base = '/admin/queues';

let redis: Redis;
let queue: Queue;
let api: ReturnType<typeof buildApi>;
let lines: Record<string, unknown>[];

beforeAll(async () => {
  const { url, prefix } = await freshRedis();
  redis = connectRedis({ url, purpose: 'commands', name: 'board-test' });
  queue = new Queue('outbound-0', { connection: redis, prefix: `{${prefix}}` });
  const blocking = connectRedis({ url, purpose: 'blocking', name: 'board-test' });
  const worker = new Worker(
    'outbound-0',
    async ({ name }) => {
      if (name === 'fails') throw new Error('no');
    },
    { connection: blocking, prefix: `{${prefix}}` },
  );
  await queue.add('fails', {}, { jobId: 'failed-1' });
  await queue.add('works', {}, { jobId: 'completed-1' });
  await eventually(async () => expect(await queue.getJobState('completed-1')).toBe('completed'));
  await eventually(async () => expect(await queue.getJobState('failed-1')).toBe('failed'));
  await worker.close();
  await closeRedis(blocking);
  await queue.add('waits', {}, { jobId: 'delayed-1', delay: 3_600_000 });
  await queue.add('waits', {}, { jobId: 'waiting-1', priority: 5 });
  lines = [];
  const destination = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  const log = createLog({ level: 'info', role: 'api', destination });
  const failures = createFailures({ limit: 20 });
  api = buildApi({
    failures,
    board: createBoard({
      queues: [queue],
      users: [
        { name: 'eve', passwordSha256: sha256('looks-only'), role: 'viewer' },
        { name: 'ada', passwordSha256: sha256('may:act'), role: 'admin' },
      ],
      // These jobs are no commands of the ledger.
      retry: createBoardRetry({ ledger: { find: async () => null }, replay: {} as never }),
      failures,
      log,
    }),
  });
});
afterAll(async () => {
  await api.app.close();
  await queue.close();
  await closeRedis(redis);
});
beforeEach(() => {
  lines.length = 0;
});

const ask = (
  authorization: string | null,
  method: 'GET' | 'PUT' | 'POST' | 'PATCH',
  path: string,
  headers: Record<string, string> = {},
) =>
  api.app.inject({
    method,
    url: `${base}${path}`,
    headers: { ...(authorization !== null && { authorization }), ...headers },
  });

describe('the board', () => {
  it.each(['/', '/api/queues', '/static/images/logo.svg', '/queue/outbound-0'])(
    'shows %s to nobody without a password',
    async (path) => {
      const answer = await ask(null, 'GET', path);
      expect(answer.statusCode).toBe(401);
      expect(answer.headers['www-authenticate']).toContain('Basic realm=');
      expect(answer.json().code).toBe('UNAUTHENTICATED');
    },
  );

  it.each([
    basic('eve', 'wrong'),
    basic('eve', ''),
    basic('', ''),
    basic('nobody', 'looks-only'),
    basic('ada', 'looks-only'),
    'Bearer secret-of-the-admin!',
    'Basic %%%',
  ])('does not let %s in', async (authorization) => {
    expect((await ask(authorization, 'GET', '/api/queues')).statusCode).toBe(401);
  });

  it.each([viewer, admin])('shows its page and its queues to its users', async (user) => {
    const page = await ask(user, 'GET', '/');
    expect(page.statusCode).toBe(200);
    expect(page.body).toContain(`<base href="${base}/"`);
    const queues = await ask(
      user,
      'GET',
      '/api/queues?activeQueue=outbound-0&page=1&jobsPerPage=10',
    );
    expect(queues.json().queues[0]).toMatchObject({ name: 'outbound-0' });
  });

  it('is slow to guess at', async () => {
    const answers = [];
    for (let i = 0; i < 25; i += 1) {
      answers.push((await ask(basic('ada', `${i}`), 'GET', '/api/queues')).statusCode);
    }
    expect(answers.at(-1)).toBe(429);
    expect((await ask(admin, 'GET', '/api/queues')).statusCode).toBe(200);
  });
});

const actions: ['PUT' | 'POST' | 'PATCH', string][] = [
  ['PUT', '/api/queues/outbound-0/retry/failed'],
  ['PUT', '/api/queues/outbound-0/promote'],
  ['PUT', '/api/queues/outbound-0/delayed-1/promote'],
  ['POST', '/api/queues/outbound-0/add'],
  ['PATCH', '/api/queues/outbound-0/waiting-1/update-data'],
  ['PATCH', '/api/queues/outbound-0/waiting-1/delay'],
  ['PATCH', '/api/queues/outbound-0/waiting-1/priority'],
  ['PUT', '/api/queues/outbound-0/empty'],
  ['PUT', '/api/queues/outbound-0/obliterate'],
  ['PUT', '/api/queues/outbound-0/concurrency'],
  ['PUT', '/api/queues/outbound-0/rate-limit'],
  ['PUT', '/api/queues/outbound-0/clean/wait'],
  ['PUT', '/api/queues/outbound-0/clean/delayed'],
  ['PUT', '/api/queues/outbound-0/clean/prioritized'],
  ['PUT', '/api/queues/outbound-0/clean/active'],
  ['PUT', '/api/queues/outbound-0/waiting-1/clean'],
  ['PUT', '/api/queues/outbound-0/delayed-1/clean'],
  ['PUT', '/api/queues/outbound-0/none/clean'],
];

describe('what would lose or repeat a command is refused, even to an admin', () => {
  it.each(actions)('%s %s', async (method, path) => {
    const before = await queue.getJobCounts();
    const answer = await ask(admin, method, path);
    expect(answer.statusCode).toBe(409);
    expect(answer.json().message).toMatch(/\/v1\/(commands|dead)/);
    expect(await queue.getJobCounts()).toEqual(before);
    expect(lines).toMatchObject([{ audit: true, user: 'ada', role: 'admin', status: 409 }]);
  });
});

describe('a viewer', () => {
  it.each([
    ...actions,
    ['PUT', '/api/queues/outbound-0/failed-1/retry'],
    ['PUT', '/api/queues/outbound-0/pause'],
    ['PUT', '/api/queues/outbound-0/clean/failed'],
    ['PUT', '/api/queues/outbound-0/failed-1/clean'],
  ] as const)('may not %s %s', async (method, path) => {
    const answer = await ask(viewer, method, path);
    expect(answer.statusCode).toBe(405);
    expect(answer.headers['allow']).toBe('GET, HEAD');
    expect(await queue.getJobState('failed-1')).toBe('failed');
    expect(await queue.isPaused()).toBe(false);
    expect(lines).toMatchObject([{ audit: true, user: 'eve', role: 'viewer', status: 405 }]);
  });
});

describe('a retry of what is no dead command', () => {
  it.each([
    ['completed-1', 409, 'is completed'],
    ['waiting-1', 409, 'is prioritized'],
    ['none', 409, 'is unknown'],
    ['failed-1', 404, 'the ledger knows no command failed-1'],
  ])('is refused with the reason: %s', async (jobId, status, reason) => {
    const before = await queue.getJobCounts();
    const answer = await ask(admin, 'PUT', `/api/queues/outbound-0/${jobId}/retry`);
    expect(answer.statusCode).toBe(status);
    expect(answer.json().message).toContain(reason);
    expect(answer.json().error.key).toBe('ERRORS.JOB_NOT_RETRIABLE');
    expect(await queue.getJobCounts()).toEqual(before);
    expect(lines).toMatchObject([{ audit: true, user: 'ada', jobId, status }]);
  });

  it('is refused in a queue that is not there', async () => {
    expect((await ask(admin, 'PUT', '/api/queues/nobody/failed-1/retry')).statusCode).toBe(404);
  });
});

describe('another site', () => {
  it.each([
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
  ])('cannot act through the browser of an admin: %j', async (headers) => {
    const answer = await ask(admin, 'PUT', '/api/queues/outbound-0/pause', headers as never);
    expect([answer.statusCode, answer.json().code]).toEqual([403, 'FORBIDDEN']);
    expect(await queue.isPaused()).toBe(false);
    expect(lines).toMatchObject([{ audit: true, status: 403 }]);
  });
});

describe('an admin', () => {
  it('may pause and resume from the board itself, and it is written down', async () => {
    const own = {
      host: 'board.example',
      origin: 'http://board.example',
      'sec-fetch-site': 'same-origin',
    };
    expect((await ask(admin, 'PUT', '/api/queues/outbound-0/pause', own)).statusCode).toBe(200);
    expect(await queue.isPaused()).toBe(true);
    expect((await ask(admin, 'PUT', '/api/queues/outbound-0/resume', own)).statusCode).toBe(200);
    expect(await queue.isPaused()).toBe(false);
    expect(lines).toMatchObject([
      {
        audit: true,
        user: 'ada',
        action: '/api/queues/:queueName/pause',
        queue: 'outbound-0',
        status: 200,
      },
      { action: '/api/queues/:queueName/resume' },
    ]);
  });

  it('may remove what has ended', async () => {
    const answer = await ask(admin, 'PUT', '/api/queues/outbound-0/completed-1/clean');
    expect(answer.statusCode).toBe(204);
    expect(await queue.getJobState('completed-1')).toBe('unknown');
    expect((await ask(admin, 'PUT', '/api/queues/outbound-0/clean/failed')).statusCode).toBe(200);
    expect(await queue.getJobState('waiting-1')).toBe('prioritized');
  });
});

it('without users the board is closed, and says how to open it', async () => {
  const closed = buildApi();
  for (const path of ['', '/', '/api/queues', '/static/x.js']) {
    const answer = await closed.call('admin', 'GET', `${base}${path}`);
    expect([answer.status, answer.json.code]).toEqual([404, 'NOT_FOUND']);
    expect(answer.json.detail).toContain('BOARD_USERS');
  }
  await closed.app.close();
});
