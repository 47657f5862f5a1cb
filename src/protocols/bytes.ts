/** Small, allocation-shy helpers over bytes that both protocols use. */

const hexPattern = /^(?:[0-9a-f]{2})*$/i;

/** Lower-case hex of the bytes. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** Bytes of a hex text, or null when the text is not whole bytes of hex. */
export function fromHex(text: string): Uint8Array | null {
  return hexPattern.test(text) ? Buffer.from(text, 'hex') : null;
}

/** Sum of bytes [from, to). */
export function byteSum(bytes: Uint8Array, from: number, to: number): number {
  let sum = 0;
  for (let i = from; i < to; i += 1) sum += bytes[i]!;
  return sum;
}
