/** Messages of the table, from and to frames. */
import { DownlinkError } from '../../errors.ts';
import { fromHex, toHex } from '../bytes.ts';
import type { Direction, Fields, Message } from '../protocol.ts';
import { parseDeviceId, readDeviceId } from './device-id.ts';
import { buildFrame, maxPayloadBytes, offsets, protocolName } from './frame.ts';
import { type Layout, readPayload, writePayload } from './layout.ts';
import { rows } from './message-table.ts';

type Entry = { cmd: number; name: string; layout: Layout };
type Index = { byCmd: Map<number, Entry>; byName: Map<string, Entry> };

export type EncodeRequest = {
  direction: Direction;
  name: string;
  deviceId: string;
  msgId: number;
  fields: Fields;
  /** Only the message `unknown` needs it. */
  cmd?: number;
};

/** What the modem sends without a frame: its card number once, a sign of life when idle. */
export type PlainText = 'iccid' | 'link';

const iccidPattern = /^89[0-9a-f]{18}$/i;
const maxMsgId = 0xffff;
const unknownName = 'unknown';

const index: Record<Direction, Index> = { up: indexOf('up'), down: indexOf('down') };

/** The message in a sound frame. */
export function decodeMessage(direction: Direction, bytes: Uint8Array): Message {
  const frame = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const cmd = frame[offsets.cmd]!;
  const payload = frame.subarray(offsets.payload, frame.length - 2);
  const entry = index[direction].byCmd.get(cmd);
  const head = {
    protocol: protocolName,
    direction,
    name: entry?.name ?? unknownName,
    deviceId: readDeviceId(frame, offsets.deviceId),
    cmd,
    subCmd: null,
    msgId: frame.readUInt16LE(offsets.msgId),
    frame: bytes,
    checksum: frame.readUInt16LE(frame.length - 2),
  };
  return entry === undefined
    ? { ...head, fields: { payloadHex: toHex(payload) } }
    : { ...head, ...readPayload(entry.layout, payload) };
}

/** The message in a piece of the modem's plain text. */
export function decodePlainText(name: PlainText, bytes: Uint8Array): Message {
  const fields = name === 'iccid' ? { iccid: Buffer.from(bytes).toString('latin1') } : {};
  return {
    protocol: protocolName,
    direction: 'up',
    name,
    deviceId: '',
    cmd: 0,
    subCmd: null,
    msgId: 0,
    fields,
    frame: bytes,
    checksum: null,
  };
}

/** The frame of any message of the table, or the modem's plain text. Throws what is wrong with it. */
export function encodeMessage(request: EncodeRequest): Uint8Array {
  if (request.direction === 'up' && request.name === 'iccid') return encodeIccid(request.fields);
  if (request.direction === 'up' && request.name === 'link') return Buffer.from('link', 'latin1');
  const deviceId = parseDeviceId(request.deviceId);
  if (deviceId === null) {
    const text = `device id ${request.deviceId} must be 8 hex digits`;
    throw new DownlinkError('INVALID_DEVICE_ID', text);
  }
  const { msgId } = request;
  if (!Number.isInteger(msgId) || msgId < 0 || msgId > maxMsgId) {
    throw invalid(request, `its message id must be an integer from 0 to ${maxMsgId}`);
  }
  const { cmd, payload } = payloadOf(request);
  if (payload.length > maxPayloadBytes) {
    throw invalid(request, `its payload has ${payload.length} bytes, over ${maxPayloadBytes}`);
  }
  return buildFrame(deviceId, msgId, cmd, payload);
}

function payloadOf(request: EncodeRequest): { cmd: number; payload: Uint8Array } {
  const { direction, name, fields } = request;
  if (name === unknownName) return unknownPayload(request);
  const entry = index[direction].byName.get(name);
  if (entry === undefined) {
    const known = [...index[direction].byName.keys()].join(', ');
    throw new DownlinkError('INVALID_PAYLOAD', `message ${name} is not one of ${known}`);
  }
  const payload = writePayload(entry.layout, fields);
  if (typeof payload === 'string') throw invalid(request, payload);
  return { cmd: entry.cmd, payload };
}

function unknownPayload(request: EncodeRequest): { cmd: number; payload: Uint8Array } {
  const { cmd, fields } = request;
  if (cmd === undefined || !Number.isInteger(cmd) || cmd < 0 || cmd > 0xff) {
    throw invalid(request, 'its command byte must be an integer from 0 to 255');
  }
  const payload = typeof fields['payloadHex'] === 'string' ? fromHex(fields['payloadHex']) : null;
  if (payload === null) throw invalid(request, 'payloadHex must be whole bytes of hex');
  return { cmd, payload };
}

function encodeIccid({ iccid }: Fields): Uint8Array {
  if (typeof iccid === 'string' && iccidPattern.test(iccid)) return Buffer.from(iccid, 'latin1');
  throw new DownlinkError('INVALID_PAYLOAD', 'iccid must be 20 hex digits that begin with 89');
}

function invalid({ name }: EncodeRequest, what: string): DownlinkError {
  return new DownlinkError('INVALID_PAYLOAD', `message ${name} cannot be encoded: ${what}`);
}

function indexOf(direction: Direction): Index {
  const entries: Entry[] = [];
  for (const { cmd, name, from, request, reply } of rows) {
    if ((from === 'device') === (direction === 'up')) entries.push({ cmd, name, layout: request });
    else if (reply !== null) entries.push({ cmd, name: `${name}.reply`, layout: reply });
  }
  return {
    byCmd: new Map(entries.map((entry) => [entry.cmd, entry])),
    byName: new Map(entries.map((entry) => [entry.name, entry])),
  };
}
