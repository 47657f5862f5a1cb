/** A real worker on real stores, and a gateway on the real bridge that does with deliveries what the test says. */
import { v7 as uuidV7 } from 'uuid';
import { onTestFinished } from 'vitest';
import { joinOf } from '../../queues/line.ts';
import { createOutbound } from '../../queues/outbound.ts';
import type { GatewayBridge } from '../../src/bridge/gateway-bridge.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import type { Delivery } from '../../src/bridge/messages.ts';
import { createGatewayBridge } from '../../src/bridge/redis-gateway-bridge.ts';
import { createRoutes } from '../../src/bridge/routes.ts';
import type { CommandRecord } from '../../src/command.ts';
import { closeRedis, connectRedis, type RedisPurpose } from '../../src/connections/redis.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import type { Outcome } from '../../src/outcome.ts';
import { protocolNamed, protocols } from '../../src/protocols/index.ts';
import { createDatabase } from '../../src/store/database.ts';
import { createDevices } from '../../src/store/devices.ts';
import type { PostgresLedger } from '../../src/store/ledger.ts';
import { createOrders } from '../../src/store/orders.ts';
import { createPauses } from '../../src/store/pauses.ts';
import { createPorts } from '../../src/store/ports.ts';
import { createReports } from '../../src/store/reports.ts';
import { createOutboundWorker } from '../../workers/worker.ts';
import { freshLedger, quietLog as log } from '../store/fixture.ts';
import { newRecord } from '../store/records.ts';
import { freshRedis } from '../support/stores.ts';

export const deviceId = '82200520004869';
const caps = { maxPerKey: 50, maxPerDevice: 500 };

type WorkerRigOptions = {
  /** What the gateway does with a delivery; nothing unless told. */
  play?: (delivery: Delivery, gateway: GatewayBridge) => void;
  /** The ledger as the worker has it. */
  asSeen?: (ledger: PostgresLedger) => PostgresLedger;
  shards?: number;
};

/** Everything is closed when the test ends. The device is online. */
export async function startWorkerRig({
  play,
  asSeen = (all) => all,
  shards = 1,
}: WorkerRigOptions = {}) {
  const { ledger, pool } = await freshLedger();
  const { url, prefix } = await freshRedis();
  const keys = createKeys(prefix, shards);
  const database = createDatabase({ pool });
  function connect(purpose: RedisPurpose) {
    const client = connectRedis({ url, purpose, name: 'promises', onError: () => undefined });
    onTestFinished(() => closeRedis(client));
    return client;
  }
  const redis = connect('commands');
  const outbound = createOutbound({ redis, keys, onError: () => undefined });
  onTestFinished(() => outbound.close());
  const routes = createRoutes({ redis, keys, log });

  const heard: Delivery[] = [];
  const gateway = createGatewayBridge({
    gatewayId: 'gateway-1',
    redis: connect('commands'),
    subscriber: connect('subscriber'),
    keys,
    log,
  });
  await gateway.start({
    deliver(delivery) {
      heard.push(delivery);
      play?.(delivery, gateway);
    },
    withdraw: () => undefined,
    settled: () => undefined,
    remember: () => undefined,
    evict: () => undefined,
    sessions: () => [],
    load: () => ({ connections: 1, sessions: 1 }),
  });
  onTestFinished(() => gateway.stop());
  await gateway.login(deviceId, 'bkv');

  const worker = createOutboundWorker({
    workerId: `worker-${uuidV7().slice(-8)}`,
    keys,
    redis,
    subscriber: connect('subscriber'),
    blocking: () => connect('blocking'),
    outbound,
    ledger: asSeen(ledger),
    devices: createDevices({ database }),
    reports: createReports({ database }),
    ports: createPorts({ database }),
    orders: createOrders({ database }),
    pauses: createPauses({ database }),
    protocols,
    flushRate: 500,
    onRedisReplaced: () => undefined,
    metrics: createMetrics('worker'),
    log,
    concurrency: 100,
    caps,
  });
  let stopped: Promise<void> | undefined;
  const stop = () => {
    stopped ??= worker.stop(200);
    return stopped;
  };
  onTestFinished(stop);

  return {
    ledger,
    outbound,
    routes,
    redis,
    keys,
    gateway,
    /** Deliveries that reached the gateway. */
    heard,
    start: () => worker.start(),
    stop,
    /** Stores the command as accept does. */
    async accept(wanted: Partial<CommandRecord> = {}): Promise<CommandRecord> {
      const record = newRecord({
        command: 'port.query',
        params: { socket: 1 },
        orderKey: null,
        onAmbiguous: 'resend',
        backoffMs: 20,
        ...wanted,
      });
      const spec = protocolNamed(record.protocol)!.commands[record.command]!;
      const joined = await routes.join(joinOf(record, spec, 'accept', caps));
      const blocked = joined.kind === 'joined' && joined.blockedBy !== null;
      await Promise.all([ledger.write(record), outbound.enqueue({ command: record, blocked })]);
      return record;
    },
    async stateOf({ id }: { id: string }): Promise<string | undefined> {
      return (await outbound.inspect(deviceId, id))?.state;
    },
  };
}

/** The device's answer, a moment after the write. */
export function acked(at = Date.now()): Outcome {
  return { kind: 'acked', result: {}, writtenAt: at - 5, endedAt: at, frameIn: 'fcfe' };
}
