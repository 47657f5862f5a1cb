/** A gateway on a free port, devices with real sockets, and deliveries for them. */
import { connect, type Socket } from 'node:net';
import type { Delivery } from '../../src/bridge/messages.ts';
import { createGateway, type Gateway, type GatewayDeps } from '../../src/gateway/gateway.ts';
import { createLog } from '../../src/log/log.ts';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { fromHex, toHex } from '../../src/protocols/bytes.ts';
import type { Fields, Message, Protocol } from '../../src/protocols/protocol.ts';
import { eventually } from '../support/eventually.ts';
import { createRecordingBridge, type RecordingBridge } from '../support/recording-bridge.ts';

export const dtu = '82200520004869';
export const socketA = '04ab373b';
export const socketB = '04ab373c';

export type Rig = {
  gateway: Gateway;
  bridge: RecordingBridge;
  addr: string;
  tlsAddr: string | undefined;
  device(protocol?: Protocol): Promise<Device>;
  /** Builds the frame as a worker does; the epoch is the standing session's. */
  delivery(id: string, given?: Partial<Delivery>): Delivery;
  deliver(id: string, given?: Partial<Delivery>): Delivery;
  close(): Promise<void>;
};

export type Device = {
  socket: Socket;
  /** Messages of the server, as they came. */
  heard: Message[];
  isClosed(): boolean;
  send(...frames: Uint8Array[]): void;
  /** Waits for a message of that name. */
  hears(name: string, count?: number): Promise<Message>;
};

const quiet = createLog({ level: 'silent', role: 'gateway' });

export async function startRig(
  given: Partial<
    Pick<GatewayDeps, 'options' | 'protocols' | 'log' | 'admission' | 'tls' | 'onBreakerChange'>
  > = {},
): Promise<Rig> {
  const bridge = createRecordingBridge();
  const protocols = given.protocols ?? [bkv, ap3000];
  const gateway = createGateway({
    bridge,
    addr: '127.0.0.1:0',
    log: quiet,
    ...given,
    protocols,
  });
  const { tcp: addr, tls: tlsAddr } = await gateway.start();
  const devices: Device[] = [];
  let wireIds = 100;

  function delivery(id: string, part: Partial<Delivery> = {}): Delivery {
    const deviceId = part.deviceId ?? dtu;
    const protocol = protocols.find((each) => each.deviceId(deviceId) !== null)!;
    const command = part.command ?? 'port.query';
    const params = part.params ?? (protocol.name === 'bkv' ? { socket: 1 } : {});
    const wireId = part.wireId ?? ++wireIds;
    const session = [...bridge.handlers.sessions()].find((each) => each.deviceId === deviceId);
    return {
      t: 'deliver',
      id,
      attempt: 1,
      workerId: 'worker-1',
      deviceId,
      epoch: session?.epoch ?? 1,
      protocol: protocol.name,
      command,
      params,
      wireId,
      frame: toHex(protocol.commands[command]!.encode(params, deviceId, wireId)),
      priority: 5,
      deadline: Date.now() + 60_000,
      ackTimeoutMs: 5_000,
      ...part,
    };
  }

  return {
    gateway,
    bridge,
    addr,
    tlsAddr,
    delivery,
    deliver(id, part) {
      const made = delivery(id, part);
      bridge.handlers.deliver(made);
      return made;
    },
    async device(protocol = bkv) {
      const device = await connectDevice(addr, protocol);
      devices.push(device);
      return device;
    },
    async close() {
      for (const { socket } of devices) socket.destroy();
      await gateway.stop();
    },
  };
}

/** A device with a socket of its own. */
export async function connectDevice(addr: string, protocol: Protocol = bkv): Promise<Device> {
  const [, host, port] = /^(.*):(\d+)$/.exec(addr)!;
  const socket = connect({ host: host!, port: Number(port), noDelay: true });
  const decoder = protocol.decoder('down');
  const heard: Message[] = [];
  let closed = false;
  socket.on('data', (chunk: Uint8Array) => {
    for (const item of decoder.push(chunk)) if (item.kind === 'message') heard.push(item.message);
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    closed = true;
  });
  await new Promise<void>((resolve) => socket.once('connect', () => resolve()));
  return {
    socket,
    heard,
    isClosed: () => closed,
    send(...frames) {
      socket.write(Buffer.concat(frames));
    },
    hears: (name, count = 1) =>
      eventually(() => {
        const found = heard.filter((message) => message.name === name);
        if (found.length < count) {
          const names = heard.map((message) => message.name).join(', ');
          throw new Error(
            `${found.length} of ${count} ${name} heard; heard: ${names || 'nothing'}`,
          );
        }
        return found.at(-1)!;
      }),
  };
}

/** A vendor's frame, spoken by another device under another message id. */
export function retell(
  protocol: Protocol,
  hex: string,
  { deviceId, msgId, fields = {} }: { deviceId: string; msgId?: number; fields?: Fields },
): Uint8Array {
  const [item] = protocol.decoder('up').push(fromHex(hex)!);
  if (item?.kind !== 'message') throw new Error(`no ${protocol.name} frame: ${hex}`);
  const { message } = item;
  return protocol.encode({
    direction: 'up',
    name: message.name,
    deviceId,
    msgId: msgId ?? message.msgId,
    fields: { ...message.fields, ...fields },
    cmd: message.cmd,
    subCmd: message.subCmd,
  });
}

export const frames = {
  /** BKV V1.7, heartbeat. */
  heartbeat: (deviceId = dtu) =>
    retell(
      bkv,
      'fcfe002e0000000000000182200520004869383938363034363331313230373033313934313763562e31723436001fcafcee',
      { deviceId },
    ),
  /** BKV V1.7, end of charge. */
  chargeEnd: (deviceId = dtu) =>
    retell(
      bkv,
      'fcfe00250015000000000186004459453005001102025036302000980068000000010050002d41fcee',
      { deviceId },
    ),
  /** BKV V1.7, answer to a query of a socket's state. */
  queryReply: (msgId: number, deviceId = dtu) =>
    retell(
      bkv,
      'fcfe00350015001c91ee018600445945300500211c01513629150080000008ef00000001000000000180000008ef000000010000000077fcee',
      { deviceId, msgId },
    ),
  /** BKV V1.7, status report 1017 of socket 1. */
  statusReport: (deviceId = dtu) =>
    retell(
      bkv,
      'fcfe0091100000000000018223121400270004010110170a010200000000000000000901038223121400270065019403014a0104013effff030107250301961e28015b030108000301098004010a000004019508e304010b000004010c000104010d000004010e000028015b030108010301098004010a000004019508e304010b000004010c000104010d000004010e000030fcee',
      { deviceId },
    ),
  /** AP3000 device protocol V8.6, command 21. */
  heartbeat21: (deviceId = socketA, msgId = 1) =>
    retell(ap3000, '444e5910003b37ab0401002198080200000905ee02', { deviceId, msgId }),
  iccid: () => Buffer.from('89860463112070319417'),
  link: () => Buffer.from('link'),
};

/** Waits until the device's session stands. */
export async function standing(rig: Rig, deviceId = dtu): Promise<void> {
  await eventually(() => {
    const ids = [...rig.bridge.handlers.sessions()].map((session) => session.deviceId);
    if (!ids.includes(deviceId)) throw new Error(`${deviceId} has no session; ${ids} have`);
  });
}

/** Connects a BKV device and logs it in. */
export async function connectedDtu(rig: Rig, deviceId = dtu): Promise<Device> {
  const device = await rig.device(bkv);
  device.send(frames.heartbeat(deviceId));
  await standing(rig, deviceId);
  await device.hears('heartbeat.reply');
  return device;
}
