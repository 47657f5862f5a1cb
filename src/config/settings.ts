/** Every setting: its key, its environment variable, its default and what it is for. */
import { logLevels } from '../log/log.ts';
import {
  addr,
  apiKeys,
  boardUsers,
  decimal,
  duration,
  flag,
  name,
  oneOf,
  url,
  whole,
} from './readers.ts';

export type Setting<T> = {
  env: string;
  /** The text of the default; null: unset. */
  initial: string | null;
  about: string;
  read: (text: string) => T;
};

const DAY_MS = 86_400_000;

/** What a gateway allows a connection, unless told otherwise. */
export const tcpDefaults = {
  loginTimeoutMs: 10_000,
  idleFactor: 2.5,
  maxUnsentBytes: 65_536,
  stallTimeoutMs: 15_000,
  deviceRate: 20,
  deviceBurst: 200,
} as const;

function setting<T>(read: (text: string) => T, env: string, initial: string | null, about: string) {
  return { env, initial, about, read } satisfies Setting<T>;
}

export const settings = {
  'redis.url': setting(
    url('redis', 'rediss'),
    'REDIS_URL',
    null,
    'Redis. Unset: a private one is found or started.',
  ),
  'redis.prefix': setting(
    name,
    'DOWNLINK_REDIS_PREFIX',
    'dl',
    'Begins every key and channel; two installations on one Redis differ in it.',
  ),
  'database.url': setting(
    url('postgres', 'postgresql'),
    'DATABASE_URL',
    null,
    'PostgreSQL. Unset: a private one is found or started.',
  ),
  'database.pool_max': setting(
    whole(1, 1000),
    'DOWNLINK_DATABASE_POOL_MAX',
    '20',
    'Connections a process opens at most.',
  ),
  'database.pool_min': setting(
    whole(0, 1000),
    'DOWNLINK_DATABASE_POOL_MIN',
    '5',
    'Connections a process keeps open.',
  ),
  'http.addr': setting(addr, 'HTTP_ADDR', ':8080', 'Where the API listens. Port 0: any free one.'),
  'tcp.addr': setting(addr, 'TCP_ADDR', ':9999', 'Where the gateway listens for devices.'),
  'tcp.login_timeout_ms': setting(
    whole(100, DAY_MS),
    'DOWNLINK_TCP_LOGIN_TIMEOUT_MS',
    String(tcpDefaults.loginTimeoutMs),
    'A connection without a login is closed after that; the plain text of a modem extends it.',
  ),
  'tcp.idle_factor': setting(
    decimal(1, 100),
    'DOWNLINK_TCP_IDLE_FACTOR',
    String(tcpDefaults.idleFactor),
    "A silent connection is closed after so many of its protocol's heartbeats.",
  ),
  'tcp.max_unsent_bytes': setting(
    whole(1024, 1_073_741_824),
    'DOWNLINK_TCP_MAX_UNSENT_BYTES',
    String(tcpDefaults.maxUnsentBytes),
    'A connection that reads so slowly that more bytes wait for it is closed.',
  ),
  'tcp.reuse_port': setting(
    flag,
    'DOWNLINK_TCP_REUSE_PORT',
    'false',
    'Several gateway processes share the port; the system spreads the connections over them.',
  ),
  'tcp.max_connections': setting(
    whole(1, 1_000_000),
    'DOWNLINK_TCP_MAX_CONNECTIONS',
    '10000',
    'Connections of a gateway process at a time; more wait for a place.',
  ),
  'tcp.wait': setting(
    duration(0, DAY_MS),
    'DOWNLINK_TCP_WAIT',
    '5s',
    'How long a connection waits for a place before it is refused.',
  ),
  'tcp.waiting_room': setting(
    whole(0, 100_000),
    'DOWNLINK_TCP_WAITING_ROOM',
    '256',
    'Connections that may wait for a place at a time; more are refused at once.',
  ),
  'tcp.rate_limit': setting(
    whole(1, 1_000_000),
    'DOWNLINK_TCP_RATE_LIMIT',
    '100',
    'New connections a second; more are refused.',
  ),
  'tcp.rate_burst': setting(
    whole(1, 1_000_000),
    'DOWNLINK_TCP_RATE_BURST',
    '200',
    'New connections that may come at once after a quiet moment.',
  ),
  'tcp.breaker.threshold': setting(
    whole(1, 1_000_000),
    'DOWNLINK_TCP_BREAKER_THRESHOLD',
    '50',
    'Failures of our own, while handling connections, that open the circuit breaker.',
  ),
  'tcp.breaker.timeout': setting(
    duration(1, DAY_MS),
    'DOWNLINK_TCP_BREAKER_TIMEOUT',
    '30s',
    'How long an open breaker refuses connections before it tries a few.',
  ),
  'tcp.breaker.half_open_max': setting(
    whole(1, 1_000),
    'DOWNLINK_TCP_BREAKER_HALF_OPEN_MAX',
    '5',
    'Connections that a half-open breaker tries.',
  ),
  'tcp.address.max_connections': setting(
    whole(0, 1_000_000),
    'DOWNLINK_TCP_ADDRESS_MAX_CONNECTIONS',
    '0',
    'Connections of one address at a time. 0: no limit; many devices sit behind one carrier address.',
  ),
  'tcp.address.rate_limit': setting(
    whole(0, 1_000_000),
    'DOWNLINK_TCP_ADDRESS_RATE_LIMIT',
    '0',
    'New connections a second of one address. 0: no limit.',
  ),
  'tcp.ban.threshold': setting(
    whole(0, 1_000_000),
    'DOWNLINK_TCP_BAN_THRESHOLD',
    '20',
    'Connections of one address that ended in garbage or without a login, with none logged in, before it is refused for a while. 0: never.',
  ),
  'tcp.ban.window': setting(
    duration(1, DAY_MS),
    'DOWNLINK_TCP_BAN_WINDOW',
    '60s',
    'Time within which they count.',
  ),
  'tcp.ban.duration': setting(
    duration(1, DAY_MS),
    'DOWNLINK_TCP_BAN_DURATION',
    '60s',
    'How long such an address is refused.',
  ),
  'tcp.device_rate': setting(
    whole(1, 1_000_000),
    'DOWNLINK_TCP_DEVICE_RATE',
    String(tcpDefaults.deviceRate),
    'Frames a second that are read of a device; one that sends more is read more slowly.',
  ),
  'tcp.device_burst': setting(
    whole(1, 1_000_000),
    'DOWNLINK_TCP_DEVICE_BURST',
    String(tcpDefaults.deviceBurst),
    'Frames that a device may send at once after a quiet moment.',
  ),
  'tcp.stall_timeout': setting(
    duration(100, DAY_MS),
    'DOWNLINK_TCP_STALL_TIMEOUT',
    `${tcpDefaults.stallTimeoutMs / 1000}s`,
    'A connection that takes none of the bytes written to it for so long is closed.',
  ),
  'tcp.takeover': setting(
    oneOf(['newest', 'deny']),
    'DOWNLINK_TCP_TAKEOVER',
    'newest',
    'Who keeps a device id that logs in twice: the newest connection, or the one that has it.',
  ),
  'devices.admission': setting(
    oneOf(['open', 'known']),
    'DOWNLINK_DEVICES_ADMISSION',
    'open',
    'Whether any device may log in, or only those that are registered or were seen before.',
  ),
  'tls.addr': setting(
    addr,
    'TLS_ADDR',
    null,
    'Where the gateway listens for devices that speak TLS. Unset: nowhere.',
  ),
  'tls.cert': setting(
    String,
    'DOWNLINK_TLS_CERT',
    null,
    'PEM file of the certificate chain; read again on SIGHUP.',
  ),
  'tls.key': setting(
    String,
    'DOWNLINK_TLS_KEY',
    null,
    'PEM file of its private key; read again on SIGHUP.',
  ),
  'tls.ca': setting(
    String,
    'DOWNLINK_TLS_CA',
    null,
    'PEM file of the authorities that sign client certificates; read again on SIGHUP.',
  ),
  'tls.client_cert': setting(
    oneOf(['none', 'optional', 'required']),
    'DOWNLINK_TLS_CLIENT_CERT',
    'none',
    'Whether devices show a certificate.',
  ),
  'tls.subject_device_id': setting(
    flag,
    'DOWNLINK_TLS_SUBJECT_DEVICE_ID',
    'false',
    "Whether the common name of a device's certificate is the only device id it may use.",
  ),
  'alerts.webhook_url': setting(
    url('http', 'https'),
    'DOWNLINK_ALERTS_WEBHOOK_URL',
    null,
    'Gets a POST with JSON when a circuit breaker opens.',
  ),
  'alerts.coalesce': setting(
    duration(0, DAY_MS),
    'DOWNLINK_ALERTS_COALESCE',
    '5m',
    'Further openings within that time are told in one message at its end.',
  ),
  'gateway.id': setting(
    name,
    'DOWNLINK_GATEWAY_ID',
    null,
    'Name of the gateway process, unique among them. Unset: a random one.',
  ),
  'gateway.lease_ms': setting(
    whole(500, DAY_MS),
    'DOWNLINK_GATEWAY_LEASE_MS',
    '10000',
    'A gateway that was silent for so long counts as gone, and its devices as offline.',
  ),
  'gateway.drain_ms': setting(
    whole(0, DAY_MS),
    'DOWNLINK_GATEWAY_DRAIN_MS',
    '15000',
    'How long a gateway that shuts down waits for answers under way.',
  ),
  'gateway.admin_addr': setting(
    addr,
    'GATEWAY_ADMIN_ADDR',
    ':9101',
    'Metrics and health of the gateway.',
  ),
  'gateway.flush_rate': setting(
    whole(1, 1_000_000),
    'DOWNLINK_GATEWAY_FLUSH_RATE',
    '500',
    'Devices a second whose parked commands a gateway lets go when they return; the most urgent first.',
  ),
  'worker.drain_ms': setting(
    whole(0, DAY_MS),
    'DOWNLINK_WORKER_DRAIN_MS',
    '20000',
    'How long a worker that shuts down waits for commands under way.',
  ),
  'worker.admin_addr': setting(
    addr,
    'WORKER_ADMIN_ADDR',
    ':9102',
    'Metrics and health of the worker.',
  ),
  'outbound.shards': setting(
    whole(1, 256),
    'DOWNLINK_OUTBOUND_SHARDS',
    '4',
    'Queues the devices are spread over; the same in every process.',
  ),
  'outbound.concurrency': setting(
    whole(1, 100_000),
    'DOWNLINK_OUTBOUND_CONCURRENCY',
    '2000',
    'Commands of one queue that a worker has under way at most.',
  ),
  'outbound.max_per_key': setting(
    whole(1, 10_000),
    'DOWNLINK_OUTBOUND_MAX_PER_KEY',
    '50',
    'Unfinished commands of one order key of a device; a stop is never refused for it.',
  ),
  'outbound.max_per_device': setting(
    whole(1, 100_000),
    'DOWNLINK_OUTBOUND_MAX_PER_DEVICE',
    '500',
    'Commands that may wait for one device; a stop is never refused for it.',
  ),
  'log.level': setting(oneOf(logLevels), 'LOG_LEVEL', 'info', `One of ${logLevels.join(', ')}.`),
  'api.keys': setting(
    apiKeys,
    'API_KEYS',
    '',
    'name:secret:scope+scope,…; scopes read, send, admin; a secret has 16 characters or more.',
  ),
  'board.users': setting(
    boardUsers,
    'BOARD_USERS',
    '',
    'name:password:role,…; roles viewer, admin. Empty: the board lets nobody in.',
  ),
} as const;

export type Key = keyof typeof settings;

/** Variables that are read elsewhere: where the file lies, which ways to find the stores are allowed. */
export const otherVariables: Record<string, string> = {
  DOWNLINK_CONFIG: 'Path of the configuration file; ./downlink.yaml otherwise, if it is there.',
  DOWNLINK_DISCOVERY: 'Allowed ways to find Redis and PostgreSQL: url,system,packages.',
};

export const keys = Object.keys(settings) as Key[];
