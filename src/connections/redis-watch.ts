/** Since when the Redis server has been running, and whether it still remembers what it was told. */
import type { Redis } from 'ioredis';

export type RedisWatch = {
  /** Unix milliseconds, known anew after every reconnect. Rejects while Redis is away. */
  startedAt(): Promise<number>;
  start(): void;
  stop(): void;
};

export type RedisWatchDeps = {
  redis: Redis;
  /** Set once; its absence later means that Redis lost its memory. */
  memoryKey: string;
  /** The server is another one than before, restarted or replaced, or it was flushed. */
  onReplaced(): void;
  now?: () => number;
};

const lookEveryMs = 2_000;
/** The server tells its uptime in whole seconds. */
const uptimeGrainMs = 1_000;

export function createRedisWatch(deps: RedisWatchDeps): RedisWatch {
  const { redis, memoryKey, onReplaced, now = Date.now } = deps;
  let runId = '';
  let known: Promise<number> | undefined;
  let timer: NodeJS.Timeout | undefined;

  async function look(): Promise<number> {
    const info = await redis.info('server');
    const found = /run_id:(\w+)/.exec(info)?.[1] ?? '';
    const uptimeS = Number(/uptime_in_seconds:(\d+)/.exec(info)?.[1] ?? 0);
    const forgot = (await redis.set(memoryKey, found, 'NX')) === 'OK';
    const replaced = runId !== '' && (found !== runId || forgot);
    runId = found;
    if (replaced) onReplaced();
    return now() - uptimeS * 1000 + uptimeGrainMs;
  }

  function startedAt(): Promise<number> {
    if (!known) {
      known = look();
      known.catch(forget);
    }
    return known;
  }

  function forget(): void {
    known = undefined;
  }

  return {
    startedAt,
    start() {
      redis.on('close', forget);
      // Behind a proxy or a failover the server may change while the connection stands.
      timer = setInterval(() => void look().catch(forget), lookEveryMs);
      timer.unref();
    },
    stop() {
      redis.off('close', forget);
      clearInterval(timer);
    },
  };
}
