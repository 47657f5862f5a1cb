/** The gateway process: everything it needs, wired by hand and closed in reverse. */

import { randomBytes } from 'node:crypto';
import { createKeys } from '../bridge/keys.ts';
import { createGatewayBridge } from '../bridge/redis-gateway-bridge.ts';
import { type Config, required } from '../config/config.ts';
import { closeRedis, connectRedis, type RedisPurpose } from '../connections/redis.ts';
import { messageOf } from '../errors.ts';
import { createLifecycle, type Lifecycle, onSignal } from '../lifecycle/lifecycle.ts';
import { printReady, type ReadyLine } from '../lifecycle/ready-line.ts';
import { createLog, type Log } from '../log/log.ts';
import { createAdminServer } from '../metrics/admin-server.ts';
import { createMetrics } from '../metrics/metrics.ts';
import { createPacer } from '../pacer.ts';
import { protocols } from '../protocols/index.ts';
import { createBreakerAlert } from './admission/breaker-alert.ts';
import { systemClock } from './clock.ts';
import { createGateway } from './gateway.ts';
import { createThrottle } from './throttle.ts';
import { createTls } from './tls.ts';

export type RunningGateway = {
  ready: Extract<ReadyLine, { role: 'gateway' }>;
  close(): Promise<void>;
};

export type StartGatewayDeps = {
  config: Config;
  log?: Log;
  lifecycle?: Lifecycle;
};

/** Closers besides the gateway's own that the end of the process waits for. */
const CLOSE_GRACE_MS = 10_000;
const STOP_TIMEOUT_MS = 5_000;
/** What the flush of returning devices may run ahead of its rate: one that comes alone waits for nothing. */
const FLUSH_BURST_S = 0.05;

/** Starts a gateway in this process; resolves when devices can connect. */
export async function startGateway({ config, ...deps }: StartGatewayDeps): Promise<RunningGateway> {
  const log = deps.log ?? createLog({ level: config.log.level, role: 'gateway' });
  const lifecycle = deps.lifecycle ?? createLifecycle({ log });
  try {
    return { ready: await open(config, log, lifecycle), close: () => lifecycle.close() };
  } catch (error) {
    await lifecycle.close().catch(() => undefined);
    throw error;
  }
}

/** Runs a gateway as a process: signals end it, and one line on standard output says that it is ready. */
export async function runGateway({ config }: { config: Config }): Promise<void> {
  const log = createLog({ level: config.log.level, role: 'gateway' });
  const lifecycle = createLifecycle({ log });
  lifecycle.endOnSignals({ graceMs: config.gateway.drainMs + CLOSE_GRACE_MS });
  const { ready } = await startGateway({ config, log, lifecycle });
  printReady(ready);
  log.info({ tcp: ready.tcp, admin: ready.admin }, 'gateway ready');
}

async function open(
  config: Config,
  log: Log,
  lifecycle: Lifecycle,
): Promise<RunningGateway['ready']> {
  const url = required(config.redis.url, 'a gateway', 'REDIS_URL');
  const { prefix } = config.redis;
  // A configured name may come back after a crash; what was handed to the process before must not be
  // taken for handed to this one.
  const gatewayId = `${config.gateway.id}.${randomBytes(3).toString('hex')}`;
  const metrics = createMetrics('gateway');
  const onRedisError = createThrottle(systemClock);
  const connect = (purpose: RedisPurpose) => {
    const name = `downlink-gateway-${purpose}`;
    const onError = (error: Error) =>
      onRedisError((times) => log.warn({ name, times, error: messageOf(error) }, 'redis is away'));
    const redis = connectRedis({ url, purpose, name, onError });
    lifecycle.onClose(name, () => closeRedis(redis));
    return redis;
  };

  const { flushRate } = config.gateway;
  const flushPacer = createPacer({
    perSecond: flushRate,
    burst: Math.max(1, Math.round(flushRate * FLUSH_BURST_S)),
    clock: systemClock,
  });
  metrics.observeFlushBacklog(() => flushPacer.size());
  const bridge = createGatewayBridge({
    gatewayId,
    redis: connect('commands'),
    subscriber: connect('subscriber'),
    keys: createKeys(prefix, config.outbound.shards),
    log,
    leaseMs: config.gateway.leaseMs,
    takeover: config.tcp.takeover,
    admission: config.devices.admission,
    flushPacer,
    onMessages: (direction, count) => metrics.bridgeMessages.inc({ direction }, count),
  });
  const { webhookUrl, coalesceMs } = config.alerts;
  const alert = createBreakerAlert({
    ...(webhookUrl !== undefined && { webhookUrl }),
    coalesceMs,
    gatewayId,
    log,
    clock: systemClock,
  });
  lifecycle.onClose('breaker alert', () => alert.close());
  const { loginTimeoutMs, idleFactor, maxUnsentBytes } = config.tcp;
  const { stallTimeoutMs, deviceRate, deviceBurst, takeover } = config.tcp;
  const tls = await openTls(config, log, lifecycle);
  if (tls) metrics.observeCertificate(() => tls.tls.notAfter());
  const gateway = createGateway({
    bridge,
    protocols,
    addr: config.tcp.addr,
    reusePort: config.tcp.reusePort,
    ...(tls && { tls }),
    admission: config.tcp,
    onBreakerChange: (change) => alert.changed(change),
    options: {
      loginTimeoutMs,
      idleFactor,
      unsentBytes: maxUnsentBytes,
      stallTimeoutMs,
      deviceRate,
      deviceBurst,
      takeover,
    },
    log,
    metrics,
  });
  const admin = createAdminServer({
    addr: config.gateway.adminAddr,
    registry: metrics.registry,
    live: () => true,
    ready: async () =>
      gateway.isReady()
        ? { ready: true }
        : { ready: false, detail: 'it does not listen, it drains, or its bridge is silent' },
    log,
  });
  const adminAddr = await admin.start();
  lifecycle.onClose('admin server', () => admin.close());
  const { drainMs } = config.gateway;
  lifecycle.onClose('gateway', () => gateway.stop(), STOP_TIMEOUT_MS);
  const addrs = await gateway.start();
  lifecycle.onClose('gateway drain', () => gateway.drain(drainMs), drainMs + STOP_TIMEOUT_MS);
  return { role: 'gateway', ...addrs, admin: adminAddr };
}

/** The TLS port's certificates, read now and again at every SIGHUP; undefined when it is not configured. */
async function openTls(config: Config, log: Log, lifecycle: Lifecycle) {
  const { addr, certFile, keyFile, caFile, clientCert, subjectDeviceId } = config.tls;
  if (addr === undefined) return undefined;
  const tls = createTls({
    certFile: required(certFile, 'a gateway with tls.addr', 'DOWNLINK_TLS_CERT'),
    keyFile: required(keyFile, 'a gateway with tls.addr', 'DOWNLINK_TLS_KEY'),
    ...(caFile !== undefined && { caFile }),
    clientCert,
    subjectDeviceId,
    handshakeTimeoutMs: config.tcp.loginTimeoutMs,
    log,
  });
  await tls.load();
  lifecycle.onClose(
    'certificate reload',
    onSignal('SIGHUP', () => void tls.reload()),
  );
  return { addr, tls };
}
