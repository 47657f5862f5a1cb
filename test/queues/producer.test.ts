/** Direct producers on a real Redis. */
import { Queue } from 'bullmq';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { fromJob } from '../../queues/job.ts';
import { createProducer, type Producer, type Production } from '../../queues/producer.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { freshRedis } from '../support/stores.ts';

const deviceId = '82200520004869';
const query: Production = {
  protocol: 'bkv',
  deviceId,
  command: 'port.query',
  params: { socket: 1 },
};

let url: string;
let prefix: string;
const closers: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  ({ url, prefix } = await freshRedis());
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});
afterAll(() => undefined);

function open(more: object = {}): Producer {
  const producer = createProducer({ connection: url, prefix, shards: 4, name: 'billing', ...more });
  closers.push(() => producer.close());
  return producer;
}

/** The job as any BullMQ client finds it. */
async function jobOf(id: string, device = deviceId) {
  const keys = createKeys(prefix, 4);
  const shard = keys.shardOf(device);
  const connection = connectRedis({ url, purpose: 'commands', name: 'test' });
  const queue = new Queue(`outbound-${shard}`, { connection, prefix: `{${prefix}-${shard}}` });
  closers.push(
    () => closeRedis(connection),
    () => queue.close(),
  );
  const job = await queue.getJob(id);
  if (!job) throw new Error(`no job ${id}`);
  return { job, command: fromJob(job) };
}

test('a command stands in the queue of its device, filled in from the command table', async () => {
  const command = await open().add({ ...query, labels: { site: 'north' } });
  expect(command).toMatchObject({
    deviceId,
    protocol: 'bkv',
    command: 'port.query',
    params: { socket: 1 },
    priority: 5,
    attempts: 4,
    ackTimeoutMs: 10_000,
    onAmbiguous: 'resend',
    orderKey: null,
    apiKey: 'billing',
    labels: { site: 'north' },
  });
  expect(command.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/);
  expect(command.deadline - command.acceptedAt).toBe(3_600_000);
  const { job, command: read } = await jobOf(command.id);
  expect(read).toEqual({ command, base: { attempt: 0, version: 0 } });
  expect(job.opts).toMatchObject({ priority: 5, attempts: 4, backoff: { type: 'downlink' } });
  expect(await job.getState()).toBe('prioritized');
});

test('a command with a delay waits for its time', async () => {
  const command = await open().add({ ...query, delayMs: 60_000 });
  expect(command.notBefore - command.acceptedAt).toBe(60_000);
  expect(await (await jobOf(command.id)).job.getState()).toBe('delayed');
});

test('a start stands in the line of its port, as the API would have it', async () => {
  const params = { socket: 1, port: 0, mode: 'time', minutes: 60 };
  const command = await open().add({ ...query, command: 'charge.start', params });
  expect(command.orderKey).not.toBeNull();
  expect((await jobOf(command.id)).command).toMatchObject({
    command: { orderKey: command.orderKey, onAmbiguous: 'probe' },
  });
});

test('adding an id again changes nothing', async () => {
  const producer = open();
  const id = '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10';
  await producer.add({ ...query, id });
  await producer.add({ ...query, id, params: { socket: 2 } });
  expect((await jobOf(id)).job.data.params).toEqual({ socket: 1 });
});

test('many are added at once, each in the queue of its device', async () => {
  const devices = Array.from({ length: 20 }, (_, n) => `822005200048${String(n).padStart(2, '0')}`);
  const commands = await open().addBulk(devices.map((device) => ({ ...query, deviceId: device })));
  expect(commands.map((command) => command.deviceId)).toEqual(devices);
  expect(new Set(commands.map(({ id }) => id)).size).toBe(20);
  for (const command of commands) {
    expect((await jobOf(command.id, command.deviceId)).command).toMatchObject({ command });
  }
});

test('one wrong command among many keeps all of them out, and is named', async () => {
  const id = '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e11';
  const wrong = { ...query, params: { socket: 'one' } };
  await expect(open().addBulk([{ ...query, id }, wrong])).rejects.toMatchObject({
    code: 'INVALID_PARAMS',
    message: expect.stringContaining('command 1: '),
    details: { index: 1 },
  });
  await expect(jobOf(id)).rejects.toThrow('no job');
  const many = Array.from({ length: 1_001 }, () => query);
  await expect(open().addBulk(many)).rejects.toMatchObject({ code: 'BAD_REQUEST' });
});

describe('what is wrong is refused with the code of the API', () => {
  test.each([
    ['an unknown protocol', { ...query, protocol: 'modbus' }, 'BAD_REQUEST'],
    ['no protocol', { ...query, protocol: undefined as never }, 'BAD_REQUEST'],
    ['an id of the other protocol', { ...query, deviceId: '04ab373b' }, 'INVALID_DEVICE_ID'],
    ['an unknown command', { ...query, command: 'make.coffee' }, 'COMMAND_UNKNOWN'],
    ['wrong params', { ...query, params: { socket: 999 } }, 'INVALID_PARAMS'],
    ['an unknown field', { ...query, prority: 9 } as never, 'BAD_REQUEST'],
    ['a priority beyond nine', { ...query, priority: 10 }, 'BAD_REQUEST'],
    ['an id that is none', { ...query, id: '17' }, 'BAD_REQUEST'],
    ['nothing', null as never, 'BAD_REQUEST'],
  ])('%s', async (_what, production: Production, code) => {
    await expect(open().add(production)).rejects.toMatchObject({ name: 'DownlinkError', code });
  });

  test.each([
    ['shards', { shards: 0 }],
    ['prefix', { prefix: 'a b' }],
    ['name', { name: '' }],
    ['connection', { connection: 'http://example.com' }],
    ['connection', { connection: { host: '127.0.0.1', sentinels: [] } }],
  ])('a wrong option: %s', (option, more) => {
    expect(() => open(more)).toThrow(new RegExp(`^${option}`));
  });
});

test('the connection may be plain options, or a client that stays open', async () => {
  const { hostname: host, port } = new URL(url);
  const plain = await open({ connection: { host, port: Number(port) } }).add(query);
  expect((await jobOf(plain.id)).command).toMatchObject({ command: { id: plain.id } });
  const client = connectRedis({ url, purpose: 'commands', name: 'test' });
  closers.push(() => closeRedis(client));
  const producer = createProducer({ connection: client, prefix, shards: 4 });
  const { id } = await producer.add(query);
  await producer.close();
  expect((await jobOf(id)).command).toMatchObject({ command: { apiKey: 'producer' } });
  expect(await client.ping()).toBe('PONG');
});

test('while Redis is away an add fails with the id to try again with', async () => {
  const producer = open({ connection: 'redis://127.0.0.1:1' });
  await expect(producer.add(query)).rejects.toMatchObject({
    code: 'QUEUE_UNAVAILABLE',
    details: { ids: [expect.stringMatching(/^[0-9a-f-]{36}$/)] },
  });
});
