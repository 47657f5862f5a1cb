/** Where a page ended, as text that callers hand back unread. */
import { DownlinkError } from '../errors.ts';

export const maxPageLimit = 200;
const maxCursorLength = 512;

export function encodeCursor(position: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify(position)).toString('base64url');
}

/** The position in a cursor, whose parts must have the types of `shape`. */
export function decodeCursor<const Shape extends readonly ('string' | 'number')[]>(
  cursor: string,
  shape: Shape,
): { [Index in keyof Shape]: Shape[Index] extends 'number' ? number : string } {
  const parts = partsOf(cursor);
  if (parts.length !== shape.length || !shape.every((type, index) => isOf(type, parts[index]))) {
    throw new DownlinkError(
      'BAD_REQUEST',
      'cursor is not one of this list: use the nextCursor of the page before, or leave it out',
    );
  }
  return parts as never;
}

function partsOf(cursor: string): unknown[] {
  if (cursor.length > maxCursorLength) return [];
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'));
    return Array.isArray(value) ? value : [];
  } catch {
    return [];
  }
}

function isOf(type: 'string' | 'number', part: unknown): boolean {
  return type === 'number' ? Number.isSafeInteger(part) : typeof part === 'string';
}

export function assertLimit(limit: number): void {
  if (Number.isInteger(limit) && limit >= 1 && limit <= maxPageLimit) return;
  throw new DownlinkError('BAD_REQUEST', `limit must be 1 to ${maxPageLimit}, not ${limit}`);
}
