/** The gateway: owns the sockets of its devices, writes what workers deliver, and nothing else. */
import type { GatewayBridge } from '../bridge/gateway-bridge.ts';
import type { Log } from '../log/log.ts';
import type { Metrics } from '../metrics/metrics.ts';
import type { Protocol } from '../protocols/protocol.ts';
import { type AdmissionOptions, createAdmission } from './admission/admission.ts';
import { type BreakerChange, breakerStateCode } from './admission/breaker.ts';
import { type Clock, systemClock } from './clock.ts';
import { Connection, type ConnectionHost } from './connection.ts';
import { createCork } from './cork.ts';
import { type Counts, createCounts } from './counts.ts';
import { createDeliveries, type Deliveries } from './deliveries.ts';
import { createDoor, type Guest } from './door.ts';
import { createMetricsFeed } from './metrics-feed.ts';
import { defaultAdmission, defaultOptions, type GatewayOptions } from './options.ts';
import { createSessions, type Sessions } from './sessions.ts';
import { createThrottle } from './throttle.ts';
import { createTimerWheel } from './timer-wheel.ts';
import type { Tls } from './tls.ts';
import { createTurns } from './turns.ts';
import { createUplink } from './uplink.ts';

export type Gateway = {
  /** Takes its lease, then listens; returns the addresses. */
  start(): Promise<{ tcp: string; tls?: string }>;
  /** Takes no more connections and deliveries, lets what is in flight be answered, then lets go. */
  drain(drainMs: number): Promise<void>;
  /** Ends whatever is left and gives the lease back. */
  stop(): Promise<void>;
  /** Whether it can do its work: it listens and its bridge is alive. */
  isReady(): boolean;
  load(): GatewayLoad;
  readonly counts: Readonly<Counts>;
};

export type GatewayLoad = {
  connections: number;
  sessions: number;
  /** Deliveries that wait in lanes or for the device's answer. */
  deliveries: number;
  unsettled: number;
};

export type GatewayDeps = {
  bridge: GatewayBridge;
  protocols: readonly Protocol[];
  /** `host:port`; port 0 is chosen by the system. */
  addr: string;
  /** Other gateway processes listen on the same port. */
  reusePort?: boolean;
  tls?: { addr: string; tls: Tls };
  admission?: Partial<AdmissionOptions>;
  onBreakerChange?: (change: BreakerChange) => void;
  options?: Partial<GatewayOptions>;
  log: Log;
  metrics?: Metrics;
  clock?: Clock;
};

const SWEEP_EVERY_MS = 1_000;
const POLL_MS = 20;
/** After the last answer workers get so long to settle before their ends go to the stream. */
const SETTLE_GRACE_MS = 500;

export function createGateway(deps: GatewayDeps): Gateway {
  const { bridge, protocols, addr, log, clock = systemClock } = deps;
  const options = { ...defaultOptions, ...deps.options };
  const counts = createCounts(protocols.map(({ name }) => name));
  const connections = new Set<Connection>();
  const onError = (error: unknown) => log.error({ error }, 'timer failed');
  const wheel = createTimerWheel({ clock, onError });
  const deliveries: Deliveries = createDeliveries({
    bridge,
    protocols,
    findSession: (deviceId) => sessions.find(deviceId),
    options,
    clock,
    wheel,
    counts,
    log,
    ...(deps.metrics && {
      onWritten: (waitMs: number) => deps.metrics?.gatewayLaneWait.observe(waitMs / 1000),
    }),
  });
  const uplink = createUplink({ bridge, deliveries, options, clock, counts, log });
  const sessions: Sessions = createSessions({
    bridge,
    lanes: deliveries.lanes,
    uplink,
    options,
    clock,
    wheel,
    counts,
    log,
  });
  const turns = createTurns();
  const onBreak = createThrottle(clock);
  const host: ConnectionHost = {
    protocols,
    options,
    clock,
    wheel,
    cork: createCork(),
    turns,
    counts,
    log,
    message: (connection, message) => sessions.receive(connection, message),
    checkSessions: (connection) => sessions.check(connection),
    closed(connection, reason) {
      counts.closed[reason] += 1;
      if (log.isLevelEnabled('debug')) log.debug({ reason }, 'connection closed');
      sessions.closeAll(connection, reason);
    },
    released(connection) {
      connections.delete(connection);
      connection.ticket.release();
    },
    loggedIn: (connection) => connection.ticket.loggedIn(),
    misbehaved: (connection) => connection.ticket.strike(),
    broke(connection, error) {
      connection.ticket.failed();
      onBreak((times) => {
        log.error({ error, remote: connection.remote, times }, 'connection broke by our own fault');
      });
    },
  };
  const admission = createAdmission({
    options: { ...defaultAdmission, ...deps.admission },
    clock,
    log,
    onBreakerChange: (change) => {
      if (change.to === 'open') deps.metrics?.breakerTrips.inc();
      deps.onBreakerChange?.(change);
    },
  });
  const door = createDoor({
    addr,
    reusePort: deps.reusePort ?? false,
    ...(deps.tls && { tls: deps.tls }),
    admission,
    protocols,
    headBytes: options.headBytes,
    evictFor: (deviceId) => sessions.evictFor(deviceId),
    enter,
    counts,
    clock,
    log,
  });
  const feed = deps.metrics && createMetricsFeed({ metrics: deps.metrics, counts });
  deps.metrics?.observeTcp(() => {
    const { active, available, waiting, breakerState, breakerFailures, banned } =
      admission.snapshot();
    return {
      connections: active,
      maxConnections: active + available,
      waiting,
      breakerState: breakerStateCode[breakerState],
      breakerFailures,
      banned,
    };
  });
  let sweeping: NodeJS.Timeout | undefined;
  let allowedTold = 0;
  let draining = false;

  function enter({ socket, ticket, deviceId }: Guest): void {
    counts.accepted += 1;
    connections.add(new Connection(host, socket, ticket, deviceId));
  }

  function publish(): void {
    try {
      feed?.publish();
      const { allowed } = admission.snapshot();
      deps.metrics?.rateLimiterAllowed.inc(allowed - allowedTold);
      allowedTold = allowed;
    } catch (error) {
      onBreak((times) => log.error({ error, times }, 'counts not published'));
    }
  }

  function sweep(): void {
    deliveries.sweep();
    sessions.retryDepartures();
    publish();
  }

  function* registrations() {
    for (const { deviceId, protocol, epoch } of sessions.standing()) {
      yield { deviceId, protocol: protocol.name, epoch };
    }
  }

  async function start(): Promise<{ tcp: string; tls?: string }> {
    await bridge.start({
      deliver: (delivery) => deliveries.deliver(delivery),
      withdraw: (withdraw) => deliveries.withdraw(withdraw),
      remember: (remember) => deliveries.remember(remember),
      settled: (settled) => deliveries.settled(settled),
      evict: (evict) => sessions.evict(evict),
      sessions: registrations,
      load: () => ({ connections: connections.size, sessions: sessions.count() }),
    });
    wheel.start();
    sweeping = setInterval(sweep, SWEEP_EVERY_MS).unref();
    return door.open();
  }

  /** Resolves when it holds, or when the time is over. */
  async function until(holds: () => boolean, deadline: number): Promise<void> {
    while (!holds() && clock.ticks() < deadline) {
      await new Promise<void>((resolve) => void clock.after(POLL_MS, resolve));
    }
  }

  async function drain(drainMs: number): Promise<void> {
    if (draining) return;
    draining = true;
    const deadline = clock.ticks() + drainMs;
    door.close();
    bridge.drain();
    deliveries.drain();
    log.info({ ...load() }, 'draining');
    await until(() => deliveries.live() === 0, deadline);
    for (const connection of connections) connection.close('draining');
    const graceEnd = clock.ticks() + SETTLE_GRACE_MS;
    await until(() => deliveries.unsettled() === 0, graceEnd);
    await deliveries.keepUnsettled();
    await until(() => sessions.departing() === 0 && connections.size === 0, deadline);
    log.info({ ...load() }, 'drained');
  }

  async function stop(): Promise<void> {
    door.close();
    for (const connection of connections) {
      connection.close('draining');
      connection.destroy();
    }
    await until(() => sessions.departing() === 0, clock.ticks() + SETTLE_GRACE_MS);
    await deliveries.keepUnsettled();
    clearInterval(sweeping);
    admission.close();
    wheel.stop();
    turns.stop();
    await bridge.stop();
  }

  function load(): GatewayLoad {
    return {
      connections: connections.size,
      sessions: sessions.count(),
      deliveries: deliveries.live(),
      unsettled: deliveries.unsettled(),
    };
  }

  return {
    start,
    drain,
    stop,
    isReady: () => door.isOpen() && bridge.alive() && !draining,
    load,
    counts,
  };
}
