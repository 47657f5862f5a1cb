/** One connection of the fleet, for as long as the fleet lives: it carries one device, or all of an AP3000 host. */
import { connect, type Socket } from 'node:net';
import type { Decoder, Message } from '../protocols/protocol.ts';
import type { CloseEntry, FleetLog } from './fleet-log.ts';
import { draw } from './knobs.ts';
import type { Device, Link } from './model.ts';
import type { Random } from './random.ts';
import type { FleetStats } from './stats.ts';
import type { Wheel } from './wheel.ts';

export type LinkDeps = {
  host: string;
  port: number;
  /** What arrives is read into it, whatever the connection, and taken from there at once. */
  inbox: Buffer;
  random: Random;
  wheel: Wheel;
  log: FleetLog;
  stats: FleetStats;
  now: () => number;
  nextConnection: () => number;
  /** Asks for a turn to connect. */
  wantsTurn: (link: Link) => void;
  hears: (link: Link, message: Message) => void;
  onLost: (link: Link) => void;
};

/** A peer that does not close its side is cut off after this. */
const lingerMs = 2000;
/** No protocol's frames begin with such bytes. */
const noiseFrom = 0x80;
const noiseTo = 0xef;

/** A link that is not yet connected. */
export function createLink(deps: LinkDeps): Link {
  const { random, wheel, log, stats, now } = deps;
  const { inbox } = deps;
  const devices: Device[] = [];
  let socket: Socket | null = null;
  let decoder: Decoder | null = null;
  let connection = 0;
  let by: CloseEntry['by'] = 'server';
  let closed = false;

  const link: Link = {
    devices,
    get connection() {
      return connection;
    },
    get isOpen() {
      return socket !== null && by === 'server' && !socket.connecting && socket.writable;
    },
    send(frame, noise = true) {
      if (!link.isOpen) return false;
      const amount = noise ? devices[0]!.knobs.garbage : 0;
      if (random.chance(amount)) socket!.write(noiseBytes(random));
      socket!.write(frame);
      if (random.chance(amount)) socket!.write(noiseBytes(random));
      return true;
    },
    drop(how) {
      if (!socket) return;
      by = how;
      deps.onLost(link);
      const dropped = socket;
      if (how === 'reset') {
        dropped.destroy();
        return;
      }
      dropped.end();
      wheel.after(lingerMs, () => dropped.destroy());
    },
    connect: open,
    close() {
      closed = true;
      by = 'device';
      socket?.destroy();
    },
  };

  function open(): void {
    if (closed || socket) return;
    by = 'server';
    connection = deps.nextConnection();
    decoder = null;
    let connected = false;
    const mine = connect({
      host: deps.host,
      port: deps.port,
      noDelay: true,
      // Thousands of sockets on a shared core: one buffer for all of them, and no stream in between.
      onread: {
        buffer: inbox,
        callback: (count) => {
          hear(Buffer.from(inbox.subarray(0, count)));
          return true;
        },
      },
    });
    socket = mine;
    mine.on('connect', () => {
      connected = true;
      stats.connects += 1;
      stats.connected += 1;
      greet();
    });
    mine.on('error', () => {
      stats.socketErrors += 1;
    });
    mine.on('close', () => {
      socket = null;
      if (connected) {
        stats.connected -= 1;
        stats.disconnects += 1;
        const deviceIds = devices.map((device) => device.deviceId);
        const entry = { kind: 'close' as const, seq: 0, at: now(), connection, deviceIds, by };
        log.complete(log.add(entry));
      }
      deps.onLost(link);
      if (closed) return;
      wheel.after(draw(devices[0]!.knobs.reconnectMs, random), () => deps.wantsTurn(link));
    });
  }

  /** What a device says by itself on a new connection; nothing is garbled before it is recognised. */
  function greet(): void {
    const first = devices[0]!;
    const hello = first.behaviour.hello(first.deviceId);
    if (hello) link.send(hello, false);
    for (const device of devices) {
      for (const frame of device.behaviour.login(device)) link.send(frame, false);
    }
    const mine = connection;
    let nextHeartbeatAt = 0;
    const { behaviour } = first;
    const heartbeat = {
      dueTick: 0,
      run() {
        if (connection !== mine || !link.isOpen) return;
        const waiting = devices.filter((device) => !device.loggedIn);
        for (const device of waiting) {
          for (const frame of behaviour.login(device)) link.send(frame, false);
        }
        if (now() >= nextHeartbeatAt) {
          for (const device of devices) {
            if (!device.loggedIn || !link.send(behaviour.heartbeat(device))) continue;
            stats.heartbeats += 1;
            // an answer names no heartbeat: the oldest one counts
            if (device.beatSentAt === 0) device.beatSentAt = performance.now();
          }
          nextHeartbeatAt = now() + intervalMs();
        }
        const restMs = Math.max(1, nextHeartbeatAt - now());
        wheel.add(heartbeat, waiting.length > 0 ? Math.min(restMs, loginRepeatMs()) : restMs);
      },
    };
    const intervalMs = () => first.knobs.heartbeatMs ?? behaviour.heartbeatMs;
    const loginRepeatMs = () => first.knobs.loginRepeatMs;
    // the first one anywhere in the interval's second half, so that a fleet does not beat as one
    const firstMs = Math.round(intervalMs() * (0.5 + random.next() / 2));
    nextHeartbeatAt = now() + firstMs;
    wheel.add(heartbeat, Math.min(firstMs, loginRepeatMs()));
  }

  function hear(chunk: Uint8Array): void {
    decoder ??= devices[0]!.behaviour.protocol.decoder('down');
    for (const decoded of decoder.push(chunk)) {
      if (decoded.kind === 'message') deps.hears(link, decoded.message);
      else stats.garbageBytes += decoded.bytes.length;
    }
  }

  return link;
}

function noiseBytes(random: Random): Uint8Array {
  const bytes = new Uint8Array(random.whole(1, 16));
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = random.whole(noiseFrom, noiseTo);
  return bytes;
}
