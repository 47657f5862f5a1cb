/** Which gateway holds a device's session, and which gateways live: the reading side. */
import type { Redis } from 'ioredis';
import type { Keys } from './keys.ts';

export type Presence = {
  gatewayId: string;
  epoch: number;
  protocol: string;
};

export type PresenceReader = {
  /** The presence, or null when the device is not connected to a gateway that lives. */
  find(deviceId: string): Promise<Presence | null>;
  findMany(deviceIds: readonly string[]): Promise<Map<string, Presence>>;
};

/** What a gateway writes into the directory of gateways with every heartbeat. */
export type GatewayBeat = {
  gatewayId: string;
  /** Redis time, Unix milliseconds. */
  at: number;
  leaseMs: number;
  connections: number;
  sessions: number;
  draining: boolean;
};

/** All gateways that beat within their lease, judged by Redis' own clock. */
export async function liveGateways(redis: Redis, keys: Keys): Promise<Map<string, GatewayBeat>> {
  const [time, entries] = await Promise.all([redis.time(), redis.hgetall(keys.gateways())]);
  const now = Number(time[0]) * 1000 + Number(time[1]) / 1000;
  const live = new Map<string, GatewayBeat>();
  for (const [gatewayId, text] of Object.entries(entries)) {
    const beat = parseBeat(gatewayId, text);
    if (beat && now - beat.at <= beat.leaseMs) live.set(gatewayId, beat);
  }
  return live;
}

function parseBeat(gatewayId: string, text: string): GatewayBeat | null {
  try {
    const value = JSON.parse(text) as Partial<GatewayBeat> | null;
    if (typeof value?.at !== 'number' || typeof value.leaseMs !== 'number') return null;
    return {
      gatewayId,
      at: value.at,
      leaseMs: value.leaseMs,
      connections: Number(value.connections ?? 0),
      sessions: Number(value.sessions ?? 0),
      draining: value.draining === true,
    };
  } catch {
    return null;
  }
}

const directoryMs = 1_000;

export type Directory = {
  /** The gateways that lived within the last second. */
  gateways(): Promise<ReadonlyMap<string, GatewayBeat>>;
  /** Whether it lives; one that was not there a moment ago is looked for again. */
  isLive(gatewayId: string): Promise<boolean>;
};

/** The directory of gateways, read at most once a second, and by all who ask meanwhile at once. */
export function createDirectory({ redis, keys }: { redis: Redis; keys: Keys }): Directory {
  let directory: Promise<Map<string, GatewayBeat>> | undefined;
  let readAt = 0;
  let reading = false;

  function read(): Promise<Map<string, GatewayBeat>> {
    readAt = performance.now();
    reading = true;
    const asked = liveGateways(redis, keys).finally(() => {
      reading = false;
    });
    directory = asked;
    asked.catch(() => {
      if (directory === asked) directory = undefined;
    });
    return asked;
  }

  function gateways(): Promise<Map<string, GatewayBeat>> {
    return directory && performance.now() - readAt <= directoryMs ? directory : read();
  }

  return {
    gateways,
    async isLive(gatewayId) {
      const askedAt = performance.now();
      if ((await gateways()).has(gatewayId)) return true;
      if (readAt >= askedAt) return false;
      return (await (reading && directory ? directory : read())).has(gatewayId);
    },
  };
}

/** Reads presences. */
export function createPresence({ redis, keys }: { redis: Redis; keys: Keys }): PresenceReader {
  const { gateways } = createDirectory({ redis, keys });

  async function findMany(deviceIds: readonly string[]): Promise<Map<string, Presence>> {
    const found = new Map<string, Presence>();
    if (deviceIds.length === 0) return found;
    const [live, ...rows] = await Promise.all([
      gateways(),
      ...deviceIds.map((id) => redis.hmget(keys.presence(id), 'gatewayId', 'epoch', 'protocol')),
    ]);
    for (const [index, [gatewayId, epoch, protocol]] of rows.entries()) {
      if (!gatewayId || !protocol || !live.has(gatewayId)) continue;
      found.set(deviceIds[index]!, { gatewayId, epoch: Number(epoch), protocol });
    }
    return found;
  }

  return {
    findMany,
    find: async (deviceId) => (await findMany([deviceId])).get(deviceId) ?? null,
  };
}
