/** Writes rows of which some may be such as no table holds: those are found, and all others are stored. */
import { isDataFault, unstorable } from './sql-faults.ts';

/**
 * In statements of at most `rowsAtOnce`; halves a statement that cannot be stored as a whole until it has found
 * the row that cannot. Throws the first of those at the end, and at once when the store is away.
 */
export async function writeHalving<Row>(
  rows: readonly Row[],
  {
    rowsAtOnce,
    subject,
    write,
  }: {
    rowsAtOnce: number;
    subject: (row: Row) => string;
    write: (rows: readonly Row[]) => Promise<unknown>;
  },
): Promise<void> {
  const faults: unknown[] = [];

  async function writePart(part: readonly Row[]): Promise<void> {
    const [first] = part;
    if (first === undefined) return;
    try {
      await write(part);
    } catch (error) {
      if (!isDataFault(error)) throw error;
      if (part.length === 1) {
        faults.push(unstorable(subject(first), error));
        return;
      }
      const half = Math.ceil(part.length / 2);
      await writePart(part.slice(0, half));
      await writePart(part.slice(half));
    }
  }

  for (let start = 0; start < rows.length; start += rowsAtOnce) {
    await writePart(rows.slice(start, start + rowsAtOnce));
  }
  if (faults.length > 0) throw faults[0];
}
