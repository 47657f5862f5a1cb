/** The worker process: everything it is made of, wired by hand, closed in reverse. */
import { randomBytes } from 'node:crypto';
import { v7 as uuidV7 } from 'uuid';
import { createAccept } from '../queues/accept.ts';
import { createOutbound } from '../queues/outbound.ts';
import { createScheduleQueue } from '../queues/schedules.ts';
import { createDeviceChanges, createDeviceChangesListener } from '../src/bridge/device-changes.ts';
import { createKeys } from '../src/bridge/keys.ts';
import { createPresence } from '../src/bridge/presence.ts';
import { withBridgeScripts } from '../src/bridge/scripts.ts';
import { type Config, required } from '../src/config/config.ts';
import { connectPostgres } from '../src/connections/postgres.ts';
import { closeRedis, connectRedis, type RedisPurpose } from '../src/connections/redis.ts';
import { messageOf } from '../src/errors.ts';
import { createLifecycle } from '../src/lifecycle/lifecycle.ts';
import { printReady } from '../src/lifecycle/ready-line.ts';
import { createLog } from '../src/log/log.ts';
import { createAdminServer } from '../src/metrics/admin-server.ts';
import { createMetrics } from '../src/metrics/metrics.ts';
import { protocols } from '../src/protocols/index.ts';
import { createDatabase } from '../src/store/database.ts';
import { createDeviceIds } from '../src/store/device-ids.ts';
import { createDeviceLookup } from '../src/store/device-lookup.ts';
import { createDevices } from '../src/store/devices.ts';
import { createLedger } from '../src/store/ledger.ts';
import { createOrders } from '../src/store/orders.ts';
import { createPauses } from '../src/store/pauses.ts';
import { createPorts } from '../src/store/ports.ts';
import { createReports } from '../src/store/reports.ts';
import { createSchedules } from '../src/store/schedules.ts';
import { announcingNews } from './device-news.ts';
import { createDuty } from './lease.ts';
import { createScheduleConsumer } from './schedules.ts';
import { createOutboundWorker } from './worker.ts';

/** What is left of the drain time once the last job is given up. */
const closingMs = 5_000;
const reconcileEveryMs = 60_000;

/** Runs a worker as a process: signals end it, and one line on standard output says that it is ready. */
export async function runWorker({ config }: { config: Config }): Promise<void> {
  const log = createLog({ level: config.log.level, role: 'worker' });
  const metrics = createMetrics('worker');
  const lifecycle = createLifecycle({ log });
  lifecycle.endOnSignals({ graceMs: config.worker.drainMs + 2 * closingMs });

  const redisUrl = required(config.redis.url, 'a worker', 'REDIS_URL');
  const databaseUrl = required(config.database.url, 'a worker', 'DATABASE_URL');
  const workerId = `worker-${randomBytes(4).toString('hex')}`;
  const keys = createKeys(config.redis.prefix, config.outbound.shards);
  const connect = (purpose: RedisPurpose, name: string) => {
    const redis = connectRedis({
      url: redisUrl,
      purpose,
      name: `${workerId}:${name}`,
      onError: (error) => log.debug({ client: name, error: messageOf(error) }, 'redis away'),
    });
    lifecycle.onClose(`redis ${name}`, () => closeRedis(redis));
    return redis;
  };

  const { poolMax: max, poolMin: min } = config.database;
  const pool = connectPostgres({ url: databaseUrl, applicationName: workerId, max, min, log });
  lifecycle.onClose('postgres', () => pool.end());
  metrics.observePool(pool);
  const database = createDatabase({ pool, metrics });
  // One writer: with two the batches are half as long, and cost more than they gain.
  const ledger = createLedger({ pool, log, metrics, writers: 1 });
  lifecycle.onClose('ledger', () => ledger.close());

  const redis = connect('commands', 'commands');
  const outbound = createOutbound({
    redis,
    keys,
    onError: (error) => log.debug({ error: messageOf(error) }, 'queue away'),
  });
  lifecycle.onClose('queues', () => outbound.close());
  metrics.observeQueue(() => outbound.counts());

  let redisReplaced: () => void = () => undefined;
  const devices = createDevices({ database });
  const deviceIds = createDeviceIds({ database });
  const changes = { channel: keys.deviceChangesChannel(), from: workerId, log };
  const deviceChanges = createDeviceChanges({ ...changes, redis });
  lifecycle.onClose('device changes', async () => deviceChanges.close());
  const onlyKnown = config.devices.admission === 'known';
  const pauses = createPauses({ database });
  const worker = createOutboundWorker({
    workerId,
    keys,
    redis,
    subscriber: connect('subscriber', 'bridge'),
    blocking: (name) => connect('blocking', name),
    outbound,
    ledger,
    // Where only known devices may log in, a sighting makes none known.
    devices: onlyKnown ? devices : announcingNews({ devices, deviceIds, changes: deviceChanges }),
    ...(onlyKnown && { known: deviceIds }),
    reports: createReports({ database }),
    ports: createPorts({ database }),
    orders: createOrders({ database }),
    pauses,
    protocols,
    flushRate: config.gateway.flushRate,
    onRedisReplaced: () => redisReplaced(),
    metrics,
    log,
    concurrency: config.outbound.concurrency,
    caps: config.outbound,
  });
  // Rows of a day that has no place of its own yet are kept too, but have to be moved later.
  await ledger.makeLogDays({ now: Date.now() }).catch((error) => {
    log.warn({ error: messageOf(error) }, 'days of the command log not made ahead');
  });
  await worker.start();
  // After its clients were made, so that it closes before them: jobs in hand need them to end.
  lifecycle.onClose(
    'worker',
    () => worker.stop(config.worker.drainMs),
    config.worker.drainMs + closingMs,
  );

  const deviceLookup = createDeviceLookup({ devices, metrics });
  metrics.observeDeviceLookup(deviceLookup);
  const changeListener = createDeviceChangesListener({
    ...changes,
    redis: connect('subscriber', 'device changes'),
    lookup: deviceLookup,
  });
  await changeListener.start();
  lifecycle.onClose('changes of devices', () => changeListener.close());
  const scheduleQueue = createScheduleQueue({
    redis,
    keys,
    onError: (error) => log.debug({ error: messageOf(error) }, 'schedules away'),
  });
  lifecycle.onClose('schedule queue', () => scheduleQueue.close());
  const schedules = createScheduleConsumer({
    keys,
    blocking: connect('blocking', 'schedules'),
    queue: scheduleQueue,
    schedules: createSchedules({ database }),
    accept: createAccept({
      ledger,
      outbound,
      routes: worker.routes,
      withdrawals: worker.bridge.withdrawals,
      caps: config.outbound,
      devices: deviceLookup,
      presence: createPresence({ redis, keys }),
      protocols,
      log,
      newId: () => uuidV7(),
    }),
    metrics,
    log,
  });
  await schedules.start();
  const reconciling = createDuty({
    name: 'schedules',
    lease: keys.lease('schedules'),
    holder: workerId,
    scripts: withBridgeScripts(redis),
    everyMs: reconcileEveryMs,
    firstMs: 0,
    work: schedules.reconcile,
    log,
  });
  reconciling.start();
  redisReplaced = () => reconciling.now();
  lifecycle.onClose('schedules', async () => {
    await reconciling.close();
    await schedules.stop(closingMs);
  });

  const admin = createAdminServer({
    addr: config.worker.adminAddr,
    registry: metrics.registry,
    live: () => true,
    ready: async () =>
      worker.bridge.alive() && redis.status === 'ready'
        ? { ready: true }
        : { ready: false, detail: 'the bridge to the gateways is silent' },
    log,
  });
  lifecycle.onClose('admin server', () => admin.close());
  printReady({ role: 'worker', admin: await admin.start() });
}
