/** The vendor's BKV frames, and what each is called in our table. */
import { expect } from 'vitest';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { fromHex, toHex } from '../../src/protocols/bytes.ts';
import type { Decoded, Direction, Fields, Message } from '../../src/protocols/protocol.ts';
import frames from '../frames/vendor_frames.json' with { type: 'json' };

export type Fixture = {
  name: string;
  direction: Direction;
  hex: string;
  cmd: string;
  subCmd: string | null;
  msgId: string;
  gatewayId: string;
  fields: Fields;
};

export const fixtures: readonly Fixture[] = frames
  .filter(({ protocol }) => protocol === 'BKV')
  .map((frame) => ({
    name: frame.name,
    direction: frame.direction as Direction,
    hex: frame.hex,
    cmd: (frame as { cmd: string }).cmd,
    subCmd: (frame as { subCmd?: string }).subCmd ?? null,
    msgId: (frame as { msgId: string }).msgId,
    gatewayId: (frame as { gatewayId: string }).gatewayId,
    fields: frame.fields as Fields,
  }));

export function bytesOf(hex: string): Uint8Array {
  const bytes = fromHex(hex);
  if (bytes === null) throw new Error(`not hex: ${hex}`);
  // Not a Buffer, whose slice() is a view.
  return new Uint8Array(bytes);
}

/** The hex of the one fixture whose name begins so. */
export function fixture(name: string): Fixture {
  const found = fixtures.find((frame) => frame.name.startsWith(name));
  if (found === undefined) throw new Error(`no fixture ${name}`);
  return found;
}

/** Decodes the only frame in the bytes. */
export function decodeOne(hex: string | Uint8Array, direction: Direction): Message {
  const decoder = bkv.decoder(direction);
  const decoded = decoder.push(typeof hex === 'string' ? bytesOf(hex) : hex);
  expect(decoder.pending).toBe(0);
  expect(decoded).toHaveLength(1);
  const [only] = decoded;
  if (only?.kind !== 'message') throw new Error(`garbage: ${only?.reason}`);
  return only.message;
}

/**
 * What was decoded, as text that can be compared; neighbouring garbage of one reason is one item.
 */
export function transcript(decoded: readonly Decoded[]): string[] {
  const lines: string[] = [];
  let reason: string | null = null;
  for (const item of decoded) {
    if (item.kind === 'message') {
      lines.push(`frame ${toHex(item.message.frame)}`);
      reason = null;
    } else if (item.reason === reason) {
      lines.push(`${lines.pop()}${toHex(item.bytes)}`);
    } else {
      lines.push(`${item.reason} ${toHex(item.bytes)}`);
      reason = item.reason;
    }
  }
  return lines;
}

export function messagesOf(decoded: readonly Decoded[]): Message[] {
  return decoded.flatMap((item) => (item.kind === 'message' ? [item.message] : []));
}

export function garbageOf(decoded: readonly Decoded[]): string {
  return decoded.flatMap((item) => (item.kind === 'garbage' ? [toHex(item.bytes)] : [])).join('');
}
