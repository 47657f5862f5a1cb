/** The API process: everything it is made of, wired by hand, closed in reverse. */
import { createHash, randomBytes } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { v7 as uuidV7 } from 'uuid';
import { createBoard } from '../../dashboard/board.ts';
import { createAccept } from '../../queues/accept.ts';
import { createOutbound } from '../../queues/outbound.ts';
import { createKeys } from '../bridge/keys.ts';
import { createPresence } from '../bridge/presence.ts';
import { ALL_INTERFACES, formatAddr, parseAddr } from '../config/addr.ts';
import { type Config, required } from '../config/config.ts';
import { connectPostgres } from '../connections/postgres.ts';
import { closeRedis, connectRedis, type RedisPurpose } from '../connections/redis.ts';
import { messageOf } from '../errors.ts';
import { createLifecycle, type Lifecycle } from '../lifecycle/lifecycle.ts';
import { printReady } from '../lifecycle/ready-line.ts';
import { createLog, type Log } from '../log/log.ts';
import { createMetrics } from '../metrics/metrics.ts';
import { protocols } from '../protocols/index.ts';
import { createDatabase } from '../store/database.ts';
import { createDeviceLookup } from '../store/device-lookup.ts';
import { createDevices } from '../store/devices.ts';
import { createLedger } from '../store/ledger.ts';
import { createApi } from './app.ts';
import { createFailures } from './failures.ts';
import { createWaits } from './waits.ts';

/** Requests under way, then the stores. */
const CLOSE_GRACE_MS = 20_000;

/** Starts an API process and prints its ready line. It ends by a signal. */
export async function runApi({ config }: { config: Config }): Promise<void> {
  const log = createLog({ level: config.log.level, role: 'api' });
  const lifecycle = createLifecycle({ log });
  lifecycle.endOnSignals({ graceMs: CLOSE_GRACE_MS });
  const { apiId, http } = await openApi({ config, log, lifecycle });
  printReady({ role: 'api', http });
  log.info({ apiId, http }, 'api ready');
}

export type OpenApiDeps = { config: Config; log: Log; lifecycle: Lifecycle };

/** Opens the API in this process; resolves with its address when it listens. */
export async function openApi({
  config,
  log,
  lifecycle,
}: OpenApiDeps): Promise<{ apiId: string; http: string }> {
  const redisUrl = required(config.redis.url, 'the api', 'REDIS_URL');
  const databaseUrl = required(config.database.url, 'the api', 'DATABASE_URL');
  const apiId = `api-${randomBytes(4).toString('hex')}`;
  const keys = createKeys(config.redis.prefix, config.outbound.shards);
  const metrics = createMetrics('api');
  const connect = (purpose: RedisPurpose) => {
    const redis = connectRedis({
      url: redisUrl,
      purpose,
      name: `${apiId}:${purpose}`,
      onError: (error) => log.debug({ client: purpose, error: messageOf(error) }, 'redis away'),
    });
    lifecycle.onClose(`redis ${purpose}`, () => closeRedis(redis));
    return redis;
  };

  const { poolMax: max, poolMin: min } = config.database;
  const pool = connectPostgres({ url: databaseUrl, applicationName: apiId, max, min, log });
  lifecycle.onClose('postgres', () => pool.end());
  metrics.observePool(pool);
  const database = createDatabase({ pool, log, metrics });
  lifecycle.onClose('database', () => database.close());
  const ledger = createLedger({ pool, log, metrics });
  lifecycle.onClose('ledger', () => ledger.close());
  const devices = createDevices({ database });
  const deviceLookup = createDeviceLookup({ devices });

  const redis = connect('commands');
  const presence = createPresence({ redis, keys });
  const outbound = createOutbound({
    redis,
    keys,
    onError: (error) => log.debug({ error: messageOf(error) }, 'queue away'),
  });
  lifecycle.onClose('queues', () => outbound.close());
  metrics.observeQueue(() => outbound.counts());

  const accept = createAccept({
    ledger,
    outbound,
    devices: deviceLookup,
    presence,
    protocols,
    log,
    newId: () => uuidV7(),
  });
  const waits = createWaits({
    redis: connect('subscriber'),
    channel: keys.apiChannel(apiId),
    ledger,
    log,
  });
  const failures = createFailures();
  const app = createApi({
    apiId,
    accept,
    ledger,
    devices,
    deviceLookup,
    presence,
    outbound,
    protocols,
    keys,
    waits,
    metrics,
    log,
    failures,
    apiKeys: config.api.keys.map(({ secret, ...key }) => ({
      ...key,
      secretSha256: sha256(secret),
    })),
    board: createBoard({
      queues: outbound.queues,
      users: config.board.users.map(({ password, ...user }) => ({
        ...user,
        passwordSha256: sha256(password),
      })),
      failures,
      log,
    }),
  });
  lifecycle.onClose('http', () => app.close());
  await waits.start();
  // Before the server, which would otherwise wait for those who wait.
  lifecycle.onClose('waits', () => waits.close());
  const { host = ALL_INTERFACES, port } = parseAddr(config.http.addr);
  await app.listen({ host, port });
  return { apiId, http: formatAddr(app.server.address() as AddressInfo) };
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
