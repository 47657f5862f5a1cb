/** Every metric of every process; the only maker of prom-client instruments. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export type { Registry } from 'prom-client';

/** A process exposes what it moves itself; `all` is one process that is everything. */
export type Role = 'api' | 'worker' | 'gateway' | 'all';

export type Metrics = ReturnType<typeof createMetrics>;

export type QueueSizes = { waiting: number; pending: number; dead: number };
export type PoolSizes = { totalCount: number; idleCount: number; waitingCount: number };

/** The state of a gateway's door. */
export type TcpReading = {
  connections: number;
  maxConnections: number;
  waiting: number;
  /** 0 closed, 1 open, 2 half-open. */
  breakerState: number;
  breakerFailures: number;
  banned: number;
};

const tcpGauges = [
  ['connections', 'tcp_connections_active', 'Open connections of devices.'],
  ['maxConnections', 'tcp_connections_max', 'Connections the gateway takes at a time.'],
  ['waiting', 'tcp_connections_waiting', 'Connections that wait for a place.'],
  ['breakerState', 'circuit_breaker_state', '0 closed, 1 open, 2 half-open.'],
  ['breakerFailures', 'circuit_breaker_failures', 'Failures the circuit breaker counts now.'],
  ['banned', 'tcp_addresses_banned', 'Addresses that are refused for a while.'],
] as const satisfies readonly (readonly [keyof TcpReading, string, string])[];

/** Devices answer in seconds, the rest happens in milliseconds. */
const DELIVERY_BUCKETS_S = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60,
];
const QUERY_BUCKETS_S = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5];
const BATCH_BUCKETS_ROWS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000];
/** A store that does not answer must not hold up the whole scrape. */
const OBSERVE_TIMEOUT_MS = 2_000;

// Labels never carry a device or a command: their number is without bound.
export function createMetrics(role: Role) {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  /** An instrument of another role still counts, but is not exposed. */
  const of = (...roles: readonly Role[]) => ({
    registers: role === 'all' || roles.includes(role) ? [registry] : [],
  });

  return {
    registry,

    outboundSent: new Counter({
      name: 'outbound_sent_total',
      help: 'Frames of commands that a gateway handed to a socket.',
      ...of('worker'),
    }),
    outboundCompleted: new Counter({
      name: 'outbound_completed_total',
      help: 'Commands that a worker ended otherwise than as failed or unknown; cancels by the API are not in it.',
      ...of('worker'),
    }),
    outboundFailed: new Counter({
      name: 'outbound_failed_total',
      help: 'Commands that a worker ended as failed or unknown.',
      ...of('worker'),
    }),
    outboundTimeout: new Counter({
      name: 'outbound_timeout_total',
      help: 'Attempts whose device did not answer in time.',
      ...of('worker'),
    }),
    outboundErrors: new Counter({
      name: 'outbound_errors_total',
      help: 'Attempts that ended without an answer of the device, by outcome.',
      labelNames: ['type'],
      ...of('worker'),
    }),
    outboundLateAcks: new Counter({
      name: 'outbound_late_acks_total',
      help: 'Answers that came after their attempt was given up.',
      ...of('worker'),
    }),
    outboundSendLatency: new Histogram({
      name: 'outbound_send_latency_seconds',
      help: 'From the moment a command was due to its frame on the socket.',
      buckets: DELIVERY_BUCKETS_S,
      ...of('worker'),
    }),
    outboundAckLatency: new Histogram({
      name: 'outbound_ack_latency_seconds',
      help: "From the frame on the socket to the device's answer.",
      buckets: DELIVERY_BUCKETS_S,
      ...of('worker'),
    }),

    scheduleTicks: new Counter({
      name: 'schedule_ticks_total',
      help: 'Ticks of schedules that came due, by their end: accepted, repeated, refused, missed, gone, invalid.',
      labelNames: ['end'],
      ...of('worker'),
    }),

    gatewayFrames: new Counter({
      name: 'gateway_frames_total',
      help: 'Frames read from (in) and written to (out) devices.',
      labelNames: ['direction', 'protocol', 'command'],
      ...of('gateway'),
    }),
    tcpAccepted: new Counter({
      name: 'tcp_connections_accepted_total',
      help: 'Connections that were let in.',
      ...of('gateway'),
    }),
    tcpRejected: new Counter({
      name: 'tcp_connections_rejected',
      help: 'Connections that were refused before they were handled, by reason.',
      labelNames: ['reason'],
      ...of('gateway'),
    }),
    tcpClosed: new Counter({
      name: 'tcp_connections_closed_total',
      help: 'Connections that ended, by reason.',
      labelNames: ['reason'],
      ...of('gateway'),
    }),
    tcpThrottled: new Counter({
      name: 'tcp_throttled_total',
      help: 'Pauses in reading devices that send faster than they may.',
      ...of('gateway'),
    }),
    tcpBytes: new Counter({
      name: 'tcp_bytes_total',
      help: 'Bytes read from (in) and handed to (out) sockets of devices.',
      labelNames: ['direction'],
      ...of('gateway'),
    }),
    rateLimiterAllowed: new Counter({
      name: 'rate_limiter_allowed',
      help: 'New connections that the rate limit let pass.',
      ...of('gateway'),
    }),
    breakerTrips: new Counter({
      name: 'circuit_breaker_trips',
      help: 'Times the circuit breaker opened.',
      ...of('gateway'),
    }),
    gatewayLoginFailures: new Counter({
      name: 'gateway_login_failures_total',
      help: 'Connections and devices that did not get in, by reason.',
      labelNames: ['reason'],
      ...of('gateway'),
    }),
    gatewayTakeovers: new Counter({
      name: 'gateway_takeovers_total',
      help: 'Devices whose session a newer connection took over.',
      ...of('gateway'),
    }),
    gatewayLaneWait: new Histogram({
      name: 'gateway_lane_wait_seconds',
      help: 'From the arrival of a delivery at its gateway to its frame on the socket.',
      buckets: DELIVERY_BUCKETS_S,
      ...of('gateway'),
    }),
    gatewayDecodeErrors: new Counter({
      name: 'gateway_decode_errors_total',
      help: 'Bytes that were no valid frame, or frames that were no valid message.',
      labelNames: ['reason'],
      ...of('gateway'),
    }),
    bridgeMessages: new Counter({
      name: 'bridge_messages_total',
      help: 'Messages between workers and gateways, as this process sent (out) or got (in) them.',
      labelNames: ['direction'],
      ...of('gateway', 'worker'),
    }),
    uplinkReports: new Counter({
      name: 'uplink_reports_total',
      help: 'Reports of devices this process handled, by weight.',
      labelNames: ['weight'],
      ...of('gateway', 'worker'),
    }),

    httpRequestDuration: new Histogram({
      name: 'http_request_duration_seconds',
      help: 'Time to answer a request of the API.',
      labelNames: ['route', 'method', 'status'],
      buckets: QUERY_BUCKETS_S,
      ...of('api'),
    }),
    dbQueryLatency: new Histogram({
      name: 'db_query_latency_seconds',
      help: 'Time of a statement, by its name.',
      labelNames: ['query'],
      buckets: QUERY_BUCKETS_S,
      ...of('api', 'worker'),
    }),
    deviceLookups: new Counter({
      name: 'device_lookup_total',
      help: 'Lookups of devices: from memory (hit), read (miss), or outdated while PostgreSQL is away (stale).',
      labelNames: ['result'],
      ...of('api', 'worker'),
    }),
    ledgerBatchRows: new Histogram({
      name: 'ledger_batch_rows',
      help: 'Rows one statement wrote to the ledger.',
      buckets: BATCH_BUCKETS_ROWS,
      ...of('api', 'worker'),
    }),

    /** Exposes the queue's sizes, asked at every scrape. */
    observeQueue(read: () => Promise<QueueSizes>) {
      const sizes = oncePerScrape(read);
      const gauge = (name: string, help: string, pick: (sizes: QueueSizes) => number) =>
        observed(registry, name, help, async () => pick(await sizes()));
      gauge('outbound_queue_size', 'Commands that wait, delayed and parked ones included.', (s) => {
        return s.waiting;
      });
      gauge('outbound_pending_size', 'Commands being sent, or sent and not yet answered.', (s) => {
        return s.pending;
      });
      gauge('outbound_dead_size', 'Commands that ended as failed or unknown and are kept.', (s) => {
        return s.dead;
      });
    },
    /** Exposes what a gateway holds and lets in, asked at every scrape. */
    observeTcp(read: () => TcpReading) {
      for (const [field, name, help] of tcpGauges) {
        observed(registry, name, help, async () => read()[field]);
      }
    },
    /** Exposes when the certificate that devices are shown ends; NaN without one. */
    observeCertificate(readNotAfterMs: () => number | null) {
      const help = 'When the certificate of the TLS port ends, Unix seconds.';
      observed(registry, 'tcp_tls_not_after_seconds', help, async () => {
        return (readNotAfterMs() ?? Number.NaN) / 1000;
      });
    },
    /** Exposes how many devices that came back wait for their slot, asked at every scrape. */
    observeFlushBacklog(read: () => number) {
      const help = 'Devices that came back to parked commands and wait for their slot.';
      observed(registry, 'gateway_flush_backlog', help, async () => read());
    },
    /** Exposes what the remembered devices take, asked at every scrape. */
    observeDeviceLookup(lookup: { readonly bytes: number }) {
      const help = 'Bytes that the remembered devices take, estimated.';
      observed(registry, 'device_lookup_bytes', help, async () => lookup.bytes);
    },
    /** Exposes a PostgreSQL pool, asked at every scrape. */
    observePool(pool: PoolSizes) {
      new Gauge({
        name: 'db_pool_connections',
        help: 'Connections of the pool that are acquired or idle, and callers waiting for one.',
        labelNames: ['state'],
        registers: [registry],
        collect() {
          this.set({ state: 'acquired' }, pool.totalCount - pool.idleCount);
          this.set({ state: 'idle' }, pool.idleCount);
          this.set({ state: 'waiting' }, pool.waitingCount);
        },
      });
    },
  };
}

/** A gauge that is read at scrape time; NaN when it cannot be, so that the rest is still told. */
function observed(registry: Registry, name: string, help: string, read: () => Promise<number>) {
  return new Gauge({
    name,
    help,
    registers: [registry],
    async collect() {
      this.set(await bounded(read()).catch(() => Number.NaN));
    },
  });
}

/** Several gauges of one scrape share one reading. */
function oncePerScrape<T>(read: () => Promise<T>): () => Promise<T> {
  let reading: Promise<T> | undefined;
  return () => {
    reading ??= read().finally(() => {
      reading = undefined;
    });
    return reading;
  };
}

function bounded<T>(reading: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new Error(`no reading within ${OBSERVE_TIMEOUT_MS} ms`)),
      OBSERVE_TIMEOUT_MS,
    );
  });
  return Promise.race([reading, timeout]).finally(() => clearTimeout(timer));
}
