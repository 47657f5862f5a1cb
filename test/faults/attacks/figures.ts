/** What is compared, and how it is shown. */

export const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1);

/** Columns of equal width; numbers to the right. */
export function table(rows: readonly (readonly (string | number)[])[]): string {
  const texts = rows.map((row) => row.map(String));
  const widths = texts[0]!.map((_, i) => Math.max(...texts.map((row) => row[i]?.length ?? 0)));
  return texts
    .map((row) =>
      row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))),
    )
    .map((row) => `  ${row.join('  ')}`)
    .join('\n');
}
