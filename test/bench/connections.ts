/**
 * How many devices one gateway process holds, and at what cost: connections of heartbeating devices, first so many
 * as are wanted, then as many as its descriptors allow, while commands go through; then two gateway processes on one
 * port. The reference is a bare server of Node that holds as many sockets and answers the same bytes.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { RoleProcess } from '../../src/cli/role-process.ts';
import { mergeRoundTrips, roundTripAt } from '../../src/simulator/round-trips.ts';
import { percentile } from '../support/percentile.ts';
import { type Caller, createCaller } from './caller.ts';
import { watchCpu } from './cpu.ts';
import { type Fleets, startFleets } from './fleets.ts';
import {
  collectable,
  descriptorLimit,
  type Memory,
  sample,
  scrape,
  settledMemory,
} from './memory.ts';
import { atRate } from './pace.ts';
import type { Report } from './report.ts';
import { deviceIds, openSite, type Site, until } from './site.ts';

export type ConnectionsOptions = {
  devices: number;
  /** Then so many; null: as many as the gateway may open descriptors; 0: no more. */
  most: number | null;
  /** Commands a second, and for how long. */
  rate: number;
  seconds: number;
  heartbeatS: number;
  say(line: string): void;
};

/** Descriptors that are left for everything that is no device. */
const otherDescriptors = 1_000;
/** A client has so many ports for one address and port of a server. */
const portsOfClient = 27_000;
/** The compiler has seen a login and a command before the empty process is weighed. */
const warmUpDevices = 200;
/** Longer than one interval, so that every device has sent a heartbeat. */
const intervalsWatched = 1.2;

type Figures = Record<string, number>;

export async function benchConnections(options: ConnectionsOptions): Promise<Report> {
  const { devices, rate, heartbeatS, say } = options;
  say(`reference: a bare server with ${devices} connections`);
  const bare = await benchBare(options);
  const site = await openSite();
  try {
    await site.start('worker');
    const api = await site.start('api');
    const caller = createCaller(api.ready.http!);
    const one = await benchOne(site, caller, options);
    say(`two gateways on one port, ${devices} devices`);
    const two = await benchTwo(site, caller, options);
    caller.close();
    return {
      name: 'connections',
      figures: { ...one, ...two, ...bare },
      versions: await site.versions(),
      notes: [
        `devices send a heartbeat every ${heartbeatS} s, ${Math.round(devices / heartbeatS)}/s in all; its time is measured by the devices, to 5 %`,
        'bytes per connection: resident set after a collection, less that of the empty process, which has served a few devices before',
        `command: from POST /v1/commands to the device’s answer at the gateway, at ${rate}/s; all of them succeeded, and no connection was lost`,
        'accept: from the first connection to the last login, the devices on the same cores',
        'most_: as many devices as the descriptors of one gateway allow · two_: two gateways on one port · bare_: the reference',
      ],
    };
  } finally {
    await site.close();
  }
}

async function benchOne(site: Site, caller: Caller, options: ConnectionsOptions): Promise<Figures> {
  const { devices, heartbeatS, say } = options;
  const heartbeatMs = heartbeatS * 1000;
  const gateway = await site.start('gateway', { nodeArgs: collectable });
  const fleets: Fleets[] = [];
  const connect = async (ids: readonly string[]) => {
    fleets.push(await startFleets({ port: portOf(gateway), deviceIds: ids, heartbeatMs }));
    return fleets.at(-1)!;
  };
  try {
    const warm = await connect(deviceIds(1, warmUpDevices));
    await sendCommands(site, caller, deviceIds(1, warmUpDevices), { ...options, seconds: 2 });
    await warm.stop();
    fleets.pop();
    await until('the gateway is empty', async () => (await heldBy(gateway)) === 0);
    const empty = await settledMemory(gateway.pid, gateway.ready.admin);

    say(`${devices} devices on one gateway`);
    const ids = deviceIds(1, devices);
    const first = await connect(ids);
    const some = await watch(site, caller, { gateway, fleets, ids, options });
    const figures: Figures = {
      connections: await heldBy(gateway),
      bytes_per_connection: (some.memory.rss - empty.rss) / devices,
      heap_bytes_per_connection: (some.memory.heap - empty.heap) / devices,
      accept_per_s: first.connectedPerS,
      ...some.figures,
    };

    const limit = Math.min(descriptorLimit(gateway.pid) - otherDescriptors, portsOfClient);
    const most = options.most ?? (Number.isNaN(limit) ? 0 : limit);
    if (most <= devices) return figures;
    say(`${most} devices on one gateway`);
    const all = deviceIds(1, most);
    const rest = await connect(all.slice(devices));
    const full = await watch(site, caller, { gateway, fleets, ids: all, options });
    return {
      ...figures,
      most_connections: await heldBy(gateway),
      most_bytes_per_connection: (full.memory.rss - empty.rss) / most,
      most_heap_bytes_per_connection: (full.memory.heap - empty.heap) / most,
      most_marginal_bytes_per_connection: (full.memory.rss - some.memory.rss) / (most - devices),
      most_accept_per_s: rest.connectedPerS,
      ...prefixed('most_', full.figures),
    };
  } finally {
    await Promise.all(fleets.map((fleet) => fleet.stop()));
    await gateway.end();
  }
}

type Watched = {
  gateway: RoleProcess;
  fleets: readonly Fleets[];
  ids: readonly string[];
  options: ConnectionsOptions;
};

/** Devices that do nothing but beat, then the same while commands go through; every one must be served. */
async function watch(
  site: Site,
  caller: Caller,
  { gateway, fleets, ids, options }: Watched,
): Promise<{ memory: Memory; figures: Figures }> {
  const { heartbeatS } = options;
  await site.uplinkRead();
  await roundTripsOf(fleets, true);
  await pause(heartbeatS * 1000 * intervalsWatched);
  const quiet = await roundTripsOf(fleets, true);
  const memory = await settledMemory(gateway.pid, gateway.ready.admin);

  const cpu = watchCpu({ gateway: gateway.pid });
  const startedAt = performance.now();
  await roundTripsOf(fleets, true);
  const commands = await sendCommands(site, caller, ids, options);
  const ms = performance.now() - startedAt;
  const busy = await roundTripsOf(fleets);
  await checkServed(fleets, ids.length);
  checkBeats('quiet', quiet, heartbeatS);
  checkBeats('busy', busy, heartbeatS);
  return {
    memory,
    figures: {
      heartbeat_p99_ms: roundTripAt(busy, 0.99),
      heartbeat_max_ms: busy.maxMs,
      quiet_heartbeat_p99_ms: roundTripAt(quiet, 0.99),
      command_p50_ms: percentile(commands.ms, 0.5),
      command_p99_ms: percentile(commands.ms, 0.99),
      commands_per_s: commands.perSecond,
      gateway_cpu_percent: (cpu.spentMs().gateway * 100) / ms,
    },
  };
}

async function benchTwo(site: Site, caller: Caller, options: ConnectionsOptions): Promise<Figures> {
  const { devices, heartbeatS } = options;
  const shared = { DOWNLINK_TCP_REUSE_PORT: 'true' };
  const first = await site.start('gateway', { env: shared });
  const addr = first.ready.tcp!;
  const second = await site.start('gateway', { env: { ...shared, TCP_ADDR: addr } });
  const gateways = [first, second];
  const fleets: Fleets[] = [];
  try {
    const ids = deviceIds(1, devices);
    const port = portOf(first);
    fleets.push(await startFleets({ port, deviceIds: ids, heartbeatMs: heartbeatS * 1000 }));
    await site.uplinkRead();
    await roundTripsOf(fleets, true);
    const { ms, byGateway } = await sendCommands(site, caller, ids, options);
    const busy = await roundTripsOf(fleets);
    await checkServed(fleets, devices);
    checkBeats('two gateways', busy, heartbeatS);
    const held = await Promise.all(gateways.map(heldBy));
    const written = [...byGateway.values()];
    if (Math.min(...held) === 0) throw new Error(`one gateway has no connection: ${held}`);
    if (written.length !== 2) throw new Error(`${written.length} gateways wrote commands, not 2`);
    return {
      two_connections_min: Math.min(...held),
      two_connections_max: Math.max(...held),
      two_commands_min: Math.min(...written),
      two_commands_max: Math.max(...written),
      two_accept_per_s: fleets[0]!.connectedPerS,
      two_heartbeat_p99_ms: roundTripAt(busy, 0.99),
      two_command_p50_ms: percentile(ms, 0.5),
      two_command_p99_ms: percentile(ms, 0.99),
    };
  } finally {
    await Promise.all(fleets.map((fleet) => fleet.stop()));
    await Promise.all(gateways.map((gateway) => gateway.end()));
  }
}

async function benchBare({ devices, heartbeatS }: ConnectionsOptions): Promise<Figures> {
  const program = fileURLToPath(new URL('./bare-connections.ts', import.meta.url));
  const child = spawn(process.execPath, [...collectable, program], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  const fleets: Fleets[] = [];
  const connect = async (count: number) => {
    const ids = deviceIds(1, count);
    fleets.push(await startFleets({ port, deviceIds: ids, heartbeatMs: heartbeatS * 1000 }));
  };
  const early = ended.then(([code]) => {
    throw new Error(`the bare server ended with ${code}`);
  });
  early.catch(() => undefined);
  const [line] = await Promise.race([once(child.stdout, 'data'), early]);
  const port = Number(String(line));
  try {
    await connect(warmUpDevices);
    await fleets.pop()!.stop();
    const empty = await settledMemory(child.pid!);
    await connect(devices);
    await roundTripsOf(fleets, true);
    await pause(heartbeatS * 1000 * intervalsWatched);
    const { rss } = await settledMemory(child.pid!);
    const trips = await roundTripsOf(fleets);
    await checkServed(fleets, devices);
    checkBeats('bare', trips, heartbeatS);
    return {
      bare_bytes_per_connection: (rss - empty.rss) / devices,
      bare_accept_per_s: fleets[0]!.connectedPerS,
      bare_heartbeat_p99_ms: roundTripAt(trips, 0.99),
    };
  } finally {
    await Promise.all(fleets.map((fleet) => fleet.stop()));
    child.stdin.end();
    await ended;
  }
}

/** Queries the devices by the API at the rate; resolves when all have succeeded, and throws when one did not. */
async function sendCommands(
  site: Site,
  caller: Caller,
  ids: readonly string[],
  { rate, seconds }: { rate: number; seconds: number },
) {
  const since = Date.now();
  const startedAt = performance.now();
  const numbers = Array.from({ length: rate * seconds }, (_, n) => n);
  // Neighbours in number are no neighbours in time.
  const stride = 7_919;
  await atRate(rate, numbers, async (n) => {
    const deviceId = ids[(n * stride) % ids.length];
    const body = { deviceId, command: 'port.query', params: { socket: 1 } };
    const { status, text } = await caller.post('/v1/commands', body);
    if (status >= 300) throw new Error(`POST answered ${status}: ${text}`);
  });
  const perSecond = (numbers.length * 1000) / (performance.now() - startedAt);
  await until('every command has ended', async () => (await site.open(since)) === 0);
  const ends = await site.ends(since);
  const told = [...ends.byStatus].map(([status, count]) => `${count} ${status}`).join(', ');
  if (ends.byStatus.get('succeeded') !== numbers.length || ends.byStatus.size > 1) {
    throw new Error(`${numbers.length} commands were to succeed, but the ends are: ${told}`);
  }
  return { ...ends, perSecond };
}

async function checkServed(fleets: readonly Fleets[], devices: number): Promise<void> {
  for (const fleet of fleets) {
    const { loggedIn, lost } = await fleet.state();
    if (loggedIn !== fleet.devices || lost > 0) {
      throw new Error(
        `${loggedIn} of ${fleet.devices} (${devices}) are logged in, ${lost} were lost`,
      );
    }
  }
}

/** Every heartbeat has its answer: what is still waiting has only just been sent. */
function checkBeats(
  what: string,
  trips: ReturnType<typeof mergeRoundTrips>,
  heartbeatS: number,
): void {
  if (trips.count > 0 && trips.lost === 0 && trips.oldestMs < heartbeatS * 1000) return;
  const { count, lost, oldestMs } = trips;
  throw new Error(
    `${what}: ${count} heartbeats answered, ${lost} lost, one waits for ${oldestMs} ms`,
  );
}

async function roundTripsOf(fleets: readonly Fleets[], clear = false) {
  return mergeRoundTrips(await Promise.all(fleets.map((fleet) => fleet.roundTrips(clear))));
}

async function heldBy({ ready }: RoleProcess): Promise<number> {
  return sample(await scrape(ready.admin!), 'tcp_connections_active');
}

function portOf({ ready }: RoleProcess): number {
  return Number(ready.tcp!.split(':').at(-1));
}

function prefixed(prefix: string, figures: Figures): Figures {
  return Object.fromEntries(Object.entries(figures).map(([key, value]) => [prefix + key, value]));
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
