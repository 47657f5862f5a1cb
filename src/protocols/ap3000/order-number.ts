/** Order numbers: 16 raw bytes on the wire, text or 32 hex digits for people. */
import { toHex } from '../bytes.ts';
import { paddedText } from './layout.ts';

/** 1 to 16 printable ASCII characters, or exactly 32 hex digits. */
export const orderNoPattern = '^(?:[\\x20-\\x7e]{1,16}|[0-9a-fA-F]{32})$';

/** The message field (32 hex digits) of an order number as a client gives it. */
export function orderNoToWire(text: string): string {
  if (text.length === 32) return text.toLowerCase();
  const bytes = Buffer.alloc(16);
  bytes.write(text, 'latin1');
  return toHex(bytes);
}

/** The order number as people know it: text where the 16 bytes are NUL padded ASCII, else the hex digits. */
export function orderNoFromWire(field: string): string {
  return paddedText(Buffer.from(field, 'hex')) || field;
}
