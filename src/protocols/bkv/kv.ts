/**
 * The payload of cmd 0x1000: elements `[len][keyLen][key][value]`, where `len` counts everything
 * after itself and is a base-128 number, most significant group first. The top bit of `keyLen`
 * marks a key that is text. Whatever cannot be read is kept as hex, so that writing what was read
 * gives the same bytes again.
 */
import { DownlinkError } from '../../errors.ts';
import { fromHex, toHex } from '../bytes.ts';
import type { Fields } from '../protocol.ts';
import { kvKeyNamed, kvKeys } from './kv-keys.ts';
import { readUint } from './layout.ts';

export type KvValue = number | string | KvElement[];
/**
 * `key` is `0x4A` for a numeric key, `str:fee` for one that is text, `strhex:…` for text that is
 * not printable.
 */
export type KvElement = { key: string; name: string; value: KvValue };

export type KvReading = {
  elements: KvElement[];
  /** What follows the last element that could be read. */
  rest: Uint8Array;
  /** The first thing that was not as the key table says. */
  fault?: string;
};

/** The vendor nests two deep. */
const maxDepth = 4;
/** Three groups say up to 2,097,151, more than a frame holds. */
const maxLengthBytes = 3;
const textKeyBit = 0x80;
/** How keys of one byte are shown; nearly all are. */
const byteKeys = Array.from({ length: 256 }, (_, byte) => numericKey([byte]));

/** An element by its name in the key table. */
export function kv(name: string, value: KvValue): KvElement {
  const byte = kvKeyNamed.get(name);
  if (byte === undefined) throw new DownlinkError('INTERNAL', `BKV has no key named ${name}`);
  return { key: numericKey([byte]), name, value };
}

/** The value of the first element of that name, or undefined. */
export function kvValue(elements: readonly KvElement[], name: string): KvValue | undefined {
  return elements.find((element) => element.name === name)?.value;
}

/** The elements among the fields of a message; none where it is of another kind. */
export function elementsIn(fields: Fields): readonly KvElement[] {
  const elements = fields['kv'];
  return Array.isArray(elements) ? (elements as KvElement[]) : [];
}

/** Elements as fields; of a name that comes twice, the last. */
export function kvFields(elements: readonly KvElement[]): Fields {
  return Object.fromEntries(elements.map(({ name, value }) => [name, value]));
}

/** Reads elements until the bytes end or no longer make sense. Never throws. */
export function decodeKv(bytes: Uint8Array): KvReading {
  return readElements(bytes, 1);
}

/** The bytes of the elements. Names are for people: the key alone is written. */
export function encodeKv(elements: unknown): number[] {
  if (!Array.isArray(elements)) throw unfit('kv', 'a list of elements', elements);
  return elements.flatMap(encodeElement);
}

function readElements(bytes: Uint8Array, depth: number): KvReading {
  const elements: KvElement[] = [];
  let fault: string | undefined;
  let at = 0;
  while (at < bytes.length) {
    const length = readLength(bytes, at);
    const keyLength = length === null ? 0 : (bytes[length.end] ?? 0) & ~textKeyBit;
    const stop = length === null ? 0 : length.end + length.value;
    if (length === null || stop > bytes.length || length.value < 1 + keyLength) {
      fault ??= `no whole key-value element at byte ${at}`;
      break;
    }
    const keyFrom = length.end + 1;
    const valueFrom = keyFrom + keyLength;
    const isText = (bytes[length.end]! & textKeyBit) !== 0;
    const key = bytes.subarray(keyFrom, valueFrom);
    const read = readElement(key, isText, bytes.subarray(valueFrom, stop), depth);
    elements.push(read.element);
    fault ??= read.fault;
    at = stop;
  }
  const reading = { elements, rest: bytes.subarray(at) };
  return fault === undefined ? reading : { ...reading, fault };
}

/** Null when it is cut short, too long, or padded: padding would be lost when written again. */
function readLength(bytes: Uint8Array, at: number): { value: number; end: number } | null {
  if (bytes[at] === 0x80) return null;
  let value = 0;
  for (let i = at; i < at + maxLengthBytes; i += 1) {
    const byte = bytes[i];
    if (byte === undefined) return null;
    value = value * 128 + (byte & 0x7f);
    if (byte < 0x80) return value === 0 ? null : { value, end: i + 1 };
  }
  return null;
}

function readElement(
  key: Uint8Array,
  isText: boolean,
  value: Uint8Array,
  depth: number,
): { element: KvElement; fault?: string } {
  if (isText) {
    const text = textKey(key);
    return { element: { key: text, name: text, value: toHex(value) } };
  }
  const label = key.length === 1 ? byteKeys[key[0]!]! : numericKey(key);
  const known = key.length === 1 ? kvKeys.get(key[0]!) : undefined;
  if (known === undefined) {
    return { element: { key: label, name: `undocumented_${label.slice(2)}`, value: toHex(value) } };
  }
  const { name } = known;
  if (known.kind === 'list') return readList(label, name, value, depth);
  if (known.size !== undefined && value.length !== known.size) {
    const fault = `key ${label} has ${value.length} bytes where ${known.size} are due`;
    return { element: { key: label, name, value: toHex(value) }, fault };
  }
  const read = known.kind === 'number' ? readUint(value, 0, known.size) : toHex(value);
  return { element: { key: label, name, value: read } };
}

function readList(
  key: string,
  name: string,
  value: Uint8Array,
  depth: number,
): { element: KvElement; fault?: string } {
  if (depth >= maxDepth) {
    const fault = `nested deeper than ${maxDepth}`;
    return { element: { key, name, value: toHex(value) }, fault };
  }
  const { elements, rest, fault } = readElements(value, depth + 1);
  // A list with a remainder could not be written back from its elements.
  const element = { key, name, value: rest.length === 0 ? elements : toHex(value) };
  return fault === undefined ? { element } : { element, fault };
}

function encodeElement(element: unknown): number[] {
  const { key, value } = (element ?? {}) as { key?: unknown; value?: unknown };
  if (typeof key !== 'string') throw unfit('key', 'text such as 0x4A', key);
  const { bytes, isText } = keyBytes(key);
  const body = [bytes.length | (isText ? textKeyBit : 0), ...bytes, ...valueBytes(key, value)];
  return [...lengthBytes(body.length), ...body];
}

function valueBytes(key: string, value: unknown): Iterable<number> {
  if (Array.isArray(value)) return encodeKv(value);
  if (typeof value === 'string') {
    const bytes = fromHex(value);
    if (bytes === null) throw unfit(`key ${key}`, 'whole bytes of hex', value);
    return bytes;
  }
  const known = kvKeys.get(Number.parseInt(key, 16));
  const size = known?.kind === 'number' ? known.size : 0;
  if (!Number.isInteger(value) || (value as number) < 0 || (value as number) >= 256 ** size) {
    throw unfit(`key ${key}`, size === 0 ? 'hex' : `a whole number in ${size} bytes`, value);
  }
  return Array.from({ length: size }, (_, i) => ((value as number) / 256 ** (size - 1 - i)) & 0xff);
}

function lengthBytes(length: number): number[] {
  const bytes = [length & 0x7f];
  for (let left = length >> 7; left > 0; left >>= 7) bytes.unshift((left & 0x7f) | 0x80);
  return bytes;
}

function numericKey(key: ArrayLike<number>): string {
  return `0x${toHex(Uint8Array.from(key)).toUpperCase()}`;
}

function textKey(key: Uint8Array): string {
  const text = Buffer.from(key).toString('latin1');
  return /^[\x20-\x7e]*$/.test(text) ? `str:${text}` : `strhex:${toHex(key)}`;
}

function keyBytes(key: string): { bytes: Uint8Array; isText: boolean } {
  if (key.startsWith('str:')) return { bytes: Buffer.from(key.slice(4), 'latin1'), isText: true };
  const isText = key.startsWith('strhex:');
  const bytes = isText || /^0x/i.test(key) ? fromHex(key.slice(isText ? 7 : 2)) : null;
  if (bytes === null || bytes.length > 127) throw unfit('key', 'text such as 0x4A', key);
  return { bytes, isText };
}

function unfit(name: string, wanted: string, value: unknown): DownlinkError {
  const shown = JSON.stringify(value)?.slice(0, 80) ?? 'nothing';
  return new DownlinkError('INVALID_PAYLOAD', `${name} must be ${wanted}, not ${shown}`);
}
