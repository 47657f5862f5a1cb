/** The vendors' frames, and ways to spoil them. */
import type { Direction } from '../../src/protocols/protocol.ts';
import fixtures from '../frames/vendor_frames.json' with { type: 'json' };

export const mutations = ['flip', 'delete', 'insert', 'duplicate', 'truncate', 'splice'] as const;
export type Mutation = (typeof mutations)[number];

/** All vendor frames of a protocol and a direction. */
export function framesOf(protocol: string, direction: Direction): Uint8Array[] {
  const found = fixtures
    .filter((each) => each.protocol.toLowerCase() === protocol && each.direction === direction)
    .map(({ hex }) => new Uint8Array(Buffer.from(hex, 'hex')));
  if (found.length === 0) throw new Error(`no ${protocol} frames ${direction}`);
  return found;
}

/** A spoilt copy; any numbers will do. */
export function mutated(
  frame: Uint8Array,
  other: Uint8Array,
  mutation: Mutation,
  position: number,
  value: number,
): Uint8Array {
  const at = position % (frame.length + 1);
  const head = frame.subarray(0, at);
  switch (mutation) {
    case 'flip': {
      const copy = new Uint8Array(frame);
      if (at < copy.length) copy[at]! ^= value;
      return copy;
    }
    case 'delete':
      return Buffer.concat([head, frame.subarray(at + 1 + (value % 8))]);
    case 'insert':
      return Buffer.concat([head, Uint8Array.of(value), frame.subarray(at)]);
    case 'duplicate':
      return Buffer.concat([head, frame.subarray(Math.max(0, at - 1 - (value % 8)))]);
    case 'truncate':
      return new Uint8Array(head);
    case 'splice':
      return Buffer.concat([head, other.subarray(value % (other.length + 1))]);
  }
}

/** The same bytes with a head and a checksum that fit, so that they get past the framing. */
export function sealed(protocol: string, direction: Direction, frame: Uint8Array): Uint8Array {
  const bytes = Buffer.from(frame);
  return protocol === 'bkv' ? sealedBkv(bytes, direction) : sealedAp3000(bytes);
}

function sealedBkv(bytes: Buffer, direction: Direction): Uint8Array {
  if (bytes.length < 21) return bytes;
  bytes.set([0xfc, direction === 'up' ? 0xfe : 0xff]);
  bytes.writeUInt16BE(bytes.length - 4, 2);
  bytes[10] = direction === 'up' ? 1 : 0;
  bytes.set([0xfc, 0xee], bytes.length - 2);
  bytes[bytes.length - 3] = sum(bytes.subarray(2, -3)) & 0xff;
  return bytes;
}

function sealedAp3000(bytes: Buffer): Uint8Array {
  if (bytes.length < 14) return bytes;
  bytes.set([0x44, 0x4e, 0x59]);
  bytes.writeUInt16LE(bytes.length - 5, 3);
  bytes.writeUInt16LE(sum(bytes.subarray(0, -2)) & 0xffff, bytes.length - 2);
  return bytes;
}

function sum(bytes: Uint8Array): number {
  let total = 0;
  for (const byte of bytes) total += byte;
  return total;
}
