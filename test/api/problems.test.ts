import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { problemOf, statusOfCode } from '../../src/api/problem.ts';
import { DownlinkError, errorCodes } from '../../src/errors.ts';
import { createLog } from '../../src/log/log.ts';
import { bkvId, buildApi, stop } from './build.ts';

let api: ReturnType<typeof buildApi>;

beforeEach(async () => {
  api = buildApi();
  await api.memory.devices.register(bkvId, 'bkv');
});
afterEach(() => api.app.close());

async function expectProblem(
  answer: Awaited<ReturnType<typeof api.call>>,
  status: number,
  code: string,
) {
  expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8');
  expect(answer.json).toMatchObject({ status, code });
  expect(answer.status).toBe(status);
  expect(answer.json.detail.length).toBeGreaterThan(10);
  expect(answer.json.requestId).toBe(answer.headers['x-request-id']);
  expect(api.book.rows.size + api.queue.jobs.size).toBe(0);
}

describe('a request that is refused has its own code, and nothing is stored', () => {
  const deep = `${'{"a":'.repeat(1_000)}1${'}'.repeat(1_000)}`;
  const wide = `{${Array.from({ length: 5_000 }, (_, i) => `"k${i}":1`).join(',')}}`;

  it.each([
    ['no JSON', '{"deviceId":', 400, 'INVALID_JSON'],
    ['an empty body', '', 400, 'INVALID_JSON'],
    ['a list', [], 400, 'BAD_REQUEST'],
    ['a text', '"x"', 400, 'BAD_REQUEST'],
    ['an unknown field', { ...stop, opts: { attempts: 1e6 } }, 400, 'BAD_REQUEST'],
    ['__proto__', `{"deviceId":"${bkvId}","__proto__":{"priority":9}}`, 400, 'INVALID_JSON'],
    [
      'a constructor',
      `{"deviceId":"${bkvId}","params":{"constructor":{"prototype":{"x":1}}}}`,
      400,
      'INVALID_JSON',
    ],
    ['a body 1,000 levels deep', deep, 400, 'BAD_REQUEST'],
    ['thousands of keys', wide, 400, 'BAD_REQUEST'],
    ['no hex id', { ...stop, deviceId: 'x\r\n\u001b[31m' }, 400, 'INVALID_DEVICE_ID'],
    ['a stranger', { ...stop, deviceId: '82200520000000' }, 404, 'DEVICE_UNKNOWN'],
    ['an unknown command', { deviceId: bkvId, command: 'fly' }, 422, 'COMMAND_UNKNOWN'],
    ['wrong params', { ...stop, params: { socket: 1 } }, 422, 'INVALID_PARAMS'],
    ['a broken payload', { deviceId: bkvId, cmd: '0007', payload: 'xyz' }, 422, 'INVALID_PAYLOAD'],
    ['a body over 64 KB', { ...stop, labels: { a: 'x'.repeat(66_000) } }, 413, 'BODY_TOO_LARGE'],
  ] as const)('%s', async (_name, body, status, code) => {
    const startedAt = performance.now();
    await expectProblem(await api.call('send', 'POST', '/v1/commands', body), status, code);
    expect(performance.now() - startedAt).toBeLessThan(1_000);
    expect(Object.prototype).not.toHaveProperty('priority');
  });

  it('bytes that are not UTF-8', async () => {
    const body = Buffer.concat([
      Buffer.from('{"deviceId":"'),
      Buffer.from([0xff, 0xfe]),
      Buffer.from('"}'),
    ]);
    await expectProblem(await api.call('send', 'POST', '/v1/commands', body), 400, 'INVALID_JSON');
  });

  it.each(['text/plain', 'application/xml', 'application/x-www-form-urlencoded'])(
    'content of type %s',
    async (type) => {
      const answer = await api.call('send', 'POST', '/v1/commands', 'x', { 'content-type': type });
      await expectProblem(answer, 415, 'UNSUPPORTED_MEDIA_TYPE');
    },
  );

  it.each([
    ['POST', '/v1/commands?wait=30001', 'BAD_REQUEST'],
    ['POST', '/v1/commands?wait=soon', 'BAD_REQUEST'],
    ['POST', '/v1/commands?wiat=1', 'BAD_REQUEST'],
  ])('%s %s', async (method, url, code) => {
    await expectProblem(await api.call('send', method, url, stop), 400, code);
  });

  it.each([
    '/v1/commands?limit=0',
    '/v1/commands?limit=201',
    '/v1/commands?status=done',
    '/v1/commands?status=queued,done',
    '/v1/commands?from=yesterday',
    '/v1/commands?colour=red',
    '/v1/commands?limit=1&limit=2',
    '/v1/devices?online=maybe',
  ])('GET %s', async (url) => {
    const answer = await api.call('read', 'GET', url);
    await expectProblem(answer, 400, 'BAD_REQUEST');
    expect(answer.json.errors.length).toBeGreaterThan(0);
  });

  it.each([
    ['GET', '/v1/commands/none', 'COMMAND_NOT_FOUND'],
    ['GET', '/v1/commands/01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10', 'COMMAND_NOT_FOUND'],
    ['DELETE', '/v1/commands/01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10', 'COMMAND_NOT_FOUND'],
    ['GET', '/v1/devices/82200520000000', 'DEVICE_UNKNOWN'],
    ['GET', '/v2/commands', 'NOT_FOUND'],
    ['PATCH', '/v1/commands', 'NOT_FOUND'],
  ])('%s %s', async (method, url, code) => {
    await expectProblem(await api.call('admin', method, url), 404, code);
  });

  it('a URL that cannot be read', async () => {
    const answer = await api.call('read', 'GET', '/v1/commands/%zz');
    expect([answer.status, answer.json.code]).toEqual([400, 'BAD_REQUEST']);
  });

  it('an Idempotency-Key that is too long', async () => {
    const answer = await api.call('send', 'POST', '/v1/commands', stop, {
      'idempotency-key': 'k'.repeat(129),
    });
    await expectProblem(answer, 400, 'BAD_REQUEST');
  });

  it('any command while both stores are away', async () => {
    api.book.state.condition = 'away';
    api.queue.state.condition = 'away';
    const answer = await api.call('send', 'POST', '/v1/commands', stop);
    await expectProblem(answer, 503, 'STORE_UNAVAILABLE');
    expect(answer.headers['retry-after']).toBe('1');
  });

  it('a keyed command while the ledger is away', async () => {
    api.book.state.condition = 'away';
    const headers = { 'idempotency-key': 'k' };
    const answer = await api.call('send', 'POST', '/v1/commands', stop, headers);
    await expectProblem(answer, 503, 'LEDGER_UNAVAILABLE');
  });

  it('a device that nobody can look up', async () => {
    api.memory.state.ledger = 'away';
    const answer = await api.call('send', 'POST', '/v1/commands', stop);
    await expectProblem(answer, 503, 'STORE_UNAVAILABLE');
  });
});

describe('a problem', () => {
  it.each(errorCodes)('of code %s has an HTTP status', (code) => {
    expect(statusOfCode[code]).toBeGreaterThanOrEqual(400);
  });

  it('of ours tells nothing but the id of the request', async () => {
    const broken = buildApi({
      accept: async () => {
        throw new TypeError('password=hunter2 at /srv/app/pool.ts:12');
      },
    });
    const answer = await broken.call('send', 'POST', '/v1/commands', stop);
    expect(answer.status).toBe(500);
    expect(answer.json.code).toBe('INTERNAL');
    expect(answer.text).not.toMatch(/hunter2|pool\.ts/);
    expect(answer.json.detail).toContain(answer.headers['x-request-id']);
    await broken.app.close();
    const internal = new DownlinkError('INVALID_JOB', 'job 7 of redis://:pw@host is broken');
    expect(problemOf(internal, 'r1').detail).not.toContain('redis');
  });
});

describe('a problem of a store that is away', () => {
  const secret = 'connect ECONNREFUSED 10.0.0.7:5432, user dl';

  it.each([
    ['LEDGER_UNAVAILABLE', {}, /ledger .* try again/],
    ['QUEUE_UNAVAILABLE', {}, /queue .* try again/],
    ['STORE_UNAVAILABLE', {}, /store .* try again/],
    ['STORE_UNAVAILABLE', { id: '01929d2c' }, /look for its id before you send it again/],
  ] as const)(
    'of code %s %j says what to do and tells the cause to the log alone',
    async (code, details, sentence) => {
      const lines: string[] = [];
      const destination = { write: (line: string) => void lines.push(line) };
      const log = createLog({ level: 'error', role: 'api', destination });
      const broken = buildApi({
        log,
        accept: async () => {
          throw new DownlinkError(code, `ledger.write: ${secret}`, {
            cause: new Error(secret),
            details,
          });
        },
      });
      const answer = await broken.call('send', 'POST', '/v1/commands', stop);
      expect([answer.status, answer.json.code]).toEqual([503, code]);
      expect(answer.headers['retry-after']).toBe('1');
      expect(answer.json.detail).toMatch(sentence);
      expect(answer.json.id).toBe('id' in details ? details.id : undefined);
      expect(answer.text).not.toMatch(/10\.0\.0\.7|ECONNREFUSED|user dl/);
      expect(lines.join('')).toContain(secret);
      await broken.app.close();
    },
  );
});

describe('x-request-id', () => {
  it('comes back as it was given', async () => {
    const answer = await api.call('nobody', 'GET', '/health/live', undefined, {
      'x-request-id': 'trace-1.a',
    });
    expect(answer.headers['x-request-id']).toBe('trace-1.a');
  });

  it.each(['', 'a b', 'x'.repeat(65), '\u001b[31mred'])('%j is replaced', async (given) => {
    const answer = await api.call('nobody', 'GET', '/health/live', undefined, {
      'x-request-id': given,
    });
    expect(answer.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
  });
});
