import { Writable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openApi } from '../../src/api/main.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import { type Config, loadConfig } from '../../src/config/config.ts';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { createLifecycle } from '../../src/lifecycle/lifecycle.ts';
import { createLog } from '../../src/log/log.ts';
import { createLedger } from '../../src/store/ledger.ts';
import { eventually } from '../support/eventually.ts';
import { freshDatabase, freshRedis } from '../support/stores.ts';

const secret = 'canary-secret-of-the-key';
const deviceId = '82200520004869';
const stop = { deviceId, command: 'charge.stop', params: { socket: 1, port: 0 } };
const query = { deviceId, command: 'port.query', params: { socket: 1 } };

let log = '';
const silent = createLog({
  level: 'debug',
  role: 'api',
  destination: new Writable({
    write(chunk, _encoding, done) {
      log += chunk;
      done();
    },
  }),
});
const lifecycle = createLifecycle({ log: silent });
let base: string;
let config: Config;
let stores: { redisUrl: string; databaseUrl: string; prefix: string };

beforeAll(async () => {
  const [redis, database] = [await freshRedis(), await freshDatabase()];
  stores = { redisUrl: redis.url, databaseUrl: database.url, prefix: redis.prefix };
  config = loadConfig({
    env: {
      REDIS_URL: redis.url,
      DATABASE_URL: database.url,
      DOWNLINK_REDIS_PREFIX: redis.prefix,
      HTTP_ADDR: '127.0.0.1:0',
      API_KEYS: `ops:${secret}:read+send+admin`,
    },
  });
  const { http } = await openApi({ config, log: silent, lifecycle });
  base = `http://${http}`;
});
afterAll(() => lifecycle.close());

async function call(method: string, path: string, body?: unknown, headers = {}) {
  const response = await fetch(`${base}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${secret}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return {
    status: response.status,
    headers: response.headers,
    json: JSON.parse(await response.text()),
  };
}

describe('an API process over real stores', () => {
  it('becomes ready', async () => {
    expect(await call('GET', '/health/ready')).toMatchObject({
      status: 200,
      json: { status: 'healthy', ready: true },
    });
  });

  it('registers a device, accepts, lists, shows and cancels a command', async () => {
    expect((await call('POST', '/v1/commands', stop)).json.code).toBe('DEVICE_UNKNOWN');
    expect((await call('PUT', `/v1/devices/${deviceId}`)).status).toBe(201);
    const accepted = await call('POST', '/v1/commands', { ...stop, labels: { order: 'A-1' } });
    expect(accepted).toMatchObject({ status: 202, json: { durability: 'both', status: 'queued' } });
    const { id } = accepted.json;
    const { durability, ...shown } = accepted.json;
    expect((await call('GET', `/v1/commands/${id}`)).json).toEqual({ ...shown, source: 'ledger' });
    const listed = await call(
      'GET',
      `/v1/commands?deviceId=${deviceId}&status=queued,sent&status=parked&command=charge.stop&from=${shown.acceptedAt}`,
    );
    expect(listed.json.items).toMatchObject([{ id }]);
    expect((await call('GET', '/v1/stats')).json.queue.waiting).toBe(1);
    const cancelled = await call('DELETE', `/v1/commands/${id}`);
    expect(cancelled).toMatchObject({ status: 200, json: { status: 'cancelled' } });
    expect((await call('GET', `/v1/commands/${id}`)).json.status).toBe('cancelled');
    expect((await call('GET', '/v1/stats')).json.queue.waiting).toBe(0);
  });

  it('pages through commands', async () => {
    for (let i = 0; i < 3; i += 1) await call('POST', '/v1/commands', { ...query, priority: i });
    const first = await call('GET', '/v1/commands?limit=2&status=queued');
    const second = await call(
      'GET',
      `/v1/commands?limit=2&status=queued&cursor=${first.json.nextCursor}`,
    );
    const ids = [...first.json.items, ...second.json.items].map(({ id }) => id);
    expect([new Set(ids).size, second.json.nextCursor]).toEqual([3, null]);
    expect((await call('GET', '/v1/commands?cursor=x')).status).toBe(400);
  });

  it('honours an Idempotency-Key across many callers at once', async () => {
    const headers = { 'idempotency-key': 'race' };
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => call('POST', '/v1/commands', stop, headers)),
    );
    expect(new Set(answers.map(({ json }) => json.id)).size).toBe(1);
    expect(
      answers.filter(({ headers }) => headers.get('idempotency-replayed') === null).length,
    ).toBe(1);
  });

  it('wakes a waiting caller when a worker says that the command ended', async () => {
    const keys = createKeys(stores.prefix, 4);
    const redis = connectRedis({ url: stores.redisUrl, purpose: 'commands', name: 'main-test' });
    const pool = connectPostgres({ url: stores.databaseUrl, applicationName: 'main-test', max: 1 });
    const ledger = createLedger({ pool, log: silent });
    const answering = call('POST', '/v1/commands?wait=10000', {
      ...query,
      labels: { is: 'waited' },
    });
    const record = await eventually(async () => {
      const { items } = await ledger.list({ deviceId, status: ['queued'], limit: 50 });
      const waited = items.find(({ labels }) => labels['is'] === 'waited');
      expect(waited).toBeDefined();
      return waited!;
    });
    await ledger.write({ ...record, status: 'succeeded', version: 9, settledAt: Date.now() });
    await redis.publish(keys.apiChannel(record.waiter!), JSON.stringify({ id: record.id }));
    expect(await answering).toMatchObject({ status: 200, json: { status: 'succeeded' } });
    await ledger.close();
    await pool.end();
    await closeRedis(redis);
  });

  it('knows at once what another process registered or removed', async () => {
    const other = '82200520004870';
    const { http } = await openApi({ config, log: silent, lifecycle });
    const told = async () => {
      const response = await fetch(`http://${http}/v1/devices/${other}/ports`, {
        headers: { authorization: `Bearer ${secret}` },
      });
      return response.status;
    };
    expect(await told()).toBe(404);
    expect((await call('PUT', `/v1/devices/${other}`)).status).toBe(201);
    // Left alone, it would not ask again for five seconds; of a known one, for five minutes.
    await eventually(async () => expect(await told()).toBe(200), { withinMs: 3_000 });
    const removed = await fetch(`${base}/v1/devices/${other}`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${secret}` },
    });
    expect(removed.status).toBe(204);
    await eventually(async () => expect(await told()).toBe(404), { withinMs: 3_000 });
    expect(await told()).toBe(404);
    const metrics = await (await fetch(`http://${http}/metrics`)).text();
    expect(metrics).toMatch(/^device_lookup_total\{result="hit"\} [1-9]/m);
    expect(metrics).toMatch(/^device_lookup_total\{result="miss"\} [1-9]/m);
    expect(metrics).toMatch(/^device_lookup_bytes [1-9]/m);
    expect(metrics).toMatch(/^db_query_latency_seconds_count\{query="ports.list"\} [1-9]/m);
    expect(metrics).toMatch(/^db_pool_connections\{state="idle"\} \d/m);
  });

  it('keeps secrets out of its log', async () => {
    await fetch(`${base}/v1/stats`, { headers: { authorization: `Bearer ${secret}x` } });
    await call('POST', '/v1/commands', { ...stop, deviceId: 'x\r\n\u001b[2J' });
    expect(log).not.toContain(secret);
    for (const line of log.split('\n').filter((text) => text !== '')) JSON.parse(line);
  });
});
