/**
 * Cuts frames out of a byte stream and builds them. BKV V1.7 §"frame format":
 *
 * magic 2, length 2 (of all that follows it), cmd 2, msgId 4, direction 1, gateway id 7, data n,
 * checksum 1, tail 2. Nothing is escaped, so the tail may occur in the data: only the length tells
 * where a frame ends.
 */
import { DownlinkError } from '../../errors.ts';
import { byteSum, fromHex } from '../bytes.ts';
import type { Direction, GarbageReason } from '../protocol.ts';

export type Cut =
  | { kind: 'frame'; bytes: Uint8Array }
  | { kind: 'garbage'; bytes: Uint8Array; reason: GarbageReason };

export type Framer = {
  push(chunk: Uint8Array): Cut[];
  giveUp(): Cut[];
  readonly pending: number;
};

export const maxFrameBytes = 4096;
/** Where the data begins: magic, length, cmd, msgId, direction and gateway id come before it. */
export const dataOffset = 18;
/** Checksum and tail, after the data. */
export const trailerBytes = 3;

const magicFirst = 0xfc;
const magicSecond = { up: 0xfe, down: 0xff } as const;
const directionByte = { up: 1, down: 0 } as const;
const directionOffset = 10;
const lengthEnd = 4;
/** cmd to tail of a frame without data. */
const minLength = 17;
const tail = [0xfc, 0xee] as const;
const firstWindowBytes = 256;

const nothing = new Uint8Array(0);

/** Builds a frame around the data. */
export function buildFrame(frame: {
  direction: Direction;
  cmd: number;
  msgId: number;
  deviceId: string;
  data: ArrayLike<number>;
}): Uint8Array {
  const { direction, data } = frame;
  const total = dataOffset + data.length + trailerBytes;
  if (total > maxFrameBytes) {
    throw new DownlinkError(
      'INVALID_PAYLOAD',
      `a BKV frame must not exceed ${maxFrameBytes} bytes, this one has ${total}`,
    );
  }
  const id = fromHex(frame.deviceId);
  if (id?.length !== 7) {
    throw new DownlinkError('INVALID_DEVICE_ID', 'a BKV device id must be 14 hex digits');
  }
  const bytes = new Uint8Array(total);
  const view = new DataView(bytes.buffer);
  bytes[0] = magicFirst;
  bytes[1] = magicSecond[direction];
  view.setUint16(2, total - lengthEnd);
  view.setUint16(4, frame.cmd);
  view.setUint32(6, frame.msgId);
  bytes[directionOffset] = directionByte[direction];
  bytes.set(id, 11);
  bytes.set(data, dataOffset);
  bytes[total - 3] = byteSum(bytes, 2, total - 3) & 0xff;
  bytes.set(tail, total - 2);
  return bytes;
}

/**
 * A streaming cutter for one direction. Each verdict looks only at the bytes from its own
 * position on, so the way in which the stream was split or glued cannot change what comes out.
 */
export function createFramer(direction: Direction): Framer {
  const secondByte = magicSecond[direction];
  const wantedDirection = directionByte[direction];

  let window = nothing;
  /**
   * sums[i] is the byte sum up to and including window[i], low 8 bits: a checksum costs one
   * subtraction, so overlapping false frames cannot make us add up the same bytes over and over.
   */
  let sums = nothing;
  let start = 0;
  let end = 0;
  /** Bytes that must be held before the next verdict is possible. */
  let need = 1;

  function makeRoom(count: number): void {
    if (end + count <= window.length) return;
    const held = end - start;
    let capacity = Math.max(window.length, firstWindowBytes);
    while (capacity < held + count) capacity *= 2;
    // At least half of the window must be free after a move, so that moving stays cheap per byte.
    if (capacity < 2 * held) capacity *= 2;
    if (capacity === window.length) {
      window.copyWithin(0, start, end);
      sums.copyWithin(0, start, end);
    } else {
      window = resized(window, start, end, capacity);
      sums = resized(sums, start, end, capacity);
    }
    start = 0;
    end = held;
  }

  function append(piece: Uint8Array): void {
    makeRoom(piece.length);
    window.set(piece, end);
    let sum = end > start ? sums[end - 1]! : 0;
    for (const byte of piece) {
      sum = (sum + byte) & 0xff;
      sums[end] = sum;
      end += 1;
    }
  }

  function drop(out: Collector, count: number, reason: GarbageReason): void {
    out.garbage(window.subarray(start, start + count), reason);
    start += count;
    need = 1;
  }

  /**
   * Judges the bytes at `start`; `more` leaves in `need` how many must be held for the next
   * verdict.
   */
  function judge(): 'more' | 'frame' | GarbageReason {
    const held = end - start;
    if (window[start] !== magicFirst) return 'noise';
    if (held < 2) return more(2);
    if (window[start + 1] !== secondByte) return 'noise';
    if (held < lengthEnd) return more(lengthEnd);
    const length = (window[start + 2]! << 8) | window[start + 3]!;
    if (length < minLength || lengthEnd + length > maxFrameBytes) return 'length';
    if (held <= directionOffset) return more(directionOffset + 1);
    if (window[start + directionOffset] !== wantedDirection) return 'direction';
    const total = lengthEnd + length;
    if (held < total) return more(total);
    const stop = start + total;
    if (window[stop - 2] !== tail[0] || window[stop - 1] !== tail[1]) return 'tail';
    const sum = (sums[stop - 4]! - sums[start + 1]!) & 0xff;
    if (sum !== window[stop - 3]) return 'checksum';
    need = total;
    return 'frame';
  }

  function more(count: number): 'more' {
    need = count;
    return 'more';
  }

  function cut(out: Collector): void {
    while (end - start >= need) {
      const verdict = judge();
      if (verdict === 'more') continue;
      if (verdict === 'frame') {
        out.frame(window.subarray(start, start + need));
        start += need;
        need = 1;
      } else {
        drop(out, verdict === 'noise' ? noiseLength(window, start, end) : 1, verdict);
      }
    }
    if (start < end) return;
    // An idle connection holds no window.
    window = nothing;
    sums = nothing;
    start = 0;
    end = 0;
  }

  return {
    push(chunk) {
      const out = createCollector();
      for (let at = 0; at < chunk.length; at += maxFrameBytes) {
        append(chunk.subarray(at, at + maxFrameBytes));
        cut(out);
      }
      return out.end();
    },
    giveUp() {
      const out = createCollector();
      if (start < end) {
        drop(out, 1, 'partial-timeout');
        cut(out);
      }
      return out.end();
    },
    get pending() {
      return end - start;
    },
  };
}

function resized(bytes: Uint8Array, from: number, to: number, capacity: number) {
  const next = new Uint8Array(capacity);
  next.set(bytes.subarray(from, to));
  return next;
}

/** How many bytes from `start` on cannot begin a frame: all up to the next byte that may. */
function noiseLength(window: Uint8Array, start: number, end: number): number {
  let next = start + 1;
  while (next < end && window[next] !== magicFirst) next += 1;
  return next - start;
}

type Collector = {
  frame(view: Uint8Array): void;
  garbage(view: Uint8Array, reason: GarbageReason): void;
  end(): Cut[];
};

/**
 * Gathers what one push gave. It copies: the window moves on, and a frame must not keep a whole
 * chunk alive.
 */
function createCollector(): Collector {
  const cuts: Cut[] = [];
  let run = nothing;
  let runLength = 0;
  let runReason: GarbageReason = 'noise';

  function closeRun(): void {
    if (runLength === 0) return;
    cuts.push({ kind: 'garbage', bytes: run.slice(0, runLength), reason: runReason });
    runLength = 0;
  }

  return {
    frame(view) {
      closeRun();
      cuts.push({ kind: 'frame', bytes: new Uint8Array(view) });
    },
    garbage(view, reason) {
      if (reason !== runReason) closeRun();
      runReason = reason;
      if (runLength + view.length > run.length) {
        run = resized(run, 0, runLength, Math.max(64, 2 * (runLength + view.length)));
      }
      run.set(view, runLength);
      runLength += view.length;
    },
    end() {
      closeRun();
      return cuts;
    },
  };
}
