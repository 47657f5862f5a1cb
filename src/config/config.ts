/** Configuration enters here once; everything else receives plain values. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parse } from 'yaml';
import { DownlinkError, messageOf } from '../errors.ts';
import { nearest } from './nearest.ts';
import { type Key, keys, otherVariables, settings } from './settings.ts';

export type Env = Readonly<Record<string, string | undefined>>;

export type Config = ReturnType<typeof configOf>;

export type ConfigSources = {
  /** The process's own environment unless given. */
  env?: Env;
  cwd?: string;
};

type Values = { [K in Key]: ReturnType<(typeof settings)[K]['read']> | null };
/** Where a text came from, for the sentence that refuses it. */
type Given = { text: string; origin: string };

const FILE = 'downlink.yaml';
const OWN_PREFIX = 'DOWNLINK_';

/** The only reader of the process's environment. */
export function processEnv(): Env {
  return process.env;
}

/** The file, then the environment; throws one CONFIG_INVALID that lists every fault. */
export function loadConfig({ env = processEnv(), cwd }: ConfigSources = {}): Config {
  const faults: string[] = [];
  const given = new Map<Key, Given>([
    ...fromFile(env, cwd ?? process.cwd(), faults),
    ...fromEnv(env, faults),
  ]);
  const config = configOf(valuesOf(given, faults));
  const { poolMin, poolMax } = config.database;
  if (poolMin > poolMax) {
    faults.push(`database.pool_min (${poolMin}) is more than database.pool_max (${poolMax})`);
  }
  const { addr, certFile, keyFile, caFile, clientCert, subjectDeviceId } = config.tls;
  if (addr !== undefined && !(certFile && keyFile)) {
    faults.push('tls.addr is set, so tls.cert and tls.key must name the files of the certificate');
  }
  if (clientCert !== 'none' && !caFile) {
    faults.push(`tls.client_cert is ${clientCert}, so tls.ca must name who signs the certificates`);
  }
  if (subjectDeviceId && clientCert === 'none') {
    faults.push('tls.subject_device_id needs tls.client_cert to be optional or required');
  }
  if (faults.length === 0) return config;
  const count = faults.length === 1 ? '1 fault' : `${faults.length} faults`;
  throw new DownlinkError(
    'CONFIG_INVALID',
    `the configuration has ${count}:\n${faults.map((fault) => `- ${fault}`).join('\n')}`,
    { details: { faults } },
  );
}

/** The URL of a store that a role cannot do without; throws CONFIG_INVALID when it is not set. */
export function required(value: string | undefined, role: string, variable: string): string {
  if (value) return value;
  throw new DownlinkError(
    'CONFIG_INVALID',
    `${role} needs ${variable}; set it, or run "downlink start --role all", which finds or starts both stores`,
  );
}

function fromFile(env: Env, cwd: string, faults: string[]): [Key, Given][] {
  const named = env['DOWNLINK_CONFIG'];
  const path = named || FILE;
  try {
    const document: unknown = parse(readFileSync(resolve(cwd, path), 'utf8'));
    return fromTree(document, path, faults);
  } catch (error) {
    if (!named && (error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    faults.push(`${path}: ${messageOf(error).split('\n', 1)[0]}`);
    return [];
  }
}

function fromTree(document: unknown, path: string, faults: string[]): [Key, Given][] {
  if (document === null || document === undefined) return [];
  if (!isTree(document)) {
    faults.push(`${path}: is no mapping of settings`);
    return [];
  }
  const given: [Key, Given][] = [];
  for (const [key, value] of leavesOf(document)) {
    const origin = `${path}: ${key}`;
    if (!isKey(key)) faults.push(`${origin} is no setting; the nearest is ${nearest(key, keys)}`);
    else if (value === null) continue;
    else if (isTree(value)) faults.push(`${origin} is a mapping where one value is expected`);
    else
      given.push([key, { text: Array.isArray(value) ? value.join(',') : String(value), origin }]);
  }
  return given;
}

function isTree(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Dotted keys; a mapping below a complete key stays a value, to be refused. */
function leavesOf(tree: Record<string, unknown>, prefix = ''): [string, unknown][] {
  return Object.entries(tree).flatMap(([name, value]): [string, unknown][] => {
    const key = `${prefix}${name}`;
    return isTree(value) && !isKey(key) ? leavesOf(value, `${key}.`) : [[key, value]];
  });
}

function fromEnv(env: Env, faults: string[]): [Key, Given][] {
  const byVariable = new Map<string, Key>(keys.map((key) => [settings[key].env, key]));
  const known = [...byVariable.keys(), ...Object.keys(otherVariables)];
  const given: [Key, Given][] = [];
  for (const [variable, text] of Object.entries(env)) {
    const key = byVariable.get(variable);
    if (key) {
      // A variable that is set to nothing counts as not set.
      if (text) given.push([key, { text, origin: variable }]);
    } else if (variable.startsWith(OWN_PREFIX) && !known.includes(variable)) {
      faults.push(`${variable} is no setting; the nearest is ${nearestVariable(variable, known)}`);
    }
  }
  return given;
}

/** Some variables carry our prefix and some do not: it is left out of the comparison. */
function nearestVariable(variable: string, known: readonly string[]): string | undefined {
  const bare = (name: string) => name.replace(OWN_PREFIX, '');
  const found = nearest(bare(variable), known.map(bare));
  return known.find((name) => bare(name) === found);
}

function isKey(key: string): key is Key {
  return Object.hasOwn(settings, key);
}

function valuesOf(given: ReadonlyMap<Key, Given>, faults: string[]): Values {
  const entries = keys.map((key) => {
    const { read, initial } = settings[key];
    const own = given.get(key);
    try {
      if (own) return [key, read(own.text)];
    } catch (error) {
      faults.push(`${own?.origin}: ${messageOf(error)}`);
    }
    return [key, initial === null ? null : read(initial)];
  });
  return Object.fromEntries(entries) as Values;
}

function configOf(values: Values) {
  const must = <T>(value: T | null): T => value as T;
  return {
    redis: { url: values['redis.url'] ?? undefined, prefix: must(values['redis.prefix']) },
    database: {
      url: values['database.url'] ?? undefined,
      poolMax: must(values['database.pool_max']),
      poolMin: must(values['database.pool_min']),
    },
    http: { addr: must(values['http.addr']) },
    tcp: {
      addr: must(values['tcp.addr']),
      loginTimeoutMs: must(values['tcp.login_timeout_ms']),
      idleFactor: must(values['tcp.idle_factor']),
      maxUnsentBytes: must(values['tcp.max_unsent_bytes']),
      reusePort: must(values['tcp.reuse_port']),
      maxConnections: must(values['tcp.max_connections']),
      waitMs: must(values['tcp.wait']),
      waitingRoom: must(values['tcp.waiting_room']),
      rateLimit: must(values['tcp.rate_limit']),
      rateBurst: must(values['tcp.rate_burst']),
      breaker: {
        threshold: must(values['tcp.breaker.threshold']),
        timeoutMs: must(values['tcp.breaker.timeout']),
        halfOpenMax: must(values['tcp.breaker.half_open_max']),
      },
      address: {
        maxConnections: must(values['tcp.address.max_connections']),
        rateLimit: must(values['tcp.address.rate_limit']),
      },
      ban: {
        threshold: must(values['tcp.ban.threshold']),
        windowMs: must(values['tcp.ban.window']),
        durationMs: must(values['tcp.ban.duration']),
      },
      deviceRate: must(values['tcp.device_rate']),
      deviceBurst: must(values['tcp.device_burst']),
      stallTimeoutMs: must(values['tcp.stall_timeout']),
      takeover: must(values['tcp.takeover']),
    },
    devices: { admission: must(values['devices.admission']) },
    tls: {
      addr: values['tls.addr'] ?? undefined,
      certFile: values['tls.cert'] ?? undefined,
      keyFile: values['tls.key'] ?? undefined,
      caFile: values['tls.ca'] ?? undefined,
      clientCert: must(values['tls.client_cert']),
      subjectDeviceId: must(values['tls.subject_device_id']),
    },
    alerts: {
      webhookUrl: values['alerts.webhook_url'] ?? undefined,
      coalesceMs: must(values['alerts.coalesce']),
    },
    gateway: {
      id: values['gateway.id'] ?? `gw-${randomBytes(3).toString('hex')}`,
      leaseMs: must(values['gateway.lease_ms']),
      drainMs: must(values['gateway.drain_ms']),
      adminAddr: must(values['gateway.admin_addr']),
      flushRate: must(values['gateway.flush_rate']),
    },
    worker: {
      drainMs: must(values['worker.drain_ms']),
      adminAddr: must(values['worker.admin_addr']),
    },
    outbound: {
      shards: must(values['outbound.shards']),
      concurrency: must(values['outbound.concurrency']),
      maxPerKey: must(values['outbound.max_per_key']),
      maxPerDevice: must(values['outbound.max_per_device']),
    },
    log: { level: must(values['log.level']) },
    api: { keys: must(values['api.keys']) },
    board: { users: must(values['board.users']) },
  };
}
