/** The worker process without its surroundings: consumers of the outbound queue and the duties beside them. */
import { Worker } from 'bullmq';
import type { Redis } from 'ioredis';
import { atMost } from '../queues/bounded.ts';
import type { OutboundJob } from '../queues/job.ts';
import { keepCompleted, keepFailed } from '../queues/job.ts';
import { createJoin } from '../queues/join.ts';
import type { Caps } from '../queues/line.ts';
import type { RedisOutbound } from '../queues/outbound.ts';
import { createSupersede } from '../queues/supersede.ts';
import { createTakeBack } from '../queues/take-back.ts';
import type { Keys } from '../src/bridge/keys.ts';
import { createExpel, createKnownDevices } from '../src/bridge/known-devices.ts';
import { wholeLane } from '../src/bridge/messages.ts';
import { createOutbox } from '../src/bridge/outbox.ts';
import { createRoutes } from '../src/bridge/routes.ts';
import { withBridgeScripts } from '../src/bridge/scripts.ts';
import { createStreamReader } from '../src/bridge/stream-reader.ts';
import { createWorkerBridge } from '../src/bridge/worker-bridge.ts';
import { createRedisWatch } from '../src/connections/redis-watch.ts';
import { messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import type { Outcome } from '../src/outcome.ts';
import type { Protocol } from '../src/protocols/protocol.ts';
import type { Devices, Ledger, Pauses, Reports } from '../src/store/contract.ts';
import type { Orders, Ports } from '../src/store/device-data.ts';
import type { DeviceIds } from '../src/store/device-ids.ts';
import type { Retention } from '../src/store/retention.ts';
import { createJobRemoval } from './dead-letters.ts';
import { createDuties, type Duties } from './duties.ts';
import { createFindRoute } from './find-route.ts';
import { createForeignEnds } from './foreign-ends.ts';
import { createGuard } from './guard.ts';
import { createKnownCopy, onlyKnown } from './known-devices.ts';
import { createLineKeeper } from './line-keeper.ts';
import { createOutboundProcessor } from './outbound.ts';
import { createOutcomes } from './outcomes.ts';
import { createParking } from './parking.ts';
import { createPauseRenewal } from './pause-renewal.ts';
import { createProber } from './probe.ts';
import { createReaper, youngMs } from './reaper.ts';
import { createRecorder } from './recorder.ts';
import { createRemoval } from './retention.ts';
import { createSend } from './send.ts';
import { backoffOf, createSettle, settledBy } from './settle.ts';
import { createSettlements } from './settlements.ts';
import { createSweeper } from './sweeper.ts';
import { createUplinkWriter } from './uplink-writer.ts';
import { createWindow } from './window.ts';

export type WorkerDeps = {
  workerId: string;
  keys: Keys;
  /** Fails fast while Redis is away. */
  redis: Redis;
  subscriber: Redis;
  /** Makes a client that waits for Redis for ever; the caller closes it. */
  blocking(name: string): Redis;
  outbound: RedisOutbound;
  ledger: Ledger & Retention;
  devices: Devices;
  /** Where only known devices may log in: their ids. */
  known?: DeviceIds;
  reports: Reports;
  ports: Ports;
  orders: Orders;
  pauses: Pauses;
  protocols: readonly Protocol[];
  /** Devices a second whose parked commands are let go when all are woken. */
  flushRate: number;
  /** Redis lost its memory. */
  onRedisReplaced(): void;
  metrics: Metrics;
  log: Log;
  /** Jobs in hand at once, per shard: most of them wait for their device's answer. */
  concurrency: number;
  /** How many commands may wait in a line, and for a device. */
  caps: Caps;
  now?: () => number;
};

const settings = {
  lockDuration: 10_000,
  stalledInterval: 5_000,
  runRetryDelay: 1_000,
  // The count is never reset, so any limit would fail a command at some later crash; the TTL bounds it.
  maxStalledCount: 1_000_000,
  drainDelay: 5,
} as const;

/** Jobs of one shard that are on their way to their device at once. */
const windowSize = 192;
/** Longer than a read of a stream takes. */
const closeWithinMs = 3_000;
/**
 * BullMQ's main loop notices a raised concurrency only when a job ends, and here all of them may be waiting
 * for devices. `Worker.resume()` wakes it in the same way; nothing public does.
 */
function takeMore(consumer: Worker): void {
  const { mainLoopQueue } = consumer as unknown as {
    mainLoopQueue: { add(job: Promise<undefined>): void } | null;
  };
  mainLoopQueue?.add(Promise.resolve(undefined));
}

export function createOutboundWorker(deps: WorkerDeps) {
  const { workerId, keys, subscriber, outbound, ledger, metrics, log, concurrency, caps } = deps;
  const { protocols } = deps;
  const now = deps.now ?? Date.now;
  const redis = withBridgeScripts(deps.redis);
  const closing = new AbortController();
  const consumers: Worker<OutboundJob>[] = [];

  const recorder = createRecorder({ ledger, redis, keys, protocols, log, closing: closing.signal });
  const { untilDone } = recorder;
  const routes = createRoutes({ redis, keys, log });
  const parking = createParking({
    redis,
    routes,
    keys,
    outbound,
    flushRate: deps.flushRate,
    untilDone,
    log,
    now,
  });
  const bridge = createWorkerBridge({
    workerId,
    redis,
    subscriber,
    keys,
    log,
    now,
    onWake: parking.wakeDevice,
    onBack: () => duties.redisBack(),
    onOrphan: ({ id, outcome }: { id: string; outcome: Outcome }) => {
      // The gateway keeps it until it is called settled, then puts it into the stream.
      log.debug({ commandId: id, outcome: outcome.kind }, 'an end nobody waits for');
    },
    onMessages: (direction, count) => metrics.bridgeMessages.inc({ direction }, count),
  });
  const watch = createRedisWatch({
    redis,
    memoryKey: keys.memory(),
    now,
    // Again later: what was accepted just before was too young for the first look.
    onReplaced: () => {
      duties.redisReplaced(youngMs + 1_000);
      deps.onRedisReplaced();
    },
  });
  const guard = createGuard({
    ledger,
    redisStartedAt: () => untilDone(() => watch.startedAt()),
    log,
    now,
  });
  const window = createWindow({
    size: Math.min(windowSize, concurrency),
    max: concurrency,
    shardOf: keys.shardOf,
    setConcurrency: (shard, jobs) => {
      const consumer = consumers[shard];
      if (!consumer) return;
      const more = jobs > consumer.concurrency;
      consumer.concurrency = jobs;
      if (more) takeMore(consumer);
    },
  });
  const { withdrawals } = bridge;
  const join = createJoin({ routes, ledger });
  const supersede = createSupersede({ routes, withdrawals, outbound, log });
  const findRoute = createFindRoute({ routes, join, supersede, recorder, caps, now });
  const { reports } = deps;
  const prober = createProber({ routes, bridge, recorder, ledger, reports, log, now });
  const send = createSend({ bridge, findRoute, prober, recorder, metrics, window, now });
  const settle = createSettle({ bridge, routes, recorder, parking, metrics, now });
  const { shardOf } = keys;
  const process = createOutboundProcessor({ shardOf, guard, send, settle, window, log });

  const outcomes = createOutcomes({
    redis,
    keys,
    bridge,
    routes,
    ledger,
    outbound,
    recorder,
    metrics,
    log,
    now,
  });
  const settlements = createSettlements({ ledger, log });
  const uplink = createUplinkWriter({
    ...deps,
    devices: deps.known ? onlyKnown(deps.devices, deps.known) : deps.devices,
    log,
  });
  const readers = [
    { stream: keys.outcomes(), handle: outcomes.handle },
    { stream: keys.settlements(), handle: settlements.handle },
    { stream: keys.uplink(), handle: uplink.handle },
  ].map(({ stream, handle }) =>
    createStreamReader({
      redis: deps.blocking(`stream:${stream}`),
      stream,
      group: 'workers',
      consumer: workerId,
      handle,
      log,
    }),
  );

  const reaper = createReaper({
    redis,
    keys,
    routes,
    ledger,
    outbound,
    supersede,
    recorder,
    caps,
    log,
    now,
  });
  const { pauses } = deps;
  const takeBack = createTakeBack({
    outbound,
    routes,
    ledger,
    protocols,
    notify: recorder.notifyWaiter,
    now,
  });
  const sweeper = createSweeper({ redis, keys, ledger, routes, takeBack, metrics, log, now });
  const knownDevices = createKnownDevices({ redis, keys });
  const expel = createExpel({ redis, keys, outbox: createOutbox({ redis, from: workerId }) });
  let forgotten = false;

  /** A copy from a time when only known devices could log in would be too old for the next such time. */
  async function forgetKnown(): Promise<void> {
    if (!forgotten) await knownDevices.clear();
    forgotten = true;
  }
  const onResumed = (deviceId: string) => parking.wakeDevice(deviceId, wholeLane, null);
  const duties: Duties = createDuties({
    workerId,
    keys,
    scripts: redis,
    log,
    reaper,
    wakeAll: parking.wakeAll,
    sweep: sweeper,
    keepLines: createLineKeeper({ redis, keys, ledger, outbound, routes, log, now }),
    renewPauses: createPauseRenewal({ pauses, routes, onResumed, log }),
    copyKnown: deps.known
      ? createKnownCopy({ deviceIds: deps.known, known: knownDevices, expel, log })
      : forgetKnown,
    removeRows: createRemoval({ retention: ledger, log, now }),
    removeJobs: createJobRemoval({ outbound, log, now }),
  });
  const foreignEnds = createForeignEnds({ routes, outbound, recorder, log, now });

  function consume(shard: number): Worker<OutboundJob> {
    const worker = new Worker<OutboundJob>(
      keys.queueName(shard),
      (job, token) => process(shard, job, token),
      {
        ...settings,
        connection: deps.blocking(`outbound:${shard}`),
        prefix: keys.queuePrefix(shard),
        concurrency: Math.min(windowSize, concurrency),
        removeOnComplete: keepCompleted,
        removeOnFail: keepFailed,
        settings: { backoffStrategy: (_made, _type, error) => backoffOf(error) },
      },
    );
    worker.on('error', (error) => log.warn({ shard, error: messageOf(error) }, 'queue error'));
    worker.on('lockRenewalFailed', (ids) => bridge.abandon(ids));
    worker.on('failed', (job, error) => {
      if (!job || settledBy(error)) return;
      void foreignEnds.settle(job, error);
    });
    return worker;
  }

  return {
    bridge,
    routes,
    async start(): Promise<void> {
      watch.start();
      window.start();
      await bridge.start();
      await Promise.all(readers.map((reader) => reader.start()));
      duties.start();
      for (let shard = 0; shard < keys.shards; shard += 1) consumers.push(consume(shard));
      await Promise.all(consumers.map((worker) => worker.waitUntilReady()));
    },
    /** Takes no more jobs and waits for those in hand; after `ms` they are left to another worker. */
    async stop(ms: number): Promise<void> {
      await duties.close();
      const timer = setTimeout(() => closing.abort(), ms);
      await Promise.race([
        Promise.all(consumers.map((worker) => worker.close())),
        new Promise((resolve) => closing.signal.addEventListener('abort', resolve, { once: true })),
      ]);
      clearTimeout(timer);
      closing.abort();
      // While Redis is away these would wait for it; what they hold is safe in its streams.
      await atMost(Promise.all(readers.map((reader) => reader.close())), closeWithinMs);
      outcomes.close();
      parking.close();
      await ledger.flush().catch(() => undefined);
      await atMost(bridge.stop(), 1_000);
      watch.stop();
      window.stop();
    },
  };
}
