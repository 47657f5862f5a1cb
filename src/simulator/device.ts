/** One simulated device: what it remembers. */
import type { Knobs } from './knobs.ts';
import type { Behaviour, Device, Link, Port, Reply } from './model.ts';
import type { Random } from './random.ts';

/** How many wire ids a device remembers. */
const seenLimit = 256;

export type DeviceDeps = {
  deviceId: string;
  behaviour: Behaviour;
  random: Random;
  link: Link;
  knobs: Knobs;
};

/** A device that has seen nothing yet. */
export function createDevice(deps: DeviceDeps): Device {
  return {
    ...deps,
    loggedIn: false,
    silent: false,
    beatSentAt: 0,
    refuseNext: 0,
    loseNext: 0,
    lastMsgId: deps.random.whole(0, 0x7fff),
    lastBusinessNo: deps.random.whole(0, 0x7fff),
    ports: null,
    params: null,
    seen: null,
    settlements: [],
    settlementSent: null,
  };
}

/** The port, which comes into being when it is first spoken of. */
export function portOf(device: Device, socket: number, port: number): Port {
  device.ports ??= new Map();
  const key = socket * 256 + port;
  let found = device.ports.get(key);
  if (!found) {
    found = {
      socket,
      port,
      charging: false,
      businessNo: 0,
      orderNo: '',
      startedAt: 0,
      endsAt: 0,
      order: {},
      charge: 0,
    };
    device.ports.set(key, found);
  }
  return found;
}

/** The next message id of a message that the device itself begins: 1–65535. */
export function nextMsgId(device: Device): number {
  device.lastMsgId = (device.lastMsgId % 0xffff) + 1;
  return device.lastMsgId;
}

/** The next business number: 1–65535. */
export function nextBusinessNo(device: Device): number {
  device.lastBusinessNo = (device.lastBusinessNo % 0xffff) + 1;
  return device.lastBusinessNo;
}

export function remember(
  device: Device,
  wireId: number,
  what: { name: string; reply: Reply } | null,
): void {
  device.seen ??= new Map();
  device.seen.set(wireId, what);
  if (device.seen.size <= seenLimit) return;
  for (const oldest of device.seen.keys()) {
    device.seen.delete(oldest);
    return;
  }
}
