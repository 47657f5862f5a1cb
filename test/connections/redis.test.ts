import { afterEach, expect, test, vi } from 'vitest';
import {
  closeRedis,
  connectRedis,
  type Redis,
  reconnectDelayMs,
} from '../../src/connections/redis.ts';
import { freshRedis, privateRedis } from '../support/stores.ts';

const open: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

function connect(options: Parameters<typeof connectRedis>[0]): Redis {
  const client = connectRedis(options);
  open.push(() => closeRedis(client));
  return client;
}

test('a commands client fails fast while Redis is away and works again when it is back', async () => {
  const redis = await privateRedis();
  open.push(redis.stop);
  const errors: Error[] = [];
  const client = connect({
    url: redis.url,
    purpose: 'commands',
    name: 'test',
    onError: (error) => errors.push(error),
  });
  await client.set('kept', 'yes');
  await redis.server.kill('SIGKILL');
  await vi.waitUntil(() => client.status !== 'ready', { timeout: 5000 });

  const asked = performance.now();
  await expect(client.get('kept')).rejects.toThrow();
  expect(performance.now() - asked).toBeLessThan(500);
  await vi.waitUntil(() => errors.length > 0, { timeout: 5000 });

  await redis.server.start();
  await vi.waitUntil(() => client.status === 'ready', { timeout: 5000 });
  expect(await client.get('kept')).toBe('yes');
});

test('a commands client that never connected fails fast too', async () => {
  const client = connect({ url: 'redis://127.0.0.1:1', purpose: 'commands', name: 'test' });
  await expect(client.ping()).rejects.toThrow();
});

test('a blocking client waits for Redis to come back', async () => {
  const redis = await privateRedis();
  open.push(redis.stop);
  const client = connect({ url: redis.url, purpose: 'blocking', name: 'test' });
  await client.ping();
  await redis.server.kill('SIGKILL');
  await vi.waitUntil(() => client.status !== 'ready', { timeout: 5000 });
  const asked = client.ping();
  await redis.server.start();
  expect(await asked).toBe('PONG');
});

test('a subscriber hears its channels again after Redis was away', async () => {
  const redis = await privateRedis();
  open.push(redis.stop);
  const subscriber = connect({ url: redis.url, purpose: 'subscriber', name: 'test' });
  const heard: string[] = [];
  subscriber.on('message', (_channel, message) => heard.push(message));
  await subscriber.subscribe('news');
  await redis.server.kill('SIGKILL');
  await redis.server.start();

  const publisher = connect({ url: redis.url, purpose: 'blocking', name: 'test' });
  await vi.waitUntil(async () => (await publisher.publish('news', 'hello')) === 1, {
    timeout: 10_000,
  });
  await vi.waitUntil(() => heard.length > 0, { timeout: 5000 });
  expect(heard[0]).toBe('hello');
});

test('CLIENT LIST shows the name of a client', async () => {
  const { url } = await freshRedis();
  const client = connect({ url, purpose: 'commands', name: 'downlink-name-test' });
  expect(await client.client('LIST')).toContain('name=downlink-name-test');
});

test('the reconnect delay grows from 50 ms to 2 s and never leaves that range', () => {
  for (let times = 1; times < 40; times += 1) {
    expect(reconnectDelayMs(times)).toBeGreaterThanOrEqual(50);
    expect(reconnectDelayMs(times)).toBeLessThanOrEqual(2000);
  }
  expect(reconnectDelayMs(1)).toBeLessThanOrEqual(100);
  expect(reconnectDelayMs(20)).toBeGreaterThanOrEqual(1000);
});
