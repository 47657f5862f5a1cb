/** A gateway process that is told to end while commands are under way. */
import { afterEach, expect, test } from 'vitest';
import { type RoleProcess, startRole } from '../../src/cli/role-process.ts';
import { type RemoteFleet, startRemoteFleet } from '../../src/simulator/remote.ts';
import { eventually } from '../support/eventually.ts';
import { type Stack, startStack } from '../support/stack.ts';

const deviceCount = 20;
const drainMs = 10_000;
const ids = Array.from({ length: deviceCount }, (_, n) => `8220052000${4000 + n}`);
/** 0008 07, socket 1, port 0, on, by time, 60 minutes: in a start's frame and no other of this run. */
const startCommand = '00080701000101003c';
const devices = ids.map((deviceId) => ({ deviceId, protocol: 'bkv' as const }));

let stack: Stack | undefined;
let fleet: RemoteFleet | undefined;
let second: RoleProcess | undefined;
let log = '';

afterEach(async () => {
  await fleet?.stop().catch(() => undefined);
  await second?.end('SIGKILL');
  await stack?.stop();
  [fleet, second, stack] = [undefined, undefined, undefined];
  log = '';
});

/** A second gateway on the same port; `own` gives it a port of its own. */
async function gateway(given: { own?: boolean; drain: number }): Promise<RoleProcess> {
  const { host, port } = stack!.tcp;
  second = await startRole({
    role: 'gateway',
    env: {
      PATH: process.env['PATH'],
      REDIS_URL: stack!.redisUrl,
      DOWNLINK_REDIS_PREFIX: stack!.prefix,
      DOWNLINK_GATEWAY_ID: 'leaving',
      DOWNLINK_GATEWAY_DRAIN_MS: String(given.drain),
      DOWNLINK_TCP_REUSE_PORT: 'true',
      TCP_ADDR: given.own ? '127.0.0.1:0' : `${host}:${port}`,
      GATEWAY_ADMIN_ADDR: '127.0.0.1:0',
      LOG_LEVEL: 'info',
    },
    onLog: (text) => {
      log += text;
    },
  });
  return second;
}

async function heldByLeaving(): Promise<string[]> {
  const { body } = await stack!.api.request('GET', '/v1/devices?limit=200');
  const items = body['items'] as { deviceId: string; gatewayId: string | null }[];
  return items
    .filter(({ gatewayId }) => gatewayId?.startsWith('leaving'))
    .map(({ deviceId }) => deviceId);
}

test('what is in flight is answered, the rest goes through the other gateway, and it exits with 0', {
  timeout: 90_000,
}, async () => {
  stack = await startStack({ env: { DOWNLINK_TCP_REUSE_PORT: 'true' } });
  const leaving = await gateway({ drain: drainMs });
  fleet = await startRemoteFleet({
    ...stack.tcp,
    devices,
    knobs: { ackDelayMs: 1_000, reconnectMs: [100, 500] },
  });
  const { api } = stack;
  await eventually(async () => {
    const { body } = await api.request('GET', '/v1/devices?online=true&limit=200');
    expect(body['items']).toHaveLength(deviceCount);
  });
  const there = await heldByLeaving();
  // The system spreads the connections; all on one side would happen once in half a million runs.
  expect(there.length).toBeGreaterThan(0);
  const sent = await Promise.all(
    ids.flatMap((deviceId) => [
      api.send({
        deviceId,
        command: 'charge.start',
        params: { socket: 1, port: 0, mode: 'time', minutes: 60 },
        ttlMs: 60_000,
      }),
      api.send({ deviceId, command: 'port.query', params: { socket: 1 }, ttlMs: 60_000 }),
      api.send({ deviceId, command: 'port.query', params: { socket: 2 }, ttlMs: 60_000 }),
    ]),
  );
  // The first frames are with their devices, which answer in a second.
  await eventually(async () => {
    const seen = (await fleet!.entries()).filter((entry) => entry.kind === 'frame');
    expect(seen.filter(({ deviceId }) => there.includes(deviceId)).length).toBeGreaterThan(0);
  });
  const startedAt = performance.now();
  process.kill(leaving.pid, 'SIGTERM');
  expect(await leaving.ended).toEqual({ code: 0, signal: null });
  expect(performance.now() - startedAt).toBeLessThan(drainMs);

  const ends = await eventually(
    async () => {
      const found = await Promise.all(sent.map(({ id }) => api.command(id)));
      expect(found.filter(({ final }) => !final)).toEqual([]);
      return found;
    },
    { withinMs: 40_000 },
  );
  expect(ends.filter(({ status }) => status !== 'succeeded')).toEqual([]);
  // No start was executed twice on its way from one gateway to the other.
  const entries = await fleet.entries();
  const starts = entries.filter(
    (entry) => entry.kind === 'frame' && entry.frame.includes(startCommand),
  );
  expect(starts).toHaveLength(deviceCount);
  const ofThose = ends.filter(({ deviceId }) => there.includes(deviceId));
  const through = new Set(
    ofThose.flatMap(({ attempts }) =>
      attempts
        .filter(({ outcome }) => outcome === 'acked')
        .map(({ gatewayId }) => gatewayId.startsWith('leaving')),
    ),
  );
  expect(through).toEqual(new Set([true, false]));
  expect(await heldByLeaving()).toEqual([]);
});

test('a second signal ends a long drain at once, with a code that says so', {
  timeout: 60_000,
}, async () => {
  stack = await startStack();
  const leaving = await gateway({ own: true, drain: 120_000 });
  const [host, port] = leaving.ready.tcp!.split(':');
  fleet = await startRemoteFleet({
    host: host!,
    port: Number(port),
    devices: devices.slice(0, 1),
    knobs: { ackDelayMs: 90_000 },
  });
  const deviceId = ids[0]!;
  await eventually(async () => expect(await heldByLeaving()).toEqual([deviceId]));
  const { id } = await stack.api.send({
    deviceId,
    command: 'port.query',
    params: { socket: 1 },
    ackTimeoutMs: 100_000,
    ttlMs: 200_000,
  });
  await eventually(async () => expect((await stack!.api.command(id)).status).toBe('sent'));
  process.kill(leaving.pid, 'SIGTERM');
  await eventually(() => expect(log).toContain('"draining"'));
  const startedAt = performance.now();
  process.kill(leaving.pid, 'SIGTERM');
  const { code, signal } = await leaving.ended;
  expect(performance.now() - startedAt).toBeLessThan(10_000);
  expect(signal).toBeNull();
  expect(code).not.toBe(0);
});
