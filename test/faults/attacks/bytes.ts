/** What devices and attackers say, out of the vendor's frames and arithmetic: no code of the product. */
import { bkvPatched } from '../../support/plain-device.ts';

/** BKV V1.7, heartbeat; it logs a device in, and the server answers it. */
const heartbeatHex =
  'fcfe002e0000000000000182200520004869383938363034363331313230373033313934313763562e31723436001fcafcee';
/** BKV V1.7, answer to a query of a socket's state. */
const queryReplyHex =
  'fcfe00350015001c91ee018600445945300500211c01513629150080000008ef00000001000000000180000008ef000000010000000077fcee';

export const largestFrame = 4_096;

export function heartbeat(deviceId: string): Buffer {
  return Buffer.from(bkvPatched(heartbeatHex, deviceId), 'hex');
}

export function queryReply(deviceId: string, msgId: string): Buffer {
  return Buffer.from(bkvPatched(queryReplyHex, deviceId, msgId), 'hex');
}

/** The head of a frame that claims to be as long as a frame may be, and a part of it. */
export function endlessFrame(deviceId: string, bytes: number): Buffer {
  const frame = Buffer.alloc(bytes);
  heartbeat(deviceId).copy(frame, 0, 0, 18);
  frame.writeUInt16BE(largestFrame - 4, 2);
  return frame;
}

/** No protocol's frames begin with such bytes. */
export function garbage(bytes: number): Buffer {
  return Buffer.from(Array.from({ length: bytes }, () => 0x80 + Math.floor(Math.random() * 0x60)));
}

/** Device ids that begin with these four digits. */
export function idsOf(head: string, count: number): string[] {
  return Array.from({ length: count }, (_, i) => `${head}${String(i + 1).padStart(10, '0')}`);
}
