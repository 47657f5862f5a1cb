/** Wire shape of a DNY frame (AP3000 device protocol V8.6); all integers little endian. */
import { byteSum } from '../bytes.ts';
import { deviceIdBytes } from './device-id.ts';

export const protocolName = 'ap3000';

/** "DNY" */
export const magic = [0x44, 0x4e, 0x59] as const;
/** From the magic to the length field, which counts what follows it. */
export const headBytes = 5;
/** Physical id 4, message id 2, command 1, checksum 2. */
export const minLength = 9;
/** The vendor names 256 bytes, yet its own legacy firmware packets take 274. */
export const maxFrameBytes = 512;
export const maxPayloadBytes = maxFrameBytes - headBytes - minLength;
export const maxLength = maxFrameBytes - headBytes;

export const offsets = { length: 3, deviceId: 5, msgId: 9, cmd: 11, payload: 12 } as const;

/** Sum of all bytes before the checksum, low 16 bits. */
export function checksumOf(bytes: Uint8Array, from: number, to: number): number {
  return byteSum(bytes, from, to) & 0xffff;
}

/** A whole frame. The caller keeps the payload within `maxPayloadBytes`. */
export function buildFrame(
  deviceId: string,
  msgId: number,
  cmd: number,
  payload: Uint8Array,
): Uint8Array {
  const frame = Buffer.alloc(headBytes + minLength + payload.length);
  frame.set(magic, 0);
  frame.writeUInt16LE(minLength + payload.length, offsets.length);
  frame.set(deviceIdBytes(deviceId), offsets.deviceId);
  frame.writeUInt16LE(msgId, offsets.msgId);
  frame[offsets.cmd] = cmd;
  frame.set(payload, offsets.payload);
  const sumAt = frame.length - 2;
  frame.writeUInt16LE(checksumOf(frame, 0, sumAt), sumAt);
  return frame;
}
