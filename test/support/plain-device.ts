/**
 * A device made of a TCP socket and arithmetic. It shares no code with the product, so that a codec that
 * is wrong in both directions is found out.
 */
import { once } from 'node:events';
import { connect } from 'node:net';

export type PlainDevice = {
  send(...frames: string[]): void;
  /** The next frame from the server, as hex; rejects when none comes in time. */
  frame(withinMs?: number): Promise<string>;
  /** Frames that came and were not asked for yet. */
  readonly unread: readonly string[];
  readonly closed: boolean;
  close(): Promise<void>;
};

/** How many bytes the frame at the head has in all, or null while that cannot be told. */
type FrameSize = (bytes: Buffer) => number | null;

/** BKV: 2 bytes of head, 2 of length, which counts neither the head nor the tail. */
export const bkvSize: FrameSize = (bytes) => (bytes.length < 4 ? null : bytes.readUInt16BE(2) + 4);

/** AP3000: "DNY", then 2 bytes of length, which counts what follows it. */
export const ap3000Size: FrameSize = (bytes) =>
  bytes.length < 5 ? null : bytes.readUInt16LE(3) + 5;

/** Puts the checksum of a BKV frame right: the sum of all bytes between head and checksum. */
export function bkvSealed(hex: string): string {
  const bytes = Buffer.from(hex, 'hex');
  const at = bytes.length - 3;
  bytes[at] = sum(bytes.subarray(2, at)) % 256;
  return bytes.toString('hex');
}

/** Puts the checksum of an AP3000 frame right: the sum of all bytes before it. */
export function ap3000Sealed(hex: string): string {
  const bytes = Buffer.from(hex, 'hex');
  const at = bytes.length - 2;
  bytes.writeUInt16LE(sum(bytes.subarray(0, at)) % 65_536, at);
  return bytes.toString('hex');
}

/** A vendor's BKV frame with another device in it, and with another message id. */
export function bkvPatched(hex: string, deviceId: string, msgId?: string): string {
  // head 2, length 2, cmd 2, message id 4, direction 1, device id 7
  const patched = hex.slice(0, 22) + deviceId + hex.slice(36);
  const id = msgId ?? hex.slice(12, 20);
  return bkvSealed(patched.slice(0, 12) + id + patched.slice(20));
}

/** A vendor's AP3000 frame with another physical id in it, and with another message id. */
export function ap3000Patched(hex: string, deviceId: string, msgId?: string): string {
  // head 3, length 2, physical id 4 (least significant byte first), message id 2
  const physical = Buffer.from(deviceId, 'hex').reverse().toString('hex');
  const patched = hex.slice(0, 10) + physical + hex.slice(18);
  return ap3000Sealed(patched.slice(0, 18) + (msgId ?? hex.slice(18, 22)) + patched.slice(22));
}

function sum(bytes: Uint8Array): number {
  return bytes.reduce((total, byte) => total + byte, 0);
}

/** Connects; frames are cut by the length they declare, and by nothing else. */
export async function connectPlain(
  { host, port }: { host: string; port: number },
  sizeOf: FrameSize,
): Promise<PlainDevice> {
  const socket = connect({ host, port });
  await once(socket, 'connect');
  const unread: string[] = [];
  const readers: ((hex: string) => void)[] = [];
  let held: Buffer = Buffer.alloc(0);
  let closed = false;
  socket.on('data', (chunk) => {
    held = Buffer.concat([held, chunk]);
    for (;;) {
      const size = sizeOf(held);
      if (size === null || held.length < size) return;
      const hex = held.subarray(0, size).toString('hex');
      held = held.subarray(size);
      const reader = readers.shift();
      if (reader) reader(hex);
      else unread.push(hex);
    }
  });
  socket.on('error', () => undefined);
  socket.on('close', () => {
    closed = true;
  });
  return {
    send: (...frames) => void socket.write(Buffer.from(frames.join(''), 'hex')),
    frame(withinMs = 5_000) {
      const first = unread.shift();
      if (first !== undefined) return Promise.resolve(first);
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          readers.splice(readers.indexOf(reader), 1);
          reject(new Error(`the server sent no frame within ${withinMs} ms`));
        }, withinMs);
        const reader = (hex: string) => {
          clearTimeout(timer);
          resolve(hex);
        };
        readers.push(reader);
      });
    },
    get unread() {
      return unread;
    },
    get closed() {
      return closed;
    },
    async close() {
      if (closed) return;
      socket.destroy();
      await once(socket, 'close');
    },
  };
}
