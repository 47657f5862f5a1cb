import { expect, it, onTestFinished } from 'vitest';
import { createKeys } from '../../src/bridge/keys.ts';
import { beatWorker, liveWorkers } from '../../src/bridge/workers.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { freshRedis } from '../support/stores.ts';

async function given() {
  const { url, prefix } = await freshRedis();
  const redis = connectRedis({ url, purpose: 'commands', name: 'workers-test' });
  onTestFinished(() => closeRedis(redis));
  const keys = createKeys(prefix, 1);
  const heardAgo = async (id: string, ms: number) => {
    const [s, us] = await redis.time();
    await redis.hset(keys.workers(), id, Math.floor(Number(s) * 1_000 + Number(us) / 1_000) - ms);
  };
  return { redis, keys, heardAgo };
}

it('a worker lives for 10 s after each of its beats', async () => {
  const { redis, keys, heardAgo } = await given();
  expect(await liveWorkers(redis, keys)).toBe(0);
  await beatWorker(redis, keys, 'one');
  await beatWorker(redis, keys, 'one');
  await heardAgo('two', 8_000);
  await heardAgo('three', 10_500);
  expect(await liveWorkers(redis, keys)).toBe(2);
});

it('workers that are long gone are forgotten', async () => {
  const { redis, keys, heardAgo } = await given();
  await heardAgo('gone', 3_601_000);
  await heardAgo('silent', 60_000);
  await beatWorker(redis, keys, 'one');
  expect((await redis.hkeys(keys.workers())).sort()).toEqual(['one', 'silent']);
});
