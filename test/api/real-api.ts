/** The routes that operators use, over real stores, with a key of every kind. */
import { v7 as uuidV7 } from 'uuid';
import { onTestFinished } from 'vitest';
import { createBoard } from '../../dashboard/board.ts';
import { createBoardRetry } from '../../dashboard/retry.ts';
import { createOutbound } from '../../queues/outbound.ts';
import { createScheduleQueue } from '../../queues/schedules.ts';
import { createApi } from '../../src/api/app.ts';
import { createFailures } from '../../src/api/failures.ts';
import { createUseCases } from '../../src/api/use-cases.ts';
import { createWaits } from '../../src/api/waits.ts';
import { createDeviceChanges } from '../../src/bridge/device-changes.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import { createExpel, createKnownDevices } from '../../src/bridge/known-devices.ts';
import { createOutbox } from '../../src/bridge/outbox.ts';
import { createPresence, liveGateways } from '../../src/bridge/presence.ts';
import { createRoutes } from '../../src/bridge/routes.ts';
import { liveWorkers } from '../../src/bridge/workers.ts';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { createLog, type Log } from '../../src/log/log.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import { protocols } from '../../src/protocols/index.ts';
import { createCommandLog } from '../../src/store/command-log.ts';
import type { Ledger } from '../../src/store/contract.ts';
import { createDatabase } from '../../src/store/database.ts';
import { createDeviceIds } from '../../src/store/device-ids.ts';
import { createDeviceLookup } from '../../src/store/device-lookup.ts';
import { createDevices } from '../../src/store/devices.ts';
import { createLedger } from '../../src/store/ledger.ts';
import { createOrders } from '../../src/store/orders.ts';
import { createPauses } from '../../src/store/pauses.ts';
import { createPorts } from '../../src/store/ports.ts';
import { createSchedules } from '../../src/store/schedules.ts';
import { freshDatabase, freshRedis } from '../support/stores.ts';
import { bkvId, caller, secrets, sha256 } from './build.ts';

export type Instead = {
  /** What the board reads dead commands from. */
  boardLedger?: Pick<Ledger, 'find'>;
  boardLog?: Log;
};

/** Ended with the test that asked. One known device, no gateway and no worker. */
export async function realApi({ boardLedger, boardLog }: Instead = {}) {
  const [{ url, prefix }, { url: databaseUrl }] = await Promise.all([
    freshRedis(),
    freshDatabase(),
  ]);
  const log = createLog({ level: 'silent', role: 'test' });
  const keys = createKeys(prefix, 2);
  const redis = connectRedis({ url, purpose: 'commands', name: 'api-test' });
  const pool = connectPostgres({ url: databaseUrl, applicationName: 'api-test', max: 6 });
  const database = createDatabase({ pool });
  const ledger = createLedger({ pool, log });
  const outbound = createOutbound({ redis, keys, onError: () => undefined });
  const devices = createDevices({ database });
  const deviceLookup = createDeviceLookup({ devices });
  const presence = createPresence({ redis, keys });
  const routes = createRoutes({ redis, keys, log });
  const pauses = createPauses({ database });
  const scheduleQueue = createScheduleQueue({ redis, keys, onError: () => undefined });
  const outbox = createOutbox({ redis, from: 'api-test' });
  const channel = keys.deviceChangesChannel();
  const deviceChanges = createDeviceChanges({ redis, channel, from: 'api-test', log });
  const ports = createPorts({ database });
  const orders = createOrders({ database });
  const commandLog = createCommandLog({ database });
  const known = createKnownDevices({ redis, keys });
  const useCases = createUseCases({
    ledger,
    outbound,
    routes,
    // Nothing is ever with a gateway here.
    withdrawals: { withdraw: async () => 'silent', receive: () => false },
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
    caps: { maxPerKey: 50, maxPerDevice: 500 },
    log,
    newId: () => uuidV7(),
    notify: () => undefined,
    endsTravel: async () => false,
    liveGateways: () => liveGateways(redis, keys),
    liveWorkers: () => liveWorkers(redis, keys),
  });
  const failures = createFailures();
  const app = createApi({
    apiId: 'api-test',
    useCases,
    ledger,
    devices,
    ports,
    orders,
    commandLog,
    admit: (deviceId) => known.add([deviceId]),
    presence,
    pauses,
    schedules: createSchedules({ database }),
    scheduleQueue,
    outbound,
    protocols,
    // Nobody waits in these tests, so it never listens.
    waits: createWaits({ redis, channel: 'nobody', ledger, log }),
    metrics: createMetrics('api'),
    log,
    failures,
    apiKeys: Object.entries(secrets).map(([name, secret]) => ({
      name,
      secretSha256: sha256(secret),
      scopes: name === 'admin' ? ['admin'] : name === 'send' ? ['send'] : ['read'],
    })),
    board: createBoard({
      queues: outbound.queues,
      users: [{ name: 'ada', passwordSha256: sha256('may:act'), role: 'admin' }],
      retry: createBoardRetry({ ledger: boardLedger ?? ledger, replay: useCases.replay }),
      failures,
      log: boardLog ?? log,
    }),
  });
  onTestFinished(async () => {
    await app.close();
    await Promise.all([outbound.close(), scheduleQueue.close()]);
    await ledger.close();
    database.close();
    await pool.end();
    deviceChanges.close();
    await closeRedis(redis);
  });
  await devices.register(bkvId, 'bkv');
  return {
    app,
    call: caller(app),
    redis,
    keys,
    ledger,
    devices,
    ports,
    orders,
    commandLog,
    presence,
    pool,
    deviceLookup,
    outbound,
    routes,
    pauses,
    accept: useCases.accept,
    redisUrl: url,
  };
}

export type RealApi = Awaited<ReturnType<typeof realApi>>;
