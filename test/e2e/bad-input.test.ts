/** What cannot be right is refused by name, and leaves no trace. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Answer, ApiClient } from '../support/api-client.ts';
import { eventually } from '../support/eventually.ts';
import { type Stack, startStack } from '../support/stack.ts';

const bkv = '82200520004869';
const ap3000 = '04ab373b';
const start = { socket: 2, port: 0, mode: 'time', minutes: 240 };
const empty = { waiting: 0, pending: 0, dead: 0, paused: false };

let stack: Stack;

beforeAll(async () => {
  stack = await startStack();
  // Known, and not connected: whatever is accepted for them stays in the queue, to be seen there.
  for (const deviceId of [bkv, ap3000]) {
    expect((await stack.api.request('PUT', `/v1/devices/${deviceId}`, {})).status).toBe(201);
  }
});

afterAll(() => stack?.stop());

beforeEach(async () => expect(await stack.api.counts()).toEqual(empty));

type Refusal = { status: number; code: string; says: RegExp };

async function expectRefused(answer: Answer, { status, code, says }: Refusal): Promise<void> {
  expect(answer.type).toMatch(/^application\/problem\+json/);
  expect(answer.body).toMatchObject({ status, code });
  expect(answer.status).toBe(status);
  expect(answer.body['detail']).toMatch(says);
  expect(answer.body['detail'].split(' ').length).toBeGreaterThan(3);
  expect(answer.body['type']).toBe(`/docs#${code}`);
  expect(answer.body['requestId']).toBe(answer.headers.get('x-request-id'));
  expect(await stack.api.counts()).toEqual(empty);
  expect(await stack.api.list()).toEqual([]);
}

const post = (body: unknown, client: ApiClient = stack.api) =>
  client.request('POST', '/v1/commands', body);

type Case = [what: string, body: unknown, refusal: Refusal];

const cases: Case[] = [
  [
    'a device that nobody knows',
    { deviceId: '82200520009999', command: 'charge.start', params: start },
    { status: 404, code: 'DEVICE_UNKNOWN', says: /82200520009999.*PUT \/v1\/devices/ },
  ],
  [
    'a device id that is none',
    { deviceId: 'kitchen', command: 'charge.start', params: start },
    { status: 400, code: 'INVALID_DEVICE_ID', says: /14 hex digits.*8/ },
  ],
  [
    'a command that its protocol does not have',
    { deviceId: bkv, command: 'charge.strat', params: start },
    { status: 422, code: 'COMMAND_UNKNOWN', says: /charge\.strat.*charge\.start/ },
  ],
  [
    "another protocol's command",
    { deviceId: bkv, command: 'device.locate', params: { seconds: 5 } },
    { status: 422, code: 'COMMAND_UNKNOWN', says: /device\.locate.*bkv/ },
  ],
  [
    'a parameter out of its range',
    { deviceId: bkv, command: 'charge.start', params: { ...start, minutes: 901 } },
    { status: 422, code: 'INVALID_PARAMS', says: /minutes.*1 to 900/ },
  ],
  [
    'a parameter out of its range, AP3000',
    { deviceId: ap3000, command: 'device.locate', params: { seconds: 256 } },
    { status: 422, code: 'INVALID_PARAMS', says: /seconds.*255/ },
  ],
  [
    'a parameter that is missing',
    { deviceId: bkv, command: 'charge.start', params: { socket: 2, port: 0, mode: 'time' } },
    { status: 422, code: 'INVALID_PARAMS', says: /minutes/ },
  ],
  [
    'a parameter that is not in the table',
    { deviceId: bkv, command: 'charge.start', params: { ...start, minuets: 1 } },
    { status: 422, code: 'INVALID_PARAMS', says: /minuets/ },
  ],
  [
    'a payload that is not hex',
    { deviceId: bkv, cmd: '0015', payload: '07zz' },
    { status: 422, code: 'INVALID_PAYLOAD', says: /payload.*hex/ },
  ],
  [
    'a payload of half a byte, AP3000',
    { deviceId: ap3000, cmd: '96', payload: '0' },
    { status: 422, code: 'INVALID_PAYLOAD', says: /payload.*two digits/ },
  ],
  [
    'a body that is no JSON',
    '{"deviceId": "82200520004869", "command": ',
    { status: 400, code: 'INVALID_JSON', says: /not JSON/ },
  ],
  ['an empty body', '', { status: 400, code: 'INVALID_JSON', says: /empty/ }],
  [
    'a body over the limit',
    { deviceId: bkv, command: 'charge.start', params: start, labels: { note: 'x'.repeat(70_000) } },
    { status: 413, code: 'BODY_TOO_LARGE', says: /65536 bytes/ },
  ],
  [
    'a member that a command does not have',
    { deviceId: bkv, command: 'charge.start', params: start, prority: 9 },
    { status: 400, code: 'BAD_REQUEST', says: /prority/ },
  ],
  [
    'a priority over 9',
    { deviceId: bkv, command: 'charge.start', params: start, priority: 10 },
    { status: 400, code: 'BAD_REQUEST', says: /priority.*9/ },
  ],
  [
    'a time to live over two days',
    { deviceId: bkv, command: 'charge.start', params: start, ttlMs: 172_800_001 },
    { status: 400, code: 'BAD_REQUEST', says: /ttlMs.*172800000/ },
  ],
  [
    'neither a command nor its raw form',
    { deviceId: bkv },
    { status: 400, code: 'BAD_REQUEST', says: /command.*missing/ },
  ],
];

test.each(cases)('%s is refused, and nothing is enqueued', async (_what, body, refusal) => {
  await expectRefused(await post(body), refusal);
});

test('a wrong key is refused, and nothing is enqueued', async () => {
  const body = { deviceId: bkv, command: 'charge.start', params: start };
  const refusal = { status: 401, code: 'UNAUTHENTICATED', says: /[Kk]ey/ };
  await expectRefused(await post(body, stack.caller('wrong-key-of-nobody')), refusal);
  await expectRefused(await post(body, stack.caller(null)), refusal);
});

test('a key without the scope is refused, and nothing is enqueued', async () => {
  const body = { deviceId: bkv, command: 'charge.start', params: start };
  const refusal = { status: 403, code: 'FORBIDDEN', says: /send/ };
  await expectRefused(await post(body, stack.reader), refusal);
  expect((await stack.reader.request('GET', '/v1/commands')).status).toBe(200);
});

test('a body of another type is refused, and nothing is enqueued', async () => {
  const answer = await stack.api.request('POST', '/v1/commands', 'deviceId=82200520004869', {
    'content-type': 'application/x-www-form-urlencoded',
  });
  const refusal = { status: 415, code: 'UNSUPPORTED_MEDIA_TYPE', says: /application\/json/ };
  await expectRefused(answer, refusal);
});

test('a command that is not there is said to be so', async () => {
  const id = '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10';
  for (const method of ['GET', 'DELETE']) {
    const answer = await stack.api.request(method, `/v1/commands/${id}`);
    await expectRefused(answer, { status: 404, code: 'COMMAND_NOT_FOUND', says: new RegExp(id) });
  }
});

test('the same body, put right, is accepted', async () => {
  const body = { deviceId: bkv, command: 'charge.start', params: start };
  const answer = await post(body);
  expect(answer.status).toBe(202);
  // It shows that the counts above would have shown a stray.
  await eventually(async () => {
    const { waiting, pending } = await stack.api.counts();
    expect(waiting + pending).toBe(1);
  });
  expect(await stack.api.list()).toHaveLength(1);
  expect((await stack.api.request('DELETE', `/v1/commands/${answer.body['id']}`)).status).toBe(200);
});
