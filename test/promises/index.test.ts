/** The tables of README.md name tests that prove promises; each of them must exist. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const readme = readFileSync(join(import.meta.dirname, 'README.md'), 'utf8');

type Row = { promise: string; file: string; name: string };

/** Rows whose second column is a file in backticks. */
function rowsOf(markdown: string): Row[] {
  return [...markdown.matchAll(/^\| (.+) \| `(\S+)` \| (.+) \|$/gm)].map(
    ([, promise = '', file = '', name = '']) => ({ promise, file, name }),
  );
}

/** What a source gives its tests and groups for names, as it is written there. */
function namesIn(source: string): Set<string> {
  const names = new Set<string>();
  const call = /(?:\b(?:describe|test|it)(?:\.\w+)*|\))\(\s*(['"`])((?:(?!\1)[^\\\n]|\\.)+)\1\s*,/g;
  for (const [, , name = ''] of source.matchAll(call)) names.add(name.replace(/\\(['"`])/g, '$1'));
  return names;
}

/** The parts of a row's name that its file does not have. */
function missing({ file, name }: Row): string[] {
  const path = join(root, file);
  if (!existsSync(path)) return [`${file} does not exist`];
  const names = namesIn(readFileSync(path, 'utf8'));
  return name
    .split(' › ')
    .filter((part) => !names.has(part))
    .map((part) => `${file} has no test "${part}"`);
}

const rows = rowsOf(readme);

test('every test that proves a promise elsewhere exists', () => {
  expect(rows.length).toBeGreaterThan(30);
  expect(rows.flatMap(missing)).toEqual([]);
});

test('no promise stands in the tables twice', () => {
  const promises = rows.map(({ promise }) => promise);
  expect(promises.filter((promise, at) => promises.indexOf(promise) !== at)).toEqual([]);
});

test('a test that is gone is found out', () => {
  const [row] = rows;
  expect(missing({ ...row!, name: 'a test that nobody wrote' })).toHaveLength(1);
  expect(missing({ ...row!, file: 'test/nowhere.test.ts' })).toHaveLength(1);
});
