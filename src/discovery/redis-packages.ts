/** Redis out of the distribution's own packages: downloaded and unpacked into a cache, without root. */
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DownlinkError } from '../errors.ts';
import {
  cacheFolders,
  type Env,
  findProgram,
  makeOwnFolder,
  programFolders,
  run,
} from './machine.ts';
import type { Search } from './search.ts';

export type UnpackedRedis = { program: string; env: Env };

type Tools = { aptGet: string; aptCache: string; dpkg: string };

/** redis-server is a link into redis-tools; the libraries are the ones a bare Debian 12 lacks. */
const PACKAGES = ['redis-server', 'redis-tools', 'liblzf1', 'libjemalloc2'];
const LIBRARY = /^(lib|lua)/;
const CHECK_TIMEOUT_MS = 5_000;
const DOWNLOAD_TIMEOUT_MS = 120_000;
const UNPACK_TIMEOUT_MS = 30_000;

/** A redis-server that runs, from the cache or freshly unpacked into it. */
export async function unpackRedis({ env, announce }: Search): Promise<UnpackedRedis> {
  const tools = await findTools(env);
  const name = `redis-${await distribution()}-${process.arch}`;
  for (const cache of cacheFolders(env)) {
    if (!(await makeOwnFolder(cache))) continue;
    const kept = join(cache, name);
    if (await runs(kept)) return binaryIn(kept);
    await rm(kept, { recursive: true, force: true });
    await unpackInto(kept, cache, tools, announce);
    return binaryIn(kept);
  }
  throw failed(`no cache folder can be written: ${cacheFolders(env).join(', ')}`);
}

async function findTools(env: Env): Promise<Tools> {
  const folders = programFolders(env);
  const [aptGet, aptCache, dpkg] = await Promise.all(
    ['apt-get', 'apt-cache', 'dpkg'].map((name) => findProgram(name, folders)),
  );
  if (aptGet && aptCache && dpkg) return { aptGet, aptCache, dpkg };
  throw failed('apt-get and dpkg are not here, so redis cannot be unpacked from packages');
}

async function distribution(): Promise<string> {
  const release = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const value = (key: string) => new RegExp(`^${key}="?([\\w.]+)"?$`, 'm').exec(release)?.[1];
  return `${value('ID') ?? 'linux'}-${value('VERSION_ID') ?? 'unknown'}`;
}

async function unpackInto(kept: string, cache: string, tools: Tools, announce: Search['announce']) {
  // Unpacked beside its place and renamed at the end: two processes may do this at once.
  const work = await mkdtemp(join(cache, 'unpacking-'));
  try {
    const root = join(work, 'root');
    await mkdir(root);
    announce(
      `redis-server is not installed: downloading it with apt-get download into ${kept} (no root, nothing is installed)`,
    );
    const apt = await download(PACKAGES, work, tools, announce);
    await unpackAll(work, root, tools);
    const missing = await version(root);
    if (!missing.ok) await addLibraries(work, root, tools, apt);
    const answer = await version(root);
    if (!answer.ok) throw failed(`the unpacked redis-server does not run: ${answer.output}`);
    await rename(root, kept).catch(async (error: unknown) => {
      if (!(await runs(kept))) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Downloads packages; where the machine's package lists are missing or old, with lists of our own. */
async function download(
  packages: readonly string[],
  work: string,
  tools: Tools,
  announce: Search['announce'],
): Promise<string[]> {
  const first = await aptDownload(packages, work, tools, []);
  if (first.ok) return [];
  announce('the package lists are missing or old: reading fresh ones into the cache');
  const own = await privateLists(work);
  await run(tools.aptGet, [...own, 'update'], { timeoutMs: DOWNLOAD_TIMEOUT_MS, cwd: work });
  const second = await aptDownload(packages, work, tools, own);
  if (second.ok) return own;
  throw failed(`apt-get download ${packages.join(' ')} failed: ${second.output.slice(-500)}`);
}

function aptDownload(packages: readonly string[], work: string, tools: Tools, own: string[]) {
  // As root, apt drops to an account that cannot write here, and warns; say so beforehand.
  const args = [...own, '-o', 'APT::Sandbox::User=root', 'download', ...packages];
  return run(tools.aptGet, args, { timeoutMs: DOWNLOAD_TIMEOUT_MS, cwd: work });
}

async function privateLists(work: string): Promise<string[]> {
  const state = join(work, 'apt');
  await mkdir(join(state, 'lists/partial'), { recursive: true });
  await mkdir(join(state, 'archives/partial'), { recursive: true });
  return [
    ['-o', `Dir::State=${state}`, '-o', `Dir::Cache=${state}`],
    ['-o', 'Dir::State::status=/var/lib/dpkg/status', '-o', 'APT::Sandbox::User=root'],
  ].flat();
}

async function unpackAll(work: string, root: string, { dpkg }: Tools): Promise<void> {
  for (const file of await readdir(work)) {
    if (!file.endsWith('.deb')) continue;
    const path = join(work, file);
    const unpacked = await run(dpkg, ['-x', path, root], { timeoutMs: UNPACK_TIMEOUT_MS });
    if (!unpacked.ok) throw failed(`dpkg -x ${file} failed: ${unpacked.output}`);
    await rm(path);
  }
}

/** Other releases link Redis against other libraries: all that its package asks for. */
async function addLibraries(work: string, root: string, tools: Tools, apt: string[]) {
  const args = [...apt, 'depends', '--recurse', '--no-recommends', '--no-suggests'];
  const no = ['--no-conflicts', '--no-breaks', '--no-replaces', '--no-enhances'];
  const depends = await run(tools.aptCache, [...args, ...no, 'redis-tools'], {
    timeoutMs: CHECK_TIMEOUT_MS,
  });
  const names = depends.output.split('\n').filter((line) => LIBRARY.test(line));
  // The C library must stay the machine's own.
  const wanted = [...new Set(names)].filter((name) => name !== 'libc6' && !name.includes(':'));
  for (const name of wanted) await aptDownload([name], work, tools, apt);
  await unpackAll(work, root, tools);
}

async function runs(root: string): Promise<boolean> {
  return (await version(root)).ok;
}

async function version(root: string) {
  const { program, env } = await binaryIn(root);
  return run(program, ['--version'], { timeoutMs: CHECK_TIMEOUT_MS, env });
}

async function binaryIn(root: string): Promise<UnpackedRedis> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true }).catch(() => []);
  const libraries = entries
    .filter((entry) => !entry.isDirectory() && /\.so(\.|$)/.test(entry.name))
    .map((entry) => entry.parentPath);
  return {
    program: join(root, 'usr/bin/redis-server'),
    env: { LD_LIBRARY_PATH: [...new Set(libraries)].join(':') },
  };
}

function failed(message: string): DownlinkError {
  return new DownlinkError('DISCOVERY_FAILED', message);
}
