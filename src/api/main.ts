/** The API process: everything it is made of, wired by hand, closed in reverse. */
import { createHash, randomBytes } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { v7 as uuidV7 } from 'uuid';
import { createBoard } from '../../dashboard/board.ts';
import { createBoardRetry } from '../../dashboard/retry.ts';
import { createOutbound } from '../../queues/outbound.ts';
import { createScheduleQueue } from '../../queues/schedules.ts';
import { createDeviceChanges, createDeviceChangesListener } from '../bridge/device-changes.ts';
import { createKeys } from '../bridge/keys.ts';
import { createExpel, createKnownDevices } from '../bridge/known-devices.ts';
import { createOutbox } from '../bridge/outbox.ts';
import { createPresence, liveGateways } from '../bridge/presence.ts';
import { createRoutes } from '../bridge/routes.ts';
import { createWithdrawalListener } from '../bridge/withdrawal-listener.ts';
import { createWithdrawals } from '../bridge/withdrawals.ts';
import { liveWorkers } from '../bridge/workers.ts';
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
import { createCommandLog } from '../store/command-log.ts';
import { createDatabase } from '../store/database.ts';
import { createDeviceIds } from '../store/device-ids.ts';
import { createDeviceLookup } from '../store/device-lookup.ts';
import { createDevices } from '../store/devices.ts';
import { createLedger } from '../store/ledger.ts';
import { createOrders } from '../store/orders.ts';
import { createPauses } from '../store/pauses.ts';
import { createPorts } from '../store/ports.ts';
import { createSchedules } from '../store/schedules.ts';
import { createApi } from './app.ts';
import { createFailures } from './failures.ts';
import { createUseCases } from './use-cases.ts';
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
  const deviceLookup = createDeviceLookup({ devices, metrics });
  metrics.observeDeviceLookup(deviceLookup);

  const redis = connect('commands');
  const presence = createPresence({ redis, keys });
  const outbound = createOutbound({
    redis,
    keys,
    onError: (error) => log.debug({ error: messageOf(error) }, 'queue away'),
  });
  lifecycle.onClose('queues', () => outbound.close());
  metrics.observeQueue(() => outbound.counts());

  const outbox = createOutbox({ redis, from: apiId });
  const subscriber = connect('subscriber');
  const changes = { channel: keys.deviceChangesChannel(), from: apiId, log };
  const deviceChanges = createDeviceChanges({ ...changes, redis });
  lifecycle.onClose('device changes', async () => deviceChanges.close());
  const answers = createWithdrawals({ from: apiId, outbox, keys });
  const pauses = createPauses({ database });
  const scheduleQueue = createScheduleQueue({
    redis,
    keys,
    onError: (error) => log.debug({ error: messageOf(error) }, 'schedules away'),
  });
  lifecycle.onClose('schedule queue', () => scheduleQueue.close());
  const useCases = createUseCases({
    ledger,
    outbound,
    routes: createRoutes({ redis, keys, log }),
    withdrawals: answers,
    outbox,
    devices,
    deviceLookup,
    deviceChanges,
    deviceIds: createDeviceIds({ database }),
    expel: createExpel({ redis, keys, outbox }),
    presence,
    pauses,
    protocols,
    keys,
    caps: config.outbound,
    log,
    newId: () => uuidV7(),
    notify: ({ id, waiter }) => {
      if (waiter === null) return;
      redis.publish(keys.apiChannel(waiter), JSON.stringify({ id })).catch(() => undefined);
    },
    endsTravel: async () => (await redis.xlen(keys.settlements())) > 0,
    liveGateways: () => liveGateways(redis, keys),
    liveWorkers: () => liveWorkers(redis, keys),
  });
  const waits = createWaits({
    redis: subscriber,
    channel: keys.apiChannel(apiId),
    ledger,
    log,
  });
  const failures = createFailures();
  const known = createKnownDevices({ redis, keys });
  const app = createApi({
    apiId,
    useCases,
    ledger,
    devices,
    ports: createPorts({ database }),
    orders: createOrders({ database }),
    commandLog: createCommandLog({ database }),
    ...(config.devices.admission === 'known' && {
      admit: (deviceId: string) => known.add([deviceId]),
    }),
    presence,
    pauses,
    schedules: createSchedules({ database }),
    scheduleQueue,
    outbound,
    protocols,
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
      retry: createBoardRetry({ ledger, replay: useCases.replay }),
      users: config.board.users.map(({ password, ...user }) => ({
        ...user,
        passwordSha256: sha256(password),
      })),
      failures,
      log,
    }),
  });
  lifecycle.onClose('http', () => app.close());
  const listener = createWithdrawalListener({
    redis: subscriber,
    channel: keys.workerChannel(apiId),
    withdrawals: answers,
    log,
  });
  const changeListener = createDeviceChangesListener({
    ...changes,
    redis: subscriber,
    lookup: deviceLookup,
  });
  await Promise.all([waits.start(), listener.start(), changeListener.start()]);
  lifecycle.onClose('changes of devices', () => changeListener.close());
  lifecycle.onClose('withdrawals', () => listener.close());
  // Before the server, which would otherwise wait for those who wait.
  lifecycle.onClose('waits', () => waits.close());
  const { host = ALL_INTERFACES, port } = parseAddr(config.http.addr);
  await app.listen({ host, port });
  return { apiId, http: formatAddr(app.server.address() as AddressInfo) };
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
