/** The copy in Redis of the ids of all known devices, for gateways that let in nobody else. */
import type { Redis } from 'ioredis';
import { DownlinkError } from '../errors.ts';
import type { Keys } from './keys.ts';
import type { Outbox } from './outbox.ts';
import { liveGateways } from './presence.ts';
import { withBridgeScripts } from './scripts.ts';

export type KnownDevices = {
  add(deviceIds: readonly string[]): Promise<void>;
  /** A filling of the copy begins. */
  begin(): Promise<void>;
  /** The copy is whole: whoever is not in it is a stranger. Rejects when Redis lost its memory since `begin`. */
  finish(): Promise<void>;
  /** All ids of the copy, some at a time; one may come twice. */
  pieces(): AsyncIterable<string[]>;
  /** There is no copy any more. */
  clear(): Promise<void>;
};

const idsPerPiece = 500;

export function createKnownDevices(deps: { redis: Redis; keys: Keys }): KnownDevices {
  const { keys } = deps;
  const redis = withBridgeScripts(deps.redis);
  const shards = Array.from({ length: keys.shards }, (_, shard) => shard);

  return {
    async add(deviceIds) {
      const byShard = Map.groupBy(deviceIds, keys.shardOf);
      await Promise.all(
        [...byShard].map(([shard, ids]) => redis.sadd(keys.knownDevices(shard), ...ids)),
      );
    },
    async begin() {
      await Promise.all(shards.map((shard) => redis.set(keys.knownFilling(shard), 1)));
    },
    async finish() {
      const whole = await Promise.all(
        shards.map((shard) =>
          redis.dlKnownWhole(keys.knownFilling(shard), keys.knownLoaded(shard)),
        ),
      );
      if (whole.every((each) => Number(each) === 1)) return;
      throw new DownlinkError(
        'STORE_UNAVAILABLE',
        'Redis lost its memory while the known devices were copied: they are copied again',
      );
    },
    async *pieces() {
      for (const shard of shards) {
        let cursor = '0';
        do {
          const [next, ids] = await redis.sscan(
            keys.knownDevices(shard),
            cursor,
            'COUNT',
            idsPerPiece,
          );
          cursor = next;
          if (ids.length > 0) yield ids;
        } while (cursor !== '0');
      }
    },
    async clear() {
      // The mark first: a copy that is half gone must not pass for a whole one.
      await Promise.all(
        shards.map((shard) => redis.del(keys.knownLoaded(shard), keys.knownFilling(shard))),
      );
      await Promise.all(shards.map((shard) => redis.unlink(keys.knownDevices(shard))));
    },
  };
}

/** Takes a removed device out of Redis and ends its session; resolves with whether it had one. */
export type Expel = (deviceId: string) => Promise<boolean>;

export function createExpel(deps: { redis: Redis; keys: Keys; outbox: Outbox }): Expel {
  const { keys, outbox } = deps;
  const redis = withBridgeScripts(deps.redis);

  return async function expel(deviceId) {
    const [holder, epoch] = await redis.dlExpel(
      keys.presence(deviceId),
      keys.knownDevices(keys.shardOf(deviceId)),
      deviceId,
    );
    const live = await liveGateways(redis, keys);
    const evict = { t: 'evict', deviceId, epoch: Number(epoch) + 1, removed: true };
    // All of them: one that held the device before would still vouch for it while Redis is away.
    for (const gatewayId of live.keys()) outbox.send(keys.gatewayChannel(gatewayId), evict);
    return holder !== '' && live.has(holder);
  };
}
