/**
 * Finds or starts Redis and PostgreSQL, so that a clone runs on a machine that has neither. A server
 * that happens to run on a standard port is never touched: it is somebody else's.
 */
import { DownlinkError } from '../errors.ts';
import type { Env } from './machine.ts';
import { discoverPostgres } from './postgres.ts';
import { discoverRedis } from './redis.ts';
import { type Found, type Search, type Source, sources } from './search.ts';

export type { Found, Source } from './search.ts';

export type Stores = { redis: Found; postgres: Found; stop(): Promise<void> };

export type DiscoveryOptions = {
  /** PATH, HOME and XDG_CACHE_HOME are read from it, and DOWNLINK_DISCOVERY. */
  env: Env;
  redisUrl?: string | undefined;
  databaseUrl?: string | undefined;
  /** Data are kept here between starts; without it they are temporary. */
  dataDir?: string | undefined;
  /** The stages that may serve; DOWNLINK_DISCOVERY otherwise, else all. */
  allow?: readonly Source[] | undefined;
  /** false trades the safety of data against a power loss for speed: tests only. */
  durable?: boolean;
  /** Told in a sentence before anything is downloaded or copied; standard error unless given. */
  announce?: (sentence: string) => void;
};

/** Both servers, or DISCOVERY_FAILED with what to do about it. */
export async function discover(options: DiscoveryOptions): Promise<Stores> {
  const search = searchOf(options);
  const [redis, postgres] = await Promise.allSettled([
    discoverRedis(search),
    discoverPostgres(search),
  ]);
  if (redis.status === 'fulfilled' && postgres.status === 'fulfilled') {
    const stop = async () => {
      await Promise.all([redis.value.stop(), postgres.value.stop()]);
    };
    return { redis: redis.value, postgres: postgres.value, stop };
  }
  const reasons: string[] = [];
  for (const found of [redis, postgres]) {
    if (found.status === 'fulfilled') await found.value.stop();
    else reasons.push(found.reason instanceof Error ? found.reason.message : String(found.reason));
  }
  throw new DownlinkError('DISCOVERY_FAILED', reasons.join('\n'));
}

/** Redis alone. */
export async function discoverOnlyRedis(options: DiscoveryOptions): Promise<Found> {
  return discoverRedis(searchOf(options));
}

/** PostgreSQL alone. */
export async function discoverOnlyPostgres(options: DiscoveryOptions): Promise<Found> {
  return discoverPostgres(searchOf(options));
}

function searchOf(options: DiscoveryOptions): Search {
  const { env, redisUrl, databaseUrl, dataDir, durable = true } = options;
  return {
    env,
    redisUrl,
    databaseUrl,
    dataDir,
    durable,
    allow: options.allow ?? stagesIn(env['DOWNLINK_DISCOVERY']),
    announce: options.announce ?? ((sentence) => process.stderr.write(`${sentence}\n`)),
  };
}

function stagesIn(text: string | undefined): readonly Source[] {
  const names = (text ?? '').split(',').flatMap((name) => name.trim() || []);
  if (names.length === 0) return sources;
  const unknown = names.filter((name) => !sources.some((source) => source === name));
  if (unknown.length > 0) {
    throw new DownlinkError(
      'CONFIG_INVALID',
      `DOWNLINK_DISCOVERY names ${unknown.join(', ')}; it takes ${sources.join(', ')}`,
    );
  }
  return sources.filter((source) => names.includes(source));
}
