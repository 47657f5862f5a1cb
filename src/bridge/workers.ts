/** Which workers live, for whoever asks why nothing is sent. Redis' own clock judges. */
import type { Redis } from 'ioredis';
import type { Keys } from './keys.ts';

/** A worker that was not heard for so long takes no jobs. */
const liveMs = 10_000;
/** Ids are random: those of workers that are long gone would pile up. */
const forgottenMs = 3_600_000;

/** Says that this worker takes jobs. Call it every few seconds. */
export async function beatWorker(redis: Redis, keys: Keys, workerId: string): Promise<void> {
  const { now, beats } = await readBeats(redis, keys);
  const forgotten = beats.filter(({ at }) => now - at > forgottenMs).map(({ id }) => id);
  await Promise.all([
    redis.hset(keys.workers(), workerId, now),
    forgotten.length === 0 ? 0 : redis.hdel(keys.workers(), ...forgotten),
  ]);
}

/** How many workers beat lately. */
export async function liveWorkers(redis: Redis, keys: Keys): Promise<number> {
  const { now, beats } = await readBeats(redis, keys);
  return beats.filter(({ at }) => now - at <= liveMs).length;
}

async function readBeats(redis: Redis, keys: Keys) {
  const [time, beats] = await Promise.all([redis.time(), redis.hgetall(keys.workers())]);
  return {
    now: Math.floor(Number(time[0]) * 1_000 + Number(time[1]) / 1_000),
    beats: Object.entries(beats).map(([id, at]) => ({ id, at: Number(at) })),
  };
}
