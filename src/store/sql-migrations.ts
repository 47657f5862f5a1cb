/** Reads migration files: one statement a step, so that a file may step out of the transaction. */
import { readFile } from 'node:fs/promises';
import type { MigrationBuilder } from 'node-pg-migrate';

type Action = (builder: MigrationBuilder) => void;
type Unit = { id: string; filePaths: string[]; actions: { up: Action; down: Action } };

const section = /^-- (Up|Down) Migration$/m;
/** CREATE INDEX CONCURRENTLY refuses to run inside a transaction. */
const outside = /^-- no transaction$/m;
const endOfStatement = /;[ \t]*$/m;

/** A loader for the migration runner. */
export async function loadSqlMigrations(paths: readonly string[]): Promise<Unit[]> {
  return Promise.all(paths.map(async (path) => unitOf(path, await readFile(path, 'utf8'))));
}

function unitOf(path: string, text: string): Unit {
  const parts = text.split(section);
  const sectionOf = (name: string): string => parts[parts.indexOf(name) + 1] ?? '';
  return {
    id: path,
    filePaths: [path],
    actions: { up: actionOf(sectionOf('Up')), down: actionOf(sectionOf('Down')) },
  };
}

function actionOf(sql: string): Action {
  const statements = statementsOf(sql).filter((part) => /^\s*[a-z]/im.test(part));
  return (builder) => {
    if (outside.test(sql)) builder.noTransaction();
    for (const statement of statements) builder.sql(statement.trim());
  };
}

/** Semicolons between dollar quotes belong to the body of a function. */
function statementsOf(sql: string): string[] {
  const statements: string[] = [];
  let open = '';
  for (const part of sql.split(endOfStatement)) {
    open += open === '' ? part : `;${part}`;
    if (open.split('$$').length % 2 === 0) continue;
    statements.push(open);
    open = '';
  }
  return statements;
}
