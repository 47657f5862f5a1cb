/**
 * A fleet of fake devices of both protocols, for demo, bench and tests. They speak real bytes through the
 * codecs' other direction, behave as well or badly as their knobs say, and write down what they saw.
 */
import { DownlinkError } from '../errors.ts';
import type { Fields } from '../protocols/protocol.ts';
import { createAp3000Behaviour } from './ap3000-device.ts';
import { createBkvBehaviour } from './bkv-device.ts';
import { createCharging } from './charging.ts';
import { createDevice, nextMsgId } from './device.ts';
import { createFleetLog, type FleetLog } from './fleet-log.ts';
import { createIntake } from './intake.ts';
import { calmKnobs, type Knobs } from './knobs.ts';
import { createLink } from './link.ts';
import type { Behaviour, Device, Link } from './model.ts';
import { createRandom } from './random.ts';
import { createRoundTrips, type RoundTrips } from './round-trips.ts';
import { createStats, type FleetStats } from './stats.ts';
import { createWheel } from './wheel.ts';

export type ProtocolName = 'bkv' | 'ap3000';

export type DeviceSpec = {
  deviceId: string;
  protocol: ProtocolName;
  /** AP3000 devices that name the same host share its connection. */
  host?: string;
  /** Where it differs from the fleet. */
  knobs?: Partial<Knobs>;
};

export type FleetOptions = {
  host: string;
  port: number;
  /** How many, or exactly which. */
  devices: number | readonly DeviceSpec[];
  /** Shares of the protocols where `devices` is a number; half and half unless given. */
  mix?: Partial<Record<ProtocolName, number>>;
  /** Physical ids on one connection, for AP3000 devices that are made up. */
  perHost?: number;
  /** Numbers of made-up devices begin here, so that several fleets do not meet. */
  firstNumber?: number;
  knobs?: Partial<Knobs>;
  /** New connections in a second, at first and after a loss. */
  connectPerSecond?: number;
  /** Connections at a time whose login is not answered yet; without bound unless given. */
  connectingAtOnce?: number;
  seed?: number;
  log?: FleetLog;
  /** Unix milliseconds. */
  clock?: () => number;
  startTimeoutMs?: number;
};

/** One device of the fleet, in the hands of a test. */
export type DeviceHandle = {
  readonly deviceId: string;
  readonly protocol: ProtocolName;
  readonly loggedIn: boolean;
  /** Connection number; 0 before the first. */
  readonly connection: number;
  /** Ends of charge that the server has not acknowledged. */
  readonly unsettled: number;
  readonly ports: readonly PortState[];
  /** Receives, but neither obeys nor answers, until it is told `false`. */
  silence(on?: boolean): void;
  /** Refuses the next commands, whatever the dice say. */
  refuseNext(count?: number): void;
  /** Obeys the next commands and loses its answers to them. */
  loseAnswers(count?: number): void;
  /** Breaks the connection and comes back after `reconnectMs`. */
  dropConnection(): void;
  setKnobs(knobs: Partial<Knobs>): void;
  /** Ends a charge as if its time were up; false when the port is not charging. */
  endCharge(port: number, socket?: number): boolean;
  /** Sends any uplink message of the protocol's table; false when it is not connected. */
  say(name: string, fields: Fields, msgId?: number): boolean;
};

export type PortState = {
  socket: number;
  port: number;
  charging: boolean;
  businessNo: number;
  orderNo: string;
};

export type Fleet = {
  readonly log: FleetLog;
  readonly deviceIds: readonly string[];
  /** Connects them all; resolves when each one's login is answered. Rejects with TIMEOUT. */
  start(): Promise<void>;
  /** Disconnects them all for good and completes the log. */
  stop(): Promise<void>;
  stats(): FleetStats;
  /** From heartbeats to their answers since the start, or since it was asked for with `clear`. */
  roundTrips(clear?: boolean): RoundTrips;
  /** The device of that id; throws DEVICE_UNKNOWN. */
  device(deviceId: string): DeviceHandle;
  /** Sets knobs of every device. */
  setKnobs(knobs: Partial<Knobs>): void;
};

const defaultConnectPerSecond = 1000;
const defaultStartTimeoutMs = 120_000;
const tickMs = 20;
/** Both protocols name it so. */
const heartbeatReply = 'heartbeat.reply';
const inboxBytes = 64 * 1024;

/** A fleet that is not yet connected. */
export function createFleet(options: FleetOptions): Fleet {
  const { host, port, seed = 1, connectPerSecond = defaultConnectPerSecond } = options;
  const { connectingAtOnce = Number.POSITIVE_INFINITY } = options;
  const now = options.clock ?? Date.now;
  const log = options.log ?? createFleetLog();
  const stats = createStats();
  const trips = createRoundTrips();
  const wheel = createWheel({ tickMs });
  const charging = createCharging({ wheel, stats, now });
  const behaviours: Record<ProtocolName, Behaviour> = {
    bkv: createBkvBehaviour({ charging, now }),
    ap3000: createAp3000Behaviour({ charging, now }),
  };
  const inbox = Buffer.alloc(inboxBytes);
  let running = false;
  const intake = createIntake({ log, stats, now, isRunning: () => running });
  const devices = new Map<string, Device>();
  const links: Link[] = [];
  const waiting: Link[] = [];
  const connecting = new Set<Link>();
  let connections = 0;
  let allIn: (() => void) | null = null;
  let startTimer: NodeJS.Timeout | undefined;

  build();
  stats.devices = devices.size;
  const pace = createPacer(connectPerSecond, tickMs);
  wheel.onTick(() => {
    const count = pace(Math.min(waiting.length, connectingAtOnce - connecting.size));
    for (const link of waiting.splice(0, count)) {
      connecting.add(link);
      link.connect();
    }
  });

  function build(): void {
    const hosts = new Map<string, Link>();
    for (const spec of specsOf(options)) {
      const { deviceId, protocol } = checked(spec, behaviours);
      if (devices.has(deviceId)) {
        throw new DownlinkError('CONFIG_INVALID', `device ${deviceId} is in the fleet twice`);
      }
      const shared = protocol === 'ap3000' ? spec.host : undefined;
      const link = (shared !== undefined && hosts.get(shared)) || newLink(deviceId);
      if (shared !== undefined) hosts.set(shared, link);
      const device = createDevice({
        deviceId,
        behaviour: behaviours[protocol],
        random: createRandom(seed, deviceId),
        link,
        knobs: { ...calmKnobs, ...options.knobs, ...spec.knobs },
      });
      link.devices.push(device);
      devices.set(deviceId, device);
    }
  }

  function newLink(deviceId: string): Link {
    const link = createLink({
      inbox,
      host,
      port,
      random: createRandom(seed, `link ${deviceId}`),
      wheel,
      log,
      stats,
      now,
      nextConnection: () => {
        connections += 1;
        return connections;
      },
      wantsTurn: (one) => waiting.push(one),
      hears,
      onLost,
    });
    links.push(link);
    return link;
  }

  function hears(link: Link, message: Parameters<Behaviour['hears']>[1]): void {
    const [only] = link.devices;
    const device =
      link.devices.length === 1 && only?.deviceId === message.deviceId
        ? only
        : link.devices.find((one) => one.deviceId === message.deviceId);
    if (!device) {
      intake.stray(message, link.connection);
      return;
    }
    const heard = device.behaviour.hears(device, message);
    if (heard === 'command') {
      intake.command(device, message);
      return;
    }
    stats.answers += 1;
    if (message.name === heartbeatReply && device.beatSentAt > 0) {
      trips.add(performance.now() - device.beatSentAt);
      device.beatSentAt = 0;
    }
    if (heard === 'answer') {
      charging.settled(device, message);
    } else if (!device.loggedIn) {
      device.loggedIn = true;
      connecting.delete(link);
      stats.loggedIn += 1;
      if (device.knobs.stateAtLogin) reportState(device);
      charging.resume(device);
      if (stats.loggedIn === devices.size) allIn?.();
    }
  }

  function reportState(device: Device): void {
    for (const frame of device.behaviour.stateReports(device)) {
      if (device.link.send(frame)) stats.reports += 1;
    }
  }

  function onLost(link: Link): void {
    connecting.delete(link);
    for (const device of link.devices) {
      if (device.loggedIn) stats.loggedIn -= 1;
      device.loggedIn = false;
      if (device.beatSentAt > 0) trips.lose();
      device.beatSentAt = 0;
    }
  }

  return {
    log,
    deviceIds: [...devices.keys()],
    async start() {
      running = true;
      wheel.start();
      if (devices.size === 0) return;
      const { startTimeoutMs = defaultStartTimeoutMs } = options;
      const everyone = new Promise<void>((resolve, reject) => {
        startTimer = setTimeout(() => {
          const missing = devices.size - stats.loggedIn;
          const text = `${missing} of ${devices.size} simulated devices were not logged in within ${startTimeoutMs} ms`;
          reject(new DownlinkError('TIMEOUT', text));
        }, startTimeoutMs);
        allIn = () => {
          clearTimeout(startTimer);
          resolve();
        };
      });
      waiting.push(...links);
      await everyone;
    },
    async stop() {
      running = false;
      clearTimeout(startTimer);
      waiting.length = 0;
      for (const link of links) link.close();
      wheel.stop();
      // closing sockets say so in the next turns of the loop
      while (stats.connected > 0) await new Promise((resolve) => setImmediate(resolve));
      await log.close();
    },
    stats: () => ({ ...stats }),
    roundTrips(clear = false) {
      const sent = [...devices.values()].filter(({ beatSentAt }) => beatSentAt > 0);
      const read = trips.read(sent.map(({ beatSentAt }) => performance.now() - beatSentAt));
      if (clear) trips.clear();
      return read;
    },
    device(deviceId) {
      const device = devices.get(deviceId);
      if (!device) {
        throw new DownlinkError('DEVICE_UNKNOWN', `device ${deviceId} is not in the fleet`);
      }
      return handleOf(device, charging);
    },
    setKnobs(knobs) {
      for (const device of devices.values()) device.knobs = { ...device.knobs, ...knobs };
    },
  };
}

/** How many of those that want to may go now, so many in a second, evenly. */
function createPacer(perSecond: number, everyMs: number): (wanting: number) => number {
  let credit = 0;
  let last = performance.now();
  return (wanting) => {
    const at = performance.now();
    // what was not used is not saved up, but for one tick's worth
    credit = Math.min(
      credit + ((at - last) * perSecond) / 1000,
      Math.max(1, (perSecond * everyMs * 2) / 1000),
    );
    last = at;
    const count = Math.min(Math.floor(credit), wanting);
    credit -= count;
    return count;
  };
}

function specsOf({ devices, mix, perHost = 1, firstNumber = 1 }: FleetOptions): DeviceSpec[] {
  if (typeof devices !== 'number') return [...devices];
  const { bkv = 0, ap3000 = 0 } = mix ?? { bkv: 1, ap3000: 1 };
  if (bkv + ap3000 <= 0 || bkv < 0 || ap3000 < 0) {
    throw new DownlinkError('CONFIG_INVALID', 'the mix of a fleet needs a share above 0');
  }
  const ofBkv = Math.round((devices * bkv) / (bkv + ap3000));
  const specs: DeviceSpec[] = [];
  for (let i = 0; i < ofBkv; i += 1) {
    const deviceId = `8220${String(firstNumber + i).padStart(10, '0')}`;
    specs.push({ deviceId, protocol: 'bkv' });
  }
  for (let i = 0; i < devices - ofBkv; i += 1) {
    // kind 04: a double socket
    const deviceId = (0x04a0_0000 + firstNumber + i).toString(16).padStart(8, '0');
    const host = String(Math.floor(i / perHost));
    specs.push({ deviceId, protocol: 'ap3000', ...(perHost > 1 && { host }) });
  }
  return specs;
}

function checked(
  { deviceId, protocol }: DeviceSpec,
  behaviours: Record<ProtocolName, Behaviour>,
): { deviceId: string; protocol: ProtocolName } {
  const canonical = behaviours[protocol]?.protocol.deviceId(deviceId);
  if (canonical) return { deviceId: canonical, protocol };
  const text = `device id ${deviceId} is no id of protocol ${protocol}`;
  throw new DownlinkError('INVALID_DEVICE_ID', text);
}

function handleOf(device: Device, charging: ReturnType<typeof createCharging>): DeviceHandle {
  const { deviceId, behaviour, link } = device;
  return {
    deviceId,
    protocol: behaviour.protocol.name as ProtocolName,
    get loggedIn() {
      return device.loggedIn;
    },
    get connection() {
      return link.connection;
    },
    get unsettled() {
      return device.settlements.length;
    },
    get ports() {
      return [...(device.ports?.values() ?? [])].map(
        ({ socket, port, charging: active, businessNo, orderNo }) => ({
          socket,
          port,
          charging: active,
          businessNo,
          orderNo,
        }),
      );
    },
    silence(on = true) {
      device.silent = on;
    },
    refuseNext(count = 1) {
      device.refuseNext = count;
    },
    loseAnswers(count = 1) {
      device.loseNext = count;
    },
    dropConnection: () => link.drop('reset'),
    setKnobs(knobs) {
      device.knobs = { ...device.knobs, ...knobs };
    },
    endCharge(port, socket = 0) {
      const found = device.ports?.get(socket * 256 + port);
      if (!found?.charging) return false;
      charging.ended(device, found, 'ordered');
      return true;
    },
    say(name, fields, msgId) {
      const own = behaviour.protocol.name === 'bkv' ? 0 : nextMsgId(device);
      const frame = behaviour.protocol.encode({
        direction: 'up',
        name,
        deviceId,
        msgId: msgId ?? own,
        fields,
      });
      return link.send(frame);
    },
  };
}
