/** Payload layouts: named fields one after another, read and written by the same description. */
import { fromHex, toHex } from '../bytes.ts';
import type { Fields } from '../protocol.ts';
import { deviceIdBytes, parseDeviceId, readDeviceId } from './device-id.ts';

export type FieldCodec = {
  /** Bytes that the field takes at `at`; when that is more than there are, it is not there. */
  width(payload: Buffer, at: number, before: Fields): number;
  read(payload: Buffer, at: number, width: number): unknown;
  /** The bytes of a value, or, as text, what the value has to be. */
  write(value: unknown, all: Fields): Uint8Array | string;
};

export type Layout = {
  required: readonly (readonly [string, FieldCodec])[];
  /** Appended over the years: there as far as the payload reaches. */
  optional: readonly (readonly [string, FieldCodec])[];
  names: ReadonlySet<string>;
};

/** Field that keeps bytes beyond the documented layout, so that nothing is lost. */
const tailField = 'undocumentedTail';

const unsigned = (size: 1 | 2 | 4): FieldCodec => {
  const max = 2 ** (8 * size) - 1;
  return {
    width: () => size,
    read: (payload, at) => payload.readUIntLE(at, size),
    write(value) {
      if (!isWithin(value, max)) return `an integer from 0 to ${max}`;
      const bytes = Buffer.alloc(size);
      bytes.writeUIntLE(value, 0, size);
      return bytes;
    },
  };
};

export const u8 = unsigned(1);
export const u16 = unsigned(2);
export const u32 = unsigned(4);

/** Raw bytes as hex, in wire order. */
export const hex = (size: number): FieldCodec => ({
  width: () => size,
  read: hexOf,
  write(value) {
    const bytes = typeof value === 'string' ? fromHex(value) : null;
    return bytes?.length === size ? bytes : `${2 * size} hex digits`;
  },
});

/** All bytes that are left, as hex. */
export const rest: FieldCodec = {
  width: (payload, at) => payload.length - at,
  read: hexOf,
  write: (value) => (typeof value === 'string' ? fromHex(value) : null) ?? 'whole bytes of hex',
};

/** A length byte and as many bytes, as hex. */
export const counted: FieldCodec = {
  width: (payload, at) => 1 + (payload[at] ?? 0),
  read: (payload, at, width) => hexOf(payload, at + 1, width - 1),
  write(value) {
    const bytes = typeof value === 'string' ? fromHex(value) : null;
    if (bytes === null || bytes.length > 255) return 'hex of at most 255 bytes';
    return Buffer.concat([Buffer.of(bytes.length), bytes]);
  },
};

/**
 * NUL padded text. What is not printable ASCII followed by NULs is given as `hex:` and all its
 * digits, which no text of the field's size can look like.
 */
export const ascii = (size: number): FieldCodec => ({
  width: () => size,
  read: (payload, at) =>
    paddedText(payload.subarray(at, at + size)) ?? `hex:${hexOf(payload, at, size)}`,
  write(value) {
    const wanted = `at most ${size} printable ASCII characters`;
    if (typeof value !== 'string') return wanted;
    if (value.length === 4 + 2 * size && value.startsWith('hex:')) {
      return fromHex(value.slice(4)) ?? wanted;
    }
    if (value.length > size || !/^[\x20-\x7e]*$/.test(value)) return wanted;
    const bytes = Buffer.alloc(size);
    bytes.write(value, 'latin1');
    return bytes;
  },
});

/** One number per port, counted by an earlier field. */
export const perPort = (size: 1 | 2, countField: string): FieldCodec => {
  const max = 2 ** (8 * size) - 1;
  return {
    width: (_payload, _at, before) => size * Number(before[countField]),
    read(payload, at, width) {
      const values: number[] = [];
      for (let i = at; i < at + width; i += size) values.push(payload.readUIntLE(i, size));
      return values;
    },
    write(value, all) {
      const count = all[countField];
      const wanted = `a list of ${String(count)} integers from 0 to ${max}, one for each of \`${countField}\``;
      if (!Array.isArray(value) || value.length !== count) return wanted;
      if (!value.every((item) => isWithin(item, max))) return wanted;
      const bytes = Buffer.alloc(size * value.length);
      for (const [i, item] of value.entries()) bytes.writeUIntLE(item, i * size, size);
      return bytes;
    },
  };
};

/** A count byte and as many physical ids. */
export const deviceIds: FieldCodec = {
  width: (payload, at) => 1 + 4 * (payload[at] ?? 0),
  read(payload, at, width) {
    const ids: string[] = [];
    for (let i = at + 1; i < at + width; i += 4) ids.push(readDeviceId(payload, i));
    return ids;
  },
  write(value) {
    const wanted = 'a list of at most 120 device ids of 8 hex digits';
    if (!Array.isArray(value) || value.length > 120) return wanted;
    const parts: Uint8Array[] = [Buffer.of(value.length)];
    for (const item of value) {
      const id = typeof item === 'string' ? parseDeviceId(item) : null;
      if (id === null) return wanted;
      parts.push(deviceIdBytes(id));
    }
    return Buffer.concat(parts);
  },
};

/** A count byte and as many groups of fields, each of the same fixed size. */
export const groups = (size: number, layout: Layout): FieldCodec => ({
  width: (payload, at) => 1 + size * (payload[at] ?? 0),
  read(payload, at, width) {
    const items: Fields[] = [];
    for (let i = at + 1; i < at + width; i += size) {
      items.push(readPayload(layout, payload.subarray(i, i + size)).fields);
    }
    return items;
  },
  write(value) {
    if (!Array.isArray(value) || value.length > 255) return 'a list of at most 255 groups';
    const parts: Uint8Array[] = [Buffer.of(value.length)];
    for (const item of value) {
      const bytes = writePayload(layout, (item ?? {}) as Fields);
      if (typeof bytes === 'string') return `a list of groups in which ${bytes}`;
      parts.push(bytes);
    }
    return Buffer.concat(parts);
  },
});

export const physicalId: FieldCodec = {
  width: () => 4,
  read: readDeviceId,
  write(value) {
    const id = typeof value === 'string' ? parseDeviceId(value) : null;
    return id === null ? 'a device id of 8 hex digits' : deviceIdBytes(id);
  },
};

/** A layout of fields in wire order; the optional ones follow the required ones. */
export function layout(
  required: Record<string, FieldCodec>,
  optional: Record<string, FieldCodec> = {},
): Layout {
  return {
    required: Object.entries(required),
    optional: Object.entries(optional),
    names: new Set([...Object.keys(required), ...Object.keys(optional), tailField]),
  };
}

/** Reads a payload; never throws. A payload that ends too early gives a fault and what was read till then. */
export function readPayload(
  { required, optional }: Layout,
  payload: Buffer,
): { fields: Fields; fault?: string } {
  const fields: Fields = {};
  let at = 0;
  let fault: string | undefined;
  const take = ([name, codec]: readonly [string, FieldCodec]): boolean => {
    const width = codec.width(payload, at, fields);
    if (at + width > payload.length) return false;
    fields[name] = codec.read(payload, at, width);
    at += width;
    return true;
  };
  const missing = required.find((field) => !take(field));
  if (missing === undefined) optional.every(take);
  else
    fault = `the payload ends after byte ${payload.length}, before its field ${missing[0]} is whole`;
  if (at < payload.length) fields[tailField] = hexOf(payload, at, payload.length - at);
  return fault === undefined ? { fields } : { fields, fault };
}

/** The payload of the fields, or, as text, what is wrong with them. */
export function writePayload(
  { required, optional, names }: Layout,
  fields: Fields,
): Uint8Array | string {
  const stranger = Object.keys(fields).find((name) => !names.has(name));
  if (stranger !== undefined) {
    return `${stranger} is no field of it; its fields are ${[...names].join(', ')}`;
  }
  const parts: Uint8Array[] = [];
  let absent: string | undefined;
  for (const [name, codec] of [...required, ...optional]) {
    const value = fields[name];
    if (value === undefined && parts.length >= required.length) {
      absent ??= name;
      continue;
    }
    if (absent !== undefined) return `${name} needs ${absent}, which stands before it`;
    const bytes = codec.write(value, fields);
    if (typeof bytes === 'string') return `${name} must be ${bytes}`;
    parts.push(bytes);
  }
  const tail = fields[tailField] === undefined ? '' : fields[tailField];
  const tailBytes = typeof tail === 'string' ? fromHex(tail) : null;
  if (tailBytes === null) return `${tailField} must be whole bytes of hex`;
  return Buffer.concat([...parts, tailBytes]);
}

/** The text of NUL padded printable ASCII, or null when the bytes are something else. */
export function paddedText(bytes: Uint8Array): string | null {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end -= 1;
  for (let i = 0; i < end; i += 1) if (bytes[i]! < 0x20 || bytes[i]! > 0x7e) return null;
  return Buffer.from(bytes.buffer, bytes.byteOffset, end).toString('latin1');
}

function isWithin(value: unknown, max: number): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max;
}

function hexOf(payload: Buffer, at: number, width: number): string {
  return toHex(payload.subarray(at, at + width));
}
