/** From a sound frame to a message, and back. */
import { DownlinkError } from '../../errors.ts';
import { fromHex, toHex } from '../bytes.ts';
import type { Direction, Fields, Message } from '../protocol.ts';
import { buildFrame, dataOffset, trailerBytes } from './framing.ts';
import { decodeKv, elementsIn, encodeKv, type KvElement, kv, kvValue } from './kv.ts';
import { readUint } from './layout.ts';
import { cmds, type MessageSpec, specNamed, specOf } from './messages.ts';

export const protocolName = 'bkv';

export type Encodable = {
  direction: Direction;
  name: string;
  deviceId: string;
  msgId: number;
  fields: Fields;
  cmd?: number;
  subCmd?: number | null;
};

/** What a payload says, before the frame's own numbers are added. */
type Reading = { name: string; subCmd: number | null; fields: Fields; fault?: string };

/** Length and sub-command, before the parameters of 0x0015 and 0x0005. */
const innerHeaderBytes = 3;

/** Reads a frame that framing found sound. Never throws. */
export function decodeMessage(frame: Uint8Array, direction: Direction): Message {
  const cmd = readUint(frame, 4, 2);
  return {
    protocol: protocolName,
    direction,
    deviceId: toHex(frame.subarray(11, dataOffset)),
    cmd,
    msgId: readUint(frame, 6, 4),
    frame,
    checksum: frame[frame.length - trailerBytes]!,
    ...readPayload(direction, cmd, payloadOf(frame)),
  };
}

/** The data of a frame: what lies between the gateway id and the checksum. */
export function payloadOf(frame: Uint8Array): Uint8Array {
  return frame.subarray(dataOffset, frame.length - trailerBytes);
}

/** The key-value elements of a message; none for messages of another kind. */
export function elementsOf(message: Message): readonly KvElement[] {
  return elementsIn(message.fields);
}

/** Builds the frame of a message. Throws INVALID_PAYLOAD when fields do not fit. */
export function encodeMessage(message: Encodable): Uint8Array {
  const { direction, name, deviceId, msgId, fields } = message;
  const spec = specNamed(direction, name);
  const cmd = message.cmd ?? spec?.cmd;
  if (cmd === undefined || (spec === undefined && name !== 'unknown')) {
    throw new DownlinkError(
      'INVALID_PAYLOAD',
      `BKV has no message ${name} for direction ${direction}, nor is it unknown with a cmd`,
    );
  }
  const data =
    spec === undefined ? hexField(fields, 'payloadHex') : writePayload(spec, cmd, message);
  return buildFrame({ direction, cmd, msgId, deviceId, data });
}

function readPayload(direction: Direction, cmd: number, data: Uint8Array): Reading {
  if (cmd === cmds.keyValue) return readKeyValue(direction, data);
  if (cmd === cmds.socket || cmd === cmds.network) return readInner(direction, cmd, data);
  const spec = specOf(direction, cmd, null);
  return spec === undefined ? unknown(data, null) : readLayout(spec, null, data);
}

function readInner(direction: Direction, cmd: number, data: Uint8Array): Reading {
  if (data.length < innerHeaderBytes) return unknown(data, null, 'the sub-command is missing');
  const subCmd = data[2]!;
  const spec = specOf(direction, cmd, subCmd);
  if (spec === undefined) return unknown(data, subCmd);
  const params = data.subarray(innerHeaderBytes);
  const reading = readLayout(spec, subCmd, params);
  const announced = readUint(data, 0, 2);
  if (announced === params.length) return reading;
  const fault = `${announced} parameter bytes are announced and ${params.length} follow`;
  return { fault, ...reading };
}

function readLayout(spec: MessageSpec, subCmd: number | null, data: Uint8Array): Reading {
  const fields: Fields = {};
  const source = { bytes: data, at: 0 };
  const parts = spec.body.kind === 'layout' ? spec.body.parts : [];
  const complete = parts.every((part) => part.read(source, fields));
  const left = data.length - source.at;
  if (left > 0) fields['surplusHex'] = toHex(data.subarray(source.at));
  const reading = { name: spec.name, subCmd, fields };
  if (!complete) return { ...reading, fault: `the payload of ${data.length} bytes is too short` };
  if (left > 0) return { ...reading, fault: `${left} bytes of the payload are surplus` };
  return reading;
}

function readKeyValue(direction: Direction, data: Uint8Array): Reading {
  const { elements, rest, fault } = decodeKv(data);
  const command = kvValue(elements, 'cmd');
  if (typeof command !== 'string' || command.length !== 4) {
    return unknown(data, null, 'the key-value command is missing');
  }
  const subCmd = Number.parseInt(command, 16);
  const spec = specOf(direction, cmds.keyValue, subCmd);
  if (spec === undefined) return unknown(data, subCmd);
  const fields: Fields = { kv: elements };
  if (rest.length > 0) fields['surplusHex'] = toHex(rest);
  const reading = { name: spec.name, subCmd, fields };
  const needs = spec.body.kind === 'kv' ? spec.body.needs : [];
  const missing = needs.find((name) => kvValue(elements, name) === undefined);
  if (fault !== undefined) return { ...reading, fault };
  if (missing !== undefined) return { ...reading, fault: `${missing} is missing` };
  return reading;
}

function unknown(data: Uint8Array, subCmd: number | null, fault?: string): Reading {
  const reading = { name: 'unknown', subCmd, fields: { payloadHex: toHex(data) } };
  return fault === undefined ? reading : { ...reading, fault };
}

function writePayload(spec: MessageSpec, cmd: number, message: Encodable): ArrayLike<number> {
  const { fields } = message;
  const subCmd = message.subCmd ?? spec.subCmd;
  const body =
    spec.body.kind === 'kv'
      ? encodeKv(withHeader(message, subCmd!))
      : writeParts(spec.body.parts, fields);
  if (fields['surplusHex'] !== undefined) body.push(...hexField(fields, 'surplusHex'));
  if (cmd !== cmds.socket && cmd !== cmds.network) return body;
  return [body.length >> 8, body.length & 0xff, subCmd!, ...body];
}

function writeParts(
  parts: Extract<MessageSpec['body'], { kind: 'layout' }>['parts'],
  fields: Fields,
) {
  const body: number[] = [];
  for (const part of parts) part.write(fields, body);
  return body;
}

/**
 * Key-value messages begin with command, frame sequence and gateway id; added where the fields
 * leave them out.
 */
function withHeader({ fields, msgId, deviceId }: Encodable, subCmd: number): unknown {
  const elements = fields['kv'];
  if (!Array.isArray(elements) || elements.some((element) => element?.key === '0x01'))
    return elements;
  return [
    kv('cmd', subCmd.toString(16).padStart(4, '0')),
    kv('frameSeq', msgId.toString(16).padStart(16, '0')),
    kv('gatewayId', deviceId),
    ...elements,
  ];
}

function hexField(fields: Fields, name: string): Uint8Array {
  const value = fields[name];
  const bytes = typeof value === 'string' ? fromHex(value) : null;
  if (bytes === null) {
    throw new DownlinkError('INVALID_PAYLOAD', `${name} must be whole bytes of hex`);
  }
  return bytes;
}
