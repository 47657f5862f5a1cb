/**
 * A small vocabulary for fixed layouts: one definition both reads and writes. All numbers are big
 * endian.
 */
import { DownlinkError } from '../../errors.ts';
import { fromHex, toHex } from '../bytes.ts';
import type { Fields } from '../protocol.ts';

/** A value of fixed size. Reading and writing back gives the same bytes, whatever they are. */
export type Codec = {
  size: number;
  read(bytes: Uint8Array, at: number): unknown;
  write(value: unknown, sink: number[], name: string): void;
};

export type Source = { bytes: Uint8Array; at: number };

/** A stretch of a layout. */
export type Part = {
  /** Reads into `fields`; false when the bytes ran out. */
  read(source: Source, fields: Fields): boolean;
  write(fields: Fields, sink: number[]): void;
};

/** Fields one after the other, in the order of the keys. */
export function fixed(codecs: Record<string, Codec>): Part {
  const entries = Object.entries(codecs);
  return {
    read(source, fields) {
      for (const [name, codec] of entries) {
        if (source.at + codec.size > source.bytes.length) return false;
        fields[name] = codec.read(source.bytes, source.at);
        source.at += codec.size;
      }
      return true;
    },
    write(fields, sink) {
      for (const [name, codec] of entries) codec.write(fields[name], sink, name);
    },
  };
}

/** A count byte and so many items; the count shows in the fields where `countName` names it. */
export function counted(name: string, item: Codec, countName?: string): Part {
  return {
    read(source, fields) {
      const count = source.bytes[source.at];
      if (count === undefined) return false;
      source.at += 1;
      if (countName !== undefined) fields[countName] = count;
      const items = readItems(source, item, count);
      fields[name] = items;
      return items.length === count;
    },
    write(fields, sink) {
      const items = listOf(fields[name], name);
      u8.write(items.length, sink, `the count of ${name}`);
      writeItems(items, item, sink, name);
    },
  };
}

/** As many whole items as there are bytes left. */
export function rest(name: string, item: Codec): Part {
  return {
    read(source, fields) {
      fields[name] = readItems(source, item, Number.POSITIVE_INFINITY);
      return true;
    },
    write(fields, sink) {
      writeItems(listOf(fields[name], name), item, sink, name);
    },
  };
}

/** Parts that are only there when the fields before them say so. */
export function when(holds: (fields: Fields) => boolean, parts: readonly Part[]): Part {
  return {
    read: (source, fields) => !holds(fields) || parts.every((part) => part.read(source, fields)),
    write(fields, sink) {
      if (holds(fields)) for (const part of parts) part.write(fields, sink);
    },
  };
}

/** An item of a list that is itself made of fields. */
export function record(codecs: Record<string, Codec>): Codec {
  const part = fixed(codecs);
  return {
    size: Object.values(codecs).reduce((sum, codec) => sum + codec.size, 0),
    read(bytes, at) {
      const fields: Fields = {};
      part.read({ bytes, at }, fields);
      return fields;
    },
    write(value, sink, name) {
      if (typeof value !== 'object' || value === null) throw unfit(name, 'an object', value);
      part.write(value as Fields, sink);
    },
  };
}

export const u8 = uint(1);
export const u16 = uint(2);
export const u32 = uint(4);

/** Lower-case hex of the bytes. */
export function hex(size: number): Codec {
  return {
    size,
    read: (bytes, at) => toHex(bytes.subarray(at, at + size)),
    write: (value, sink, name) => writeHex(value, size, sink, name),
  };
}

/** One byte as `0x98`: bits rather than a number. */
export const bits: Codec = {
  size: 1,
  read: (bytes, at) => `0x${toHex(bytes.subarray(at, at + 1))}`,
  write(value, sink, name) {
    writeHex(typeof value === 'string' ? value.replace(/^0x/i, '') : value, 1, sink, name);
  },
};

const printable = /^[\x20-\x7e]*$/;
const hexMark = 'hex:';

/**
 * ASCII, NUL padded. Bytes that are no plain text come as `hex:…`, so that no value can harm who
 * stores it.
 */
export function ascii(size: number): Codec {
  return {
    size,
    read(bytes, at) {
      const raw = bytes.subarray(at, at + size);
      let length = size;
      while (length > 0 && raw[length - 1] === 0) length -= 1;
      const text = Buffer.from(raw.subarray(0, length)).toString('latin1');
      return printable.test(text) && !text.startsWith(hexMark) ? text : hexMark + toHex(raw);
    },
    write(value, sink, name) {
      if (typeof value === 'string' && value.startsWith(hexMark)) {
        writeHex(value.slice(hexMark.length), size, sink, name);
        return;
      }
      if (typeof value !== 'string' || value.length > size || !printable.test(value)) {
        throw unfit(name, `at most ${size} printable ASCII characters`, value);
      }
      for (let i = 0; i < size; i += 1) sink.push(i < value.length ? value.charCodeAt(i) : 0);
    },
  };
}

/** Year in two bytes, then month, day, hour, minute, second in one each: `2020-06-08 14:21:07`. */
export const dateTime: Codec = {
  size: 7,
  read(bytes, at) {
    const year = (bytes[at]! << 8) | bytes[at + 1]!;
    const [month, day, hour, minute, second] = [...bytes.subarray(at + 2, at + 7)].map(twoDigits);
    return `${String(year).padStart(4, '0')}-${month}-${day} ${hour}:${minute}:${second}`;
  },
  write(value, sink, name) {
    const [year, ...others] = numbersIn(value, 6, 'a time such as 2020-06-08 14:21:07', name);
    u16.write(year, sink, name);
    for (const other of others) u8.write(other, sink, name);
  },
};

/** Hour and minute in one byte each: `23:59`. */
export const clock: Codec = {
  size: 2,
  read: (bytes, at) => `${twoDigits(bytes[at]!)}:${twoDigits(bytes[at + 1]!)}`,
  write(value, sink, name) {
    for (const n of numbersIn(value, 2, 'a time such as 23:59', name)) u8.write(n, sink, name);
  },
};

/** An IPv4 address in dotted form. */
export const ipv4: Codec = {
  size: 4,
  read: (bytes, at) => bytes.subarray(at, at + 4).join('.'),
  write(value, sink, name) {
    for (const n of numbersIn(value, 4, 'an IPv4 address', name)) u8.write(n, sink, name);
  },
};

/** The number in so many big-endian bytes. */
export function readUint(bytes: Uint8Array, at: number, size: number): number {
  let value = 0;
  for (let i = 0; i < size; i += 1) value = value * 256 + bytes[at + i]!;
  return value;
}

function uint(size: 1 | 2 | 4): Codec {
  const max = 256 ** size - 1;
  return {
    size,
    read: (bytes, at) => readUint(bytes, at, size),
    write(value, sink, name) {
      if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > max) {
        throw unfit(name, `a whole number of 0 to ${max}`, value);
      }
      for (let i = size - 1; i >= 0; i -= 1)
        sink.push(Math.floor((value as number) / 256 ** i) & 0xff);
    },
  };
}

function readItems(source: Source, item: Codec, most: number): unknown[] {
  const items: unknown[] = [];
  while (items.length < most && source.at + item.size <= source.bytes.length) {
    items.push(item.read(source.bytes, source.at));
    source.at += item.size;
  }
  return items;
}

function writeItems(items: readonly unknown[], item: Codec, sink: number[], name: string): void {
  for (const [i, value] of items.entries()) item.write(value, sink, `${name}[${i}]`);
}

function listOf(value: unknown, name: string): readonly unknown[] {
  if (!Array.isArray(value)) throw unfit(name, 'a list', value);
  return value;
}

function writeHex(value: unknown, size: number, sink: number[], name: string): void {
  const bytes = typeof value === 'string' ? fromHex(value) : null;
  if (bytes?.length !== size) throw unfit(name, `${size * 2} hex digits`, value);
  sink.push(...bytes);
}

function numbersIn(value: unknown, count: number, what: string, name: string): number[] {
  const numbers = typeof value === 'string' ? (value.match(/\d+/g) ?? []).map(Number) : [];
  if (numbers.length !== count) throw unfit(name, what, value);
  return numbers;
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}

function unfit(name: string, wanted: string, value: unknown): DownlinkError {
  const shown = JSON.stringify(value)?.slice(0, 80) ?? 'nothing';
  return new DownlinkError('INVALID_PAYLOAD', `${name} must be ${wanted}, not ${shown}`);
}
