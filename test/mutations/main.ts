/**
 * Breaks one line of the product at a time and runs the one test that must notice. A mutation whose test
 * stays green says that a promise is not guarded. `npm run test:mutations [-- NAME…]`.
 */
import { spawn } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Mutation, mutations } from './mutations.ts';

const root = new URL('../../', import.meta.url).pathname;
const parts = ['src', 'queues', 'workers', 'dashboard', 'test', 'docs'];
const files = ['package.json', 'tsconfig.json', 'vitest.config.ts', 'README.md'];
/** The first run of a copy also starts the stores. */
const timeoutMs = 180_000;

type Report = { testResults: { assertionResults: { fullName: string; status: string }[] }[] };

/** How the test went: `missing` when it did not run at all. */
type Result = 'passed' | 'failed' | 'missing';

async function copyOfProject(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'downlink-mutations-'));
  for (const part of parts) await cp(join(root, part), join(folder, part), { recursive: true });
  for (const file of files) await cp(join(root, file), join(folder, file));
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'));
  return folder;
}

async function runTest(folder: string, { test }: Mutation): Promise<Result> {
  const output = join(folder, 'report.json');
  await rm(output, { force: true });
  const vitest = join(root, 'node_modules/vitest/vitest.mjs');
  const pattern = `^(.* )?${test.name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`;
  const args = [vitest, 'run', test.file, '-t', pattern, '--reporter=json', '--outputFile', output];
  await new Promise<void>((resolve) => {
    const child = spawn(process.execPath, args, { cwd: folder, stdio: 'ignore' });
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    child.once('exit', () => {
      clearTimeout(timer);
      resolve();
    });
  });
  const text = await readFile(output, 'utf8').catch(() => null);
  if (text === null) return 'missing';
  const ran = (JSON.parse(text) as Report).testResults
    .flatMap(({ assertionResults }) => assertionResults)
    .filter(({ status, fullName }) => status !== 'skipped' && fullName.endsWith(test.name));
  if (ran.length === 0) return 'missing';
  return ran.some(({ status }) => status === 'failed') ? 'failed' : 'passed';
}

/** Null when the mutation is noticed, else what is wrong. */
async function judge(folder: string, mutation: Mutation): Promise<string | null> {
  const path = join(folder, mutation.file);
  const sound = await readFile(path, 'utf8');
  const places = sound.split(mutation.find).length - 1;
  if (places !== 1) return `its line stands ${places} times in ${mutation.file}`;
  const before = await runTest(folder, mutation);
  if (before !== 'passed') return `its test is ${before} without the break`;
  try {
    await writeFile(
      path,
      sound.replace(mutation.find, () => mutation.replace),
    );
    const after = await runTest(folder, mutation);
    return after === 'failed' ? null : `its test is ${after} with the break`;
  } finally {
    await writeFile(path, sound);
  }
}

const wanted = process.argv.slice(2);
const chosen = mutations.filter(({ name }) => wanted.length === 0 || wanted.includes(name));
const folder = await copyOfProject();
let unnoticed = 0;
try {
  for (const mutation of chosen) {
    const fault = await judge(folder, mutation);
    if (fault) unnoticed += 1;
    const how = fault ? `NOT NOTICED: ${fault}` : `turns "${mutation.test.name}" red`;
    process.stdout.write(`${fault ? '✗' : '✓'} ${mutation.name}: ${how}\n`);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
process.stdout.write(`\n${chosen.length - unnoticed} passed, ${unnoticed} failed\n`);
process.exitCode = unnoticed > 0 || chosen.length === 0 ? 1 : 0;
