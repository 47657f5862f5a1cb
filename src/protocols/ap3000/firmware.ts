/** Firmware packets as codecs; the transfer itself is not driven from here. */
import { byteSum } from '../bytes.ts';
import { encodeMessage } from './message.ts';

export const packetBytes = 200;
export const legacyPacketBytes = 256;

const checkMark = [0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8] as const;

export type FirmwareKind =
  | 'firmware.sub-device'
  | 'firmware.power-board'
  | 'firmware.host'
  | 'firmware.host-packet'
  | 'firmware.device-legacy'
  | 'firmware.host-legacy';

/** One packet of a firmware; short data is padded with zeros to the packet size of its kind. */
export function encodeFirmwarePacket(packet: {
  kind: FirmwareKind;
  deviceId: string;
  msgId: number;
  /** Packets in all, the check packet not counted. */
  total: number;
  /** From 1. */
  index: number;
  data: Uint8Array;
}): Uint8Array {
  const { kind, deviceId, msgId, total, index, data } = packet;
  const size = kind.endsWith('-legacy') ? legacyPacketBytes : packetBytes;
  const padded = Buffer.alloc(Math.max(size, data.length));
  padded.set(data);
  const fields = { total, index, data: padded.toString('hex') };
  return encodeMessage({ direction: 'down', name: kind, deviceId, msgId, fields });
}

/** The data of the packet after the last: proves the sum, the device type and the version. */
export function checkPacket(
  firmware: Uint8Array,
  { deviceType, version }: { deviceType: number; version: number },
): Uint8Array {
  const data = Buffer.alloc(packetBytes);
  data.set(checkMark);
  data.writeUInt32LE(byteSum(firmware, 0, firmware.length) % 2 ** 32, 8);
  data.writeUInt8(deviceType, 12);
  data.writeUInt16LE(version, 13);
  return data;
}
