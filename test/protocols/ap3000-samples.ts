/** AP3000 frames and params that several tests use. */
import { readFileSync } from 'node:fs';
import type { Decoded, Direction, Message } from '../../src/protocols/protocol.ts';

export type Fixture = {
  protocol: string;
  name: string;
  direction: Direction;
  hex: string;
  cmd: string;
  msgId: string;
  deviceId: string;
  fields: Record<string, unknown>;
};

const all = JSON.parse(
  readFileSync(new URL('../frames/vendor_frames.json', import.meta.url), 'utf8'),
) as Fixture[];

export const fixtures = all.filter(({ protocol }) => protocol === 'AP3000');

export const deviceId = '04ab373b';
export const iccidText = '898604D9104816187004';

export const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');
export const hexOf = (value: Uint8Array): string => Buffer.from(value).toString('hex');

export const messagesOf = (items: readonly Decoded[]): Message[] =>
  items.flatMap((item) => (item.kind === 'message' ? [item.message] : []));

/** All bytes of the items in order: nothing that was fed may vanish. */
export const bytesOf = (items: readonly Decoded[]): string =>
  items.map((item) => hexOf(item.kind === 'message' ? item.message.frame : item.bytes)).join('');

/** The frame of a fixture by name. */
export function fixture(name: string): Fixture {
  const found = fixtures.find((item) => item.name === name);
  if (found === undefined) throw new Error(`no fixture ${name}`);
  return found;
}

/** Built by hand, so that the code under test does not check itself. */
export function handmade(wireId: string, msgId: number, cmd: number, payloadHex: string): Buffer {
  const payload = bytes(payloadHex);
  const frame = Buffer.alloc(14 + payload.length);
  frame.write('DNY', 'latin1');
  frame.writeUInt16LE(9 + payload.length, 3);
  bytes(wireId).copy(frame, 5);
  frame.writeUInt16LE(msgId, 9);
  frame[11] = cmd;
  payload.copy(frame, 12);
  let sum = 0;
  for (const byte of frame.subarray(0, -2)) sum += byte;
  frame.writeUInt16LE(sum & 0xffff, frame.length - 2);
  return frame;
}

/** At least one set of params for each command of the table. */
export const samples: Record<string, Record<string, unknown>[]> = {
  'charge.start': [
    { port: 0, mode: 'time', seconds: 3600, orderNo: 'A1' },
    { port: 15, mode: 'time', minutes: 60, orderNo: 'A1', balanceCents: 356 },
    { port: 'auto', mode: 'energy', energyWh: 1500, orderNo: 'ORDER-2025-00001' },
    {
      port: 1,
      mode: 'full',
      orderNo: '12345678123456781234567812345678',
      maxSeconds: 28_800,
      overloadDeciW: 5000,
      qrLight: false,
      longMode: true,
      extraFloatS: 65_535,
      shortCheck: false,
      ignoreUnplug: true,
      forceFullStop: true,
      fullPowerW: 15,
      fullPowerMaxMinutes: 30,
    },
  ],
  'charge.stop': [{ port: 1, orderNo: '12345678123456781234567812345678' }],
  'charge.modify': [
    { port: 1, mode: 'time', seconds: 28_800 },
    { port: 1, mode: 'timeFullStop', seconds: 60 },
    { port: 1, mode: 'energy', energyWh: 500 },
  ],
  'cabinet.stop': [{ port: 3, orderNo: 'C-1' }],
  'params.set': [
    { group: 'basic' },
    { group: 'advanced', ambientAlarmC: 70 },
    { group: 'limits', maxChargeS: 36_000, overloadDeciW: 20_000 },
    { group: 'limits', overloadDeciW: 20_000, underVoltageDeciV: 1800 },
  ],
  'params.read': ['basic', 'advanced', 'limits', 'card'].map((group) => ({ group })),
  'port.query': [{}],
  'device.locate': [{ seconds: 30 }],
  'memory.read': [{ address: 0x1234, length: 32 }],
  'memory.write': [{ address: 1, data: 'A1b2' }],
  'card.keys': [{ userKey: '159185191880', newKey: 'FFFFFFFFFFFF' }],
  'card.mode': [{ mode: 1 }],
  'card.answer': [
    {
      msgId: 1,
      cardId: '7a8d05dd',
      accountState: 0,
      rateMode: 0,
      balanceOrExpiry: 10_000,
      port: 1,
    },
  ],
  'workmode.set': [{ mode: 0 }],
  'qr.set': [{ screen: 0, text: 'https://example.org/q/' }],
  'qr.show': [{ text: 'x'.repeat(200) }],
  'voice.play': [{ ids: [1, 2, 3], interrupt: true }],
  'device.mute': [{ mute: true }],
  'device.function': [{ function: 0, port: 2 }],
  'device.restart': [{}],
  'device.clear': [{}],
  'host.restart': [{}],
  'modem.restart': [{}],
  'host.clearUpgrade': [{}],
  'host.fsk': [{ frequencyMhz: 472, deviceIds: ['04ab373b', '03000001'] }],
  'server.set': [{ host: 'baidu.com', port: 8888, modem: '4g', socketB: true }],
  'ota.start': [{ target: 'host' }],
  'ota.auto': [{}],
  raw: [
    { cmd: '7F', payload: '' },
    { cmd: '82', payload: 'ff'.repeat(498) },
  ],
};
