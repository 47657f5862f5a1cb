/**
 * What the fleet saw: every command frame that reached a device, what the device meant to answer and when
 * it did, and every end of a connection. Tests compare the ledger with it.
 */
import { createWriteStream } from 'node:fs';
import { finished } from 'node:stream/promises';

export type Intended = 'ack' | 'nack' | 'none' | 'late';

export type FrameEntry = {
  kind: 'frame';
  seq: number;
  /** Arrival, Unix milliseconds. */
  at: number;
  deviceId: string;
  protocol: string;
  /** Number of the connection, counted over the whole fleet. */
  connection: number;
  wireId: number;
  /** Name of the message in the protocol's table. */
  name: string;
  cmd: number;
  subCmd: number | null;
  /** Hex. */
  frame: string;
  intended: Intended;
  /** What the answer says, whether or not it is sent; `nothing`: there is none, or the device never looked. */
  says: 'ack' | 'nack' | 'nothing';
  /** The command took effect, with this frame or an earlier one of the same wire id, whatever the answer says. */
  executed: boolean;
  /** When the answer's bytes were handed to the socket; null: they were not. */
  answeredAt: number | null;
  /** Hex of those bytes. */
  answer: string | null;
  /** The device had seen this wire id before. */
  duplicate: boolean;
};

export type CloseEntry = {
  kind: 'close';
  seq: number;
  at: number;
  connection: number;
  deviceIds: readonly string[];
  /** `device`: after everything it had sent; `reset`: the device broke off; `server`: the other side, or the network. */
  by: 'device' | 'reset' | 'server';
};

export type LogEntry = FrameEntry | CloseEntry;

export type FleetLog = {
  /** Takes the entry in and gives it its number. */
  add<T extends LogEntry>(entry: T): T;
  /** Nothing about the entry will change any more; a file gets its line now. */
  complete(entry: LogEntry): void;
  /** Entries held in memory, oldest first, from this number on. */
  entries(fromSeq?: number): LogEntry[];
  frames(fromSeq?: number): FrameEntry[];
  /** Entries that memory had no room for; 0 means that `entries` is everything. */
  readonly dropped: number;
  readonly size: number;
  /** Writes the lines of incomplete entries and closes the file. */
  close(): Promise<void>;
};

export type FleetLogOptions = {
  /** Entries held in memory; older ones are dropped and counted. 0 with `file`: none. */
  capacity?: number;
  /** Path of a JSON-lines file that gets every entry once it is complete. */
  file?: string;
};

/** A log in memory, in a file, or both. */
export function createFleetLog({ capacity = 1_000_000, file }: FleetLogOptions = {}): FleetLog {
  // a ring: `first` is the oldest entry once the array is full
  const ring: LogEntry[] = [];
  let first = 0;
  let added = 0;
  const incomplete = new Set<LogEntry>();
  const stream = file === undefined ? null : createWriteStream(file, { flags: 'w' });

  const keep = (entry: LogEntry) => {
    if (capacity === 0) return;
    if (ring.length < capacity) {
      ring.push(entry);
      return;
    }
    ring[first] = entry;
    first = (first + 1) % capacity;
  };

  const entries = (fromSeq = 1): LogEntry[] => {
    const oldest = added - ring.length + 1;
    const skip = Math.max(0, fromSeq - oldest);
    if (first === 0) return ring.slice(skip);
    return [...ring.slice(first), ...ring.slice(0, first)].slice(skip);
  };

  return {
    add(entry) {
      added += 1;
      entry.seq = added;
      keep(entry);
      if (stream) incomplete.add(entry);
      return entry;
    },
    complete(entry) {
      if (stream && incomplete.delete(entry)) stream.write(`${JSON.stringify(entry)}\n`);
    },
    entries,
    frames: (fromSeq) => entries(fromSeq).filter((entry) => entry.kind === 'frame'),
    get dropped() {
      return added - ring.length;
    },
    get size() {
      return added;
    },
    async close() {
      if (!stream) return;
      for (const entry of incomplete) stream.write(`${JSON.stringify(entry)}\n`);
      incomplete.clear();
      stream.end();
      await finished(stream);
    },
  };
}
