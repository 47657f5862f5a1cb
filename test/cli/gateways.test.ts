/** Several gateway processes on one port, as `downlink start` runs them. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { adminAddrsOf } from '../../src/cli/gateway-group.ts';
import { loadConfig } from '../../src/config/config.ts';
import { createFleet, type Fleet } from '../../src/simulator/fleet.ts';
import { type ApiClient, createApiClient } from '../support/api-client.ts';
import { eventually } from '../support/eventually.ts';
import { freshDatabase, freshRedis } from '../support/stores.ts';

type Printed = {
  role: string;
  pid: number;
  tcp?: string;
  tls?: string;
  admin?: string;
  http?: string;
};

type Run = {
  pid: number;
  /** Ready lines so far. */
  printed: Printed[];
  of(role: string): Printed[];
  log(): string;
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  signal(signal: NodeJS.Signals): void;
};

const program = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const key = 'admin-key-of-the-tests';
const certFile = (name: string) =>
  fileURLToPath(new URL(`../gateway/certs/${name}`, import.meta.url));
/** A process of each role, and one more gateway, start within this on a busy machine. */
const startMs = { withinMs: 60_000 };
const devices = 40;

/** `downlink` with these arguments; killed at the end of the test if it still runs. */
function run(args: readonly string[], env: Record<string, string>): Run {
  const child = spawn(process.execPath, [program, ...args], {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const printed: Printed[] = [];
  let log = '';
  createInterface({ input: child.stdout }).on('line', (line) => {
    printed.push(JSON.parse(line) as Printed);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const ended = new Promise<Awaited<Run['ended']>>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  onTestFinished(async () => {
    // what it started ends with it
    child.kill('SIGKILL');
    await ended;
    for (const { pid } of printed) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
  });
  return {
    pid: child.pid!,
    printed,
    of: (role) => printed.filter((line) => line.role === role),
    log: () => log,
    ended,
    signal: (signal) => void child.kill(signal),
  };
}

async function environment(): Promise<Record<string, string>> {
  const [redis, database] = await Promise.all([freshRedis(), freshDatabase()]);
  return {
    REDIS_URL: redis.url,
    DATABASE_URL: database.url,
    DOWNLINK_REDIS_PREFIX: redis.prefix,
    DOWNLINK_DATABASE_POOL_MIN: '1',
    DOWNLINK_DATABASE_POOL_MAX: '6',
    DOWNLINK_CONFIG: '/dev/null',
    TCP_ADDR: '127.0.0.1:0',
    HTTP_ADDR: '127.0.0.1:0',
    GATEWAY_ADMIN_ADDR: '127.0.0.1:0',
    WORKER_ADMIN_ADDR: '127.0.0.1:0',
    DOWNLINK_TCP_RATE_LIMIT: '5000',
    DOWNLINK_TCP_RATE_BURST: '5000',
    API_KEYS: `admin:${key}:read+send+admin`,
    LOG_LEVEL: 'info',
  };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function connectionsOf({ admin }: Printed): Promise<number> {
  const text = await (await fetch(`http://${admin}/metrics`)).text();
  return Number(/^tcp_connections_active (\d+)$/m.exec(text)?.[1]);
}

function portOf(addr: string | undefined): number {
  return Number(addr?.split(':').at(-1));
}

let fleet: Fleet | undefined;

afterEach(async () => {
  await fleet?.stop();
  fleet = undefined;
});

async function connectFleet(tcp: string | undefined): Promise<Fleet> {
  fleet = createFleet({
    host: '127.0.0.1',
    port: portOf(tcp),
    devices,
    mix: { bkv: 1 },
    knobs: { reconnectMs: 100, loginRepeatMs: 1_000 },
    startTimeoutMs: 15_000,
  });
  await fleet.start();
  return fleet;
}

/** Sends each device a query; the gateways that wrote them. */
async function queryAll(api: ApiClient, deviceIds: readonly string[]): Promise<Set<string>> {
  const commands = await Promise.all(
    deviceIds.map((deviceId) =>
      api.send({ deviceId, command: 'port.query', params: { socket: 1 } }, 15_000),
    ),
  );
  expect(commands.map(({ status }) => status)).toEqual(deviceIds.map(() => 'succeeded'));
  return new Set(commands.map(({ attempts }) => attempts.at(-1)!.gatewayId));
}

test('two gateways serve one port, and what one leaves behind the other and its successor take up', async () => {
  const env = await environment();
  const stack = run(['start', '--role', 'all', '--gateways', '2'], env);
  await eventually(() => expect(stack.printed, stack.log()).toHaveLength(4), startMs);
  const [one, other] = stack.of('gateway') as [Printed, Printed];
  expect(one.tcp).toBe(other.tcp);
  expect(one.admin).not.toBe(other.admin);
  expect(one.pid).not.toBe(other.pid);
  expect([stack.of('worker').length, stack.of('api').length]).toEqual([1, 1]);
  const api = createApiClient(`http://${stack.of('api')[0]!.http}`, key);

  const { deviceIds, stats } = await connectFleet(one.tcp);
  const held = await Promise.all([one, other].map(connectionsOf));
  expect(held[0]! + held[1]!).toBe(devices);
  expect(Math.min(...held)).toBeGreaterThan(0);
  expect((await queryAll(api, deviceIds)).size).toBe(2);

  process.kill(one.pid, 'SIGKILL');
  await eventually(() => expect(stats().disconnects).toBe(held[0]));
  await eventually(() => expect(stats().loggedIn).toBe(devices), { withinMs: 15_000 });
  await eventually(() => expect(stack.of('gateway')).toHaveLength(3), startMs);
  const successor = stack.of('gateway')[2]!;
  expect(successor.tcp).toBe(one.tcp);
  expect([one.pid, other.pid]).not.toContain(successor.pid);
  expect(isAlive(other.pid)).toBe(true);
  await queryAll(api, deviceIds);

  for (const deviceId of deviceIds) fleet!.device(deviceId).dropConnection();
  await eventually(async () => {
    const now = await Promise.all([successor, other].map(connectionsOf));
    expect(now[0]! + now[1]!).toBe(devices);
    expect(Math.min(...now)).toBeGreaterThan(0);
  });
  await eventually(() => expect(stats().loggedIn).toBe(devices));
  expect((await queryAll(api, deviceIds)).size).toBe(2);

  stack.signal('SIGTERM');
  expect(await stack.ended, stack.log()).toEqual({ code: 0, signal: null });
  expect(stack.printed.filter(({ pid }) => isAlive(pid))).toEqual([]);
}, 120_000);

describe('gateways alone', () => {
  test('read their certificates again when their supervisor is told to', async () => {
    const env = {
      ...(await environment()),
      TLS_ADDR: '127.0.0.1:0',
      DOWNLINK_TLS_CERT: certFile('server.pem'),
      DOWNLINK_TLS_KEY: certFile('server.key'),
    };
    const group = run(['start', '--role', 'gateway', '--gateways', '2'], env);
    await eventually(() => expect(group.printed, group.log()).toHaveLength(2), startMs);
    const [one, other] = group.printed as [Printed, Printed];
    expect(one.tls).toBe(other.tls);
    expect(one.tls).not.toBe(one.tcp);
    const loaded = () => group.log().match(/"certificate loaded"/g)?.length ?? 0;
    const before = loaded();
    group.signal('SIGHUP');
    await eventually(() => expect(loaded()).toBe(before + 2));
    expect(group.printed.filter(({ pid }) => isAlive(pid))).toHaveLength(2);
    group.signal('SIGTERM');
    expect(await group.ended, group.log()).toEqual({ code: 0, signal: null });
  }, 90_000);

  test('end at once at a second signal, whatever they still wait for', async () => {
    const env = { ...(await environment()), DOWNLINK_GATEWAY_DRAIN_MS: '600000' };
    const stack = run(['start', '--role', 'all', '--gateways', '2'], env);
    await eventually(() => expect(stack.printed, stack.log()).toHaveLength(4), startMs);
    const api = createApiClient(`http://${stack.of('api')[0]!.http}`, key);
    const [{ tcp }] = stack.of('gateway') as [Printed];
    const { deviceIds } = await connectFleet(tcp);
    fleet!.setKnobs({ ackDelayMs: 600_000 });
    // one under way on each gateway keeps both draining
    for (const deviceId of deviceIds) {
      await api.send({
        deviceId,
        command: 'port.query',
        params: { socket: 1 },
        ackTimeoutMs: 60_000,
      });
    }
    await eventually(() => expect(fleet!.stats().received).toBe(devices));
    stack.signal('SIGTERM');
    await eventually(() => expect(stack.log()).toContain('shutting down'));
    stack.signal('SIGTERM');
    expect(await stack.ended).toEqual({ code: 1, signal: null });
    // below the ten seconds after which whoever has lost its parent is killed
    const gone = () => expect(stack.printed.filter(({ pid }) => isAlive(pid))).toEqual([]);
    await eventually(gone, { withinMs: 9_000 });
  }, 90_000);

  test('leave nothing behind when one of them cannot start', async () => {
    const env = { ...(await environment()), REDIS_URL: '' };
    const group = run(['start', '--role', 'gateway', '--gateways', '2'], env);
    expect(await group.ended).toEqual({ code: 1, signal: null });
    expect(group.log()).toContain('a gateway needs REDIS_URL');
    expect(group.printed).toEqual([]);
  }, 60_000);
});

describe('the number of gateways', () => {
  test.each([
    [['--gateways', '0'], '--gateways takes a number from 1 to 64'],
    [['--gateways', '65'], '--gateways takes a number from 1 to 64'],
    [['--role', 'worker', '--gateways', '2'], 'not with --role worker'],
  ])('%j is refused with a sentence', async (args, sentence) => {
    const refused = run(['start', ...args], {});
    expect(await refused.ended).toEqual({ code: 1, signal: null });
    expect(refused.log()).toContain(sentence);
  });
});

describe('the admin addresses of several gateways', () => {
  const configured = (env: Record<string, string>) =>
    loadConfig({ env: { DOWNLINK_CONFIG: '/dev/null', ...env } });

  test.each([
    [{}, 3, [':9101', ':9103', ':9104']],
    [{ GATEWAY_ADMIN_ADDR: '[::1]:9200' }, 2, ['[::1]:9200', '[::1]:9201']],
    [{ GATEWAY_ADMIN_ADDR: '127.0.0.1:0' }, 2, ['127.0.0.1:0', '127.0.0.1:0']],
    [
      {
        GATEWAY_ADMIN_ADDR: ':7000',
        TCP_ADDR: ':7001',
        HTTP_ADDR: ':7004',
        TLS_ADDR: ':7002',
        DOWNLINK_TLS_CERT: 'cert.pem',
        DOWNLINK_TLS_KEY: 'key.pem',
      },
      3,
      [':7000', ':7003', ':7005'],
    ],
  ])('with %j, %i of them have %j', (env, count, addrs) => {
    expect(adminAddrsOf(configured(env), count)).toEqual(addrs);
  });

  test('are refused when there are no ports left', () => {
    const config = configured({ GATEWAY_ADMIN_ADDR: ':65535' });
    expect(() => adminAddrsOf(config, 2)).toThrow('leaves no ports for 2 gateways');
  });
});
