/** What discovery may know of the machine: where programs lie, where to cache, as whom to run. */
import { execFile } from 'node:child_process';
import { access, constants, mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

export type Env = Readonly<Record<string, string | undefined>>;

/** A system account, as PostgreSQL needs one: it refuses to run as root. */
export type Account = { name: string; uid: number; gid: number };

export type Ran = { ok: boolean; output: string };

/** A user's PATH may be short; the system's own folders are searched after it. */
const SYSTEM_FOLDERS = [
  '/usr/local/sbin',
  '/usr/local/bin',
  '/usr/sbin',
  '/usr/bin',
  '/sbin',
  '/bin',
  '/opt/homebrew/bin',
];
export const SYSTEM_PATH = SYSTEM_FOLDERS.join(':');
const OUTPUT_MAX_BYTES = 1_000_000;

/** Every folder that may hold programs, the user's own first. */
export function programFolders(env: Env): string[] {
  const own = (env['PATH'] ?? '').split(delimiter).filter((folder) => folder.startsWith('/'));
  return [...new Set([...own, ...SYSTEM_FOLDERS])];
}

/** The first executable file of that name in these folders. */
export async function findProgram(
  name: string,
  folders: readonly string[],
): Promise<string | undefined> {
  for (const folder of folders) {
    const path = join(folder, name);
    if (await isExecutable(path)) return path;
  }
  return undefined;
}

/** PostgreSQL's folders outside PATH, the newest version first. */
export async function postgresFolders(): Promise<string[]> {
  const roots = ['/usr/lib/postgresql'];
  const found: { folder: string; version: number }[] = [];
  for (const root of roots) {
    for (const version of await readdir(root).catch(() => [])) {
      found.push({ folder: join(root, version, 'bin'), version: Number(version) || 0 });
    }
  }
  return found.sort((a, b) => b.version - a.version).map(({ folder }) => folder);
}

export async function isExecutable(path: string): Promise<boolean> {
  const file = await stat(path).catch(() => undefined);
  if (!file?.isFile()) return false;
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

/** Runs a program to its end, bounded in time and output. Never rejects. */
export function run(
  program: string,
  args: readonly string[],
  options: { timeoutMs: number; cwd?: string; account?: Account | undefined; env?: Env },
): Promise<Ran> {
  const { timeoutMs, cwd = '/', account, env = {} } = options;
  return new Promise((resolve) => {
    try {
      execFile(
        program,
        args,
        {
          cwd,
          timeout: timeoutMs,
          maxBuffer: OUTPUT_MAX_BYTES,
          env: { PATH: SYSTEM_PATH, LC_ALL: 'C', ...env } as NodeJS.ProcessEnv,
          ...(account && { uid: account.uid, gid: account.gid }),
        },
        (error, stdout, stderr) => {
          const said = `${stdout}${stderr}`.trim();
          resolve({ ok: error === null, output: said || (error?.message ?? '') });
        },
      );
    } catch (error) {
      resolve({ ok: false, output: String(error) });
    }
  });
}

/** As whom PostgreSQL shall run: undefined means as ourselves. */
export async function postgresAccount(): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const lines = (await readFile('/etc/passwd', 'utf8').catch(() => '')).split('\n');
  for (const name of ['postgres', 'nobody']) {
    const [, , uid, gid] = lines.find((line) => line.startsWith(`${name}:`))?.split(':') ?? [];
    if (uid && gid) return { name, uid: Number(uid), gid: Number(gid) };
  }
  return { name: 'nobody', uid: 65_534, gid: 65_534 };
}

/**
 * Folders for what is unpacked once and kept, best first: the user's cache; one in the system's
 * temporary folder, for homes that are missing, read-only, or closed to PostgreSQL's account.
 */
export function cacheFolders(env: Env): string[] {
  const user = process.getuid?.() ?? 'user';
  const home = env['HOME'] ?? homedir();
  return [
    join(env['XDG_CACHE_HOME'] || join(home, '.cache'), 'downlink'),
    join(tmpdir(), `downlink-cache-${user}`),
  ];
}

/** Makes a cache folder that is ours; false when it cannot be, or is somebody else's. */
export async function makeOwnFolder(folder: string): Promise<boolean> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o755 });
    const { uid } = await stat(folder);
    await access(folder, constants.W_OK);
    return process.getuid === undefined || uid === process.getuid();
  } catch {
    return false;
  }
}
