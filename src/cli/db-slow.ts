/** `downlink db slow`: which statements take long, as a table. */
import type { SlowStatement } from '../store/slow.ts';
import { slowStatements } from '../store/slow.ts';

export type SlowWanted = {
  url: string;
  meanMs: number;
  limit: number;
  /** Columns of the terminal; a statement takes what the numbers leave. */
  width?: number;
};

const defaultWidth = 120;
const minStatementWidth = 40;
const head = ['mean ms', 'max ms', 'calls', 'total s', 'rows'];

/** Prints the table; resolves with false when PostgreSQL does not count statements, having said how it would. */
export async function printSlow(
  wanted: SlowWanted,
  print: (line: string) => void,
): Promise<boolean> {
  const { url, meanMs, limit, width = defaultWidth } = wanted;
  const answer = await slowStatements({ url, meanMs, limit });
  if (!answer.available) {
    print(answer.hint);
    return false;
  }
  if (answer.statements.length === 0) print(`no statement takes ${meanMs} ms or more on average`);
  else for (const line of slowTable(answer.statements, width)) print(line);
  return true;
}

export function slowTable(statements: readonly SlowStatement[], width: number): string[] {
  const numbers = statements.map(({ meanMs, maxMs, calls, totalMs, rows }) => [
    meanMs.toFixed(1),
    maxMs.toFixed(1),
    String(calls),
    (totalMs / 1000).toFixed(1),
    String(rows),
  ]);
  const widths = head.map((title, column) =>
    Math.max(title.length, ...numbers.map((row) => row[column]!.length)),
  );
  const line = (row: readonly string[]) =>
    row.map((value, column) => value.padStart(widths[column]!)).join('  ');
  const room = Math.max(minStatementWidth, width - line(head).length - 2);
  return [
    `${line(head)}  statement`,
    ...statements.map(({ query }, index) => `${line(numbers[index]!)}  ${oneLine(query, room)}`),
  ];
}

function oneLine(text: string, room: number): string {
  // Whatever a client put into its statement must not steer the terminal.
  const line = text.replaceAll(/[\s\p{Cc}]+/gu, ' ').trim();
  return line.length <= room ? line : `${line.slice(0, room - 1)}…`;
}
