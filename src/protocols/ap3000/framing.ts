/** Cuts frames and the modem's plain text out of a byte stream, whatever way it was split. */
import type { Decoded, Decoder, Direction, GarbageReason, Sniff } from '../protocol.ts';
import { checksumOf, headBytes, magic, maxLength, minLength, offsets } from './frame.ts';
import { decodeMessage, decodePlainText, type PlainText } from './message.ts';

/** What stands at the head of the bytes. It depends on the stream alone, never on chunk borders. */
type Head =
  | { kind: 'frame'; bytes: number }
  | { kind: 'text'; name: PlainText; bytes: number }
  | { kind: 'more' }
  | { kind: 'drop'; reason: GarbageReason };

const link = [0x6c, 0x69, 0x6e, 0x6b] as const;
const iccidBytes = 20;
const empty = new Uint8Array(0);

const more: Head = { kind: 'more' };
const linkText: Head = { kind: 'text', name: 'link', bytes: link.length };
const iccidText: Head = { kind: 'text', name: 'iccid', bytes: iccidBytes };
const noise: Head = { kind: 'drop', reason: 'noise' };
const badLength: Head = { kind: 'drop', reason: 'length' };
const badChecksum: Head = { kind: 'drop', reason: 'checksum' };

/** A decoder of one direction. The server sends no plain text, so none is looked for in `down`. */
export function createDecoder(direction: Direction): Decoder {
  let held: Uint8Array = empty;

  const cut = (bytes: Uint8Array, firstDrop: GarbageReason | null): Decoded[] => {
    const out: Decoded[] = [];
    let at = 0;
    let garbageFrom = 0;
    let reason: GarbageReason | null = null;
    const flush = () => {
      if (reason !== null) {
        out.push({ kind: 'garbage', bytes: copy(bytes, garbageFrom, at), reason });
      }
      reason = null;
    };
    const drop = (why: GarbageReason) => {
      if (why !== reason) {
        flush();
        garbageFrom = at;
        reason = why;
      }
      at += 1;
    };
    if (firstDrop !== null) drop(firstDrop);
    while (at < bytes.length) {
      const head = headAt(bytes, at, direction);
      if (head.kind === 'more') break;
      if (head.kind === 'drop') {
        drop(head.reason);
        continue;
      }
      flush();
      const piece = copy(bytes, at, at + head.bytes);
      at += head.bytes;
      const message =
        head.kind === 'frame' ? decodeMessage(direction, piece) : decodePlainText(head.name, piece);
      out.push({ kind: 'message', message });
    }
    flush();
    // what waits is shorter than one frame: `more` is said only below the length that is waited for
    held = at === bytes.length ? empty : copy(bytes, at, bytes.length);
    return out;
  };

  return {
    push: (chunk) => cut(held.length === 0 ? chunk : Buffer.concat([held, chunk]), null),
    giveUp: () => (held.length === 0 ? [] : cut(held, 'partial-timeout')),
    get pending() {
      return held.length;
    },
  };
}

/** Whether a connection that begins so speaks this protocol. */
export function sniff(head: Uint8Array): Sniff {
  if (startsWith(head, 0, magic)) return head.length < magic.length ? 'more' : 'match';
  const text = textAt(head, 0);
  return text === null ? 'no' : text.kind === 'more' ? 'more' : 'match';
}

function headAt(bytes: Uint8Array, at: number, direction: Direction): Head {
  if (startsWith(bytes, at, magic)) return frameAt(bytes, at);
  return (direction === 'up' ? textAt(bytes, at) : null) ?? noise;
}

function frameAt(bytes: Uint8Array, at: number): Head {
  const available = bytes.length - at;
  if (available < headBytes) return more;
  const length = uint16(bytes, at + offsets.length);
  if (length < minLength || length > maxLength) return badLength;
  const frameBytes = headBytes + length;
  if (available < frameBytes) return more;
  const sumAt = at + frameBytes - 2;
  const sound = checksumOf(bytes, at, sumAt) === uint16(bytes, sumAt);
  return sound ? { kind: 'frame', bytes: frameBytes } : badChecksum;
}

function textAt(bytes: Uint8Array, at: number): Head | null {
  const available = bytes.length - at;
  if (startsWith(bytes, at, link)) return available < link.length ? more : linkText;
  if (!startsLikeIccid(bytes, at)) return null;
  return available < iccidBytes ? more : iccidText;
}

/** True when the first 20 bytes, or as many as there are, read 89 and hex digits. */
function startsLikeIccid(bytes: Uint8Array, at: number): boolean {
  if (bytes[at] !== 0x38 || (at + 1 < bytes.length && bytes[at + 1] !== 0x39)) return false;
  const end = Math.min(bytes.length, at + iccidBytes);
  for (let i = at + 2; i < end; i += 1) if (!isHexDigit(bytes[i]!)) return false;
  return true;
}

/** True when the bytes from `at` are the word or, where they end, a beginning of it. */
function startsWith(bytes: Uint8Array, at: number, word: readonly number[]): boolean {
  const end = Math.min(word.length, bytes.length - at);
  for (let i = 0; i < end; i += 1) if (bytes[at + i] !== word[i]) return false;
  return true;
}

function isHexDigit(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x41 && byte <= 0x46) ||
    (byte >= 0x61 && byte <= 0x66)
  );
}

function uint16(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

function copy(bytes: Uint8Array, from: number, to: number): Uint8Array {
  return new Uint8Array(bytes.subarray(from, to));
}
