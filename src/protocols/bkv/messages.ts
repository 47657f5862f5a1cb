/**
 * Every message of BKV V1.7, once, for both directions: what the gateway reads a device can write
 * with the same definition. `0x0015` and `0x0005` carry `[L:2][sub:1][parameters:L]`, `0x1000`
 * key-value elements, the others their fields at once. Numbers are in the unit that ends their
 * name; identifiers and bits are hex.
 */
import type { Direction } from '../protocol.ts';
import {
  ascii,
  bits,
  clock,
  counted,
  dateTime,
  fixed,
  hex,
  ipv4,
  type Part,
  record,
  rest,
  u8,
  u16,
  u32,
  when,
} from './layout.ts';

export const cmds = {
  heartbeat: 0x0000,
  network: 0x0005,
  ota: 0x0007,
  socket: 0x0015,
  keyValue: 0x1000,
} as const;

export type MessageSpec = {
  name: string;
  direction: Direction;
  cmd: number;
  /** Sub-command, the key-value command of 0x1000, or null where there is none. */
  subCmd: number | null;
  /** Other numbers under which the same message is seen. */
  also?: readonly { cmd: number; subCmd: number }[];
  body: { kind: 'layout'; parts: readonly Part[] } | { kind: 'kv'; needs: readonly string[] };
};

const fromSocket = fixed({ socketNo: u8, socketFwVersion: hex(2), tempC: u8, rssi: u8 });
const charged = { powerDeciW: u16, currentMilliA: u16, energyWh: u16, chargedMin: u16 };
const result = fixed({ result: u8 });
const socketHole = { socketNo: u8, holeNo: u8 };

/** Energy is in Wh: the vendor calls 0x0050 0.08 kWh. */
const endOfCharge = [
  fromSocket,
  fixed({ holeNo: u8, holeStatus: bits, businessNo: hex(2), ...charged }),
];
const controlReply = [fixed({ result: u8, ...socketHole, businessNo: hex(2) })];
const payAndTiers = [
  fixed({ payCent: u16 }),
  counted('tiers', record({ powerDeciW: u16, priceCent: u16, minutes: u16 }), 'tierCount'),
];
const tierSettlement = [
  fixed({ amountCent: u16, settlePowerDeciW: u16 }),
  counted('tierMinutes', u16, 'tierCount'),
];
const node = { socketNo: u8, mac: hex(6) };
const isTiered = (fields: Record<string, unknown>) => fields['mode'] === 3;

export const messageSpecs: readonly MessageSpec[] = [
  // 0x0000
  layout('up', 'heartbeat', cmds.heartbeat, null, [
    fixed({ iccid: ascii(20), version: ascii(8), csq: u8 }),
  ]),
  layout('down', 'heartbeat.reply', cmds.heartbeat, null, [fixed({ timeBcdLocal: hex(7) })]),

  // 0x0005: the list of sockets behind a DTU. The vendor leaves out the bytes of 0A; they follow
  // 09.
  layout('down', 'network.refresh', cmds.network, 0x08, [
    fixed({ channel: u8 }),
    rest('nodes', record(node)),
  ]),
  layout('up', 'network.refresh.reply', cmds.network, 0x08, [result]),
  layout('down', 'network.add', cmds.network, 0x09, [fixed(node)]),
  layout('up', 'network.add.reply', cmds.network, 0x09, [result]),
  layout('down', 'network.delete', cmds.network, 0x0a, [fixed({ socketNo: u8 })]),
  layout('up', 'network.delete.reply', cmds.network, 0x0a, [result]),

  // 0x0007
  layout('down', 'ota', cmds.ota, null, [
    fixed({ target: u8, ftpIp: ipv4, ftpPort: u16, fileName: ascii(13) }),
  ]),

  // 0x0015. The vendor's older samples of 07 and 17 still carry 0x0005 as outer command.
  layout('up', 'charge.end', cmds.socket, 0x02, endOfCharge),
  legacy(
    layout('down', 'control', cmds.socket, 0x07, [
      fixed({ ...socketHole, switch: u8, mode: u8, minutes: u16, energyWh: u16 }),
    ]),
  ),
  legacy(layout('up', 'control.reply', cmds.socket, 0x07, controlReply)),
  layout('up', 'card.swipe', cmds.socket, 0x0b, [
    fixed({ ...socketHole, businessNo: hex(2), holeStatus: bits, cardNo: hex(6) }),
    fixed({ offlineParams: hex(20) }),
  ]),
  layout('down', 'card.order', cmds.socket, 0x0b, [
    // The unit of the limit that is called minutes here is unsure: the sample's 48000 may be
    // seconds.
    fixed({ ...socketHole, businessNo: hex(2), switch: u8, mode: u8, minutes: u16, energyWh: u16 }),
    when(isTiered, payAndTiers),
  ]),
  layout('up', 'card.order.reply', cmds.socket, 0x0f, [fixed({ ...socketHole, result: u8 })]),
  layout('up', 'card.end', cmds.socket, 0x0c, [
    ...endOfCharge,
    fixed({ cardNo: hex(6), cardType: u8, billingMode: u8 }),
    ...tierSettlement,
  ]),
  layout('down', 'charge.end.ack', cmds.socket, 0x0c, [fixed({ socketNo: u8, result: u8 })]),
  legacy(
    layout('down', 'tiers.start', cmds.socket, 0x17, [
      fixed({ ...socketHole, switch: u8 }),
      ...payAndTiers,
    ]),
  ),
  // The vendor does not print this reply; it only says that a business number comes back.
  legacy(layout('up', 'tiers.start.reply', cmds.socket, 0x17, controlReply)),
  layout('up', 'tiers.end', cmds.socket, 0x18, [
    ...endOfCharge,
    fixed({ endTime: dateTime, endReason: u8 }),
    ...tierSettlement,
  ]),
  layout('up', 'card.balance.query', cmds.socket, 0x1a, [fixed({ ...socketHole, cardNo: hex(6) })]),
  layout('down', 'card.balance', cmds.socket, 0x1a, [
    fixed({ ...socketHole, cardNo: hex(6), balanceCent: u32 }),
  ]),
  layout('down', 'voice.window', cmds.socket, 0x1b, [
    fixed({ ...socketHole, buzzer: u8, voice: u8 }),
    counted('periods', record({ start: clock, end: clock })),
  ]),
  layout('up', 'voice.window.reply', cmds.socket, 0x1b, [fixed({ ...socketHole, result: u8 })]),
  layout('down', 'port.query', cmds.socket, 0x1d, [fixed({ socketNo: u8 })]),
  {
    // The vendor's text says 1D, its frame 1C.
    ...layout('up', 'port.query.reply', cmds.socket, 0x1c, [
      fromSocket,
      rest(
        'holes',
        record({
          holeNo: u8,
          holeStatus: bits,
          businessNo: hex(2),
          voltageDeciV: u16,
          ...charged,
        }),
      ),
    ]),
    also: [{ cmd: cmds.socket, subCmd: 0x1d }],
  },

  // 0x1000
  keyValue('up', 'fee.end', 0x1004, ['socketNo', 'holeNo']),
  keyValue('down', 'fee.end.ack', 0x1004, ['ack']),
  keyValue('down', 'fee.start', 0x1007, ['socketNo', 'holeNo', 'switch']),
  // Not printed by the vendor; assumed to be built as the other replies.
  keyValue('up', 'fee.start.reply', 0x1007, ['ack']),
  keyValue('up', 'exception.report', 0x1010, ['socketNo']),
  keyValue('down', 'exception.report.ack', 0x1010, ['ack']),
  keyValue('down', 'params.set', 0x1011, ['socketNo']),
  keyValue('up', 'params.set.reply', 0x1011, ['ack']),
  keyValue('down', 'params.read', 0x1012, ['socketNo']),
  keyValue('up', 'params.read.reply', 0x1012, ['socketNo']),
  // In no vendor document: devices send it after the first heartbeat of a connection.
  keyValue('up', 'node.event', 0x1013, []),
  keyValue('up', 'status.report', 0x1017, ['socketStatusCluster']),
  keyValue('down', 'status.report.ack', 0x1017, ['ack']),
];

const specsByNumbers = new Map<string, MessageSpec>(
  messageSpecs.flatMap((spec) =>
    [{ cmd: spec.cmd, subCmd: spec.subCmd }, ...(spec.also ?? [])].map(
      ({ cmd, subCmd }) => [numbersKey(spec.direction, cmd, subCmd), spec] as const,
    ),
  ),
);
const specsByName = new Map(messageSpecs.map((spec) => [`${spec.direction} ${spec.name}`, spec]));

/** The message of those numbers, or undefined. */
export function specOf(direction: Direction, cmd: number, subCmd: number | null) {
  return specsByNumbers.get(numbersKey(direction, cmd, subCmd));
}

/** The message of that name, or undefined. */
export function specNamed(direction: Direction, name: string) {
  return specsByName.get(`${direction} ${name}`);
}

function numbersKey(direction: Direction, cmd: number, subCmd: number | null): string {
  return `${direction} ${cmd} ${subCmd}`;
}

function layout(
  direction: Direction,
  name: string,
  cmd: number,
  subCmd: number | null,
  parts: readonly Part[],
): MessageSpec {
  return { direction, name, cmd, subCmd, body: { kind: 'layout', parts } };
}

function keyValue(
  direction: Direction,
  name: string,
  subCmd: number,
  needs: readonly string[],
): MessageSpec {
  return { direction, name, cmd: cmds.keyValue, subCmd, body: { kind: 'kv', needs } };
}

function legacy(spec: MessageSpec): MessageSpec {
  return { ...spec, also: [{ cmd: cmds.network, subCmd: spec.subCmd! }] };
}
