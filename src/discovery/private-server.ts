/** One server process of our own: started, killed and started again on the same port and data. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, open, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { DownlinkError, messageOf } from '../errors.ts';
import { type ParentWatch, watchParent } from '../lifecycle/parent-watch.ts';
import { type Account, type Env, SYSTEM_PATH } from './machine.ts';

export type PrivateServer = {
  /** undefined while it is down. */
  readonly pid: number | undefined;
  /** Sends a signal; for a signal that ends it, resolves when the process is gone. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Starts it again, on the same port and data; resolves when it answers. */
  start(): Promise<void>;
  /** Asks it to end, kills it if it does not, and removes its data if they were temporary. */
  stop(): Promise<void>;
};

export type PrivateServerDeps = {
  name: string;
  program: string;
  args: readonly string[];
  /** Holds its data and its log. */
  folder: string;
  /** The folder is removed at the end. */
  temporary: boolean;
  /** The signal that asks it to end. */
  stopSignal: NodeJS.Signals;
  account?: Account | undefined;
  env?: Env;
  /** Resolves when the server answers; gives up when the signal says so. */
  answers: (signal: AbortSignal) => Promise<void>;
};

/** A crashed PostgreSQL replays its log first; a large Redis reads its AOF. */
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 10_000;
const START_TRIES = 5;
const RETRY_AFTER_MS = 300;
const LOG_TAIL_BYTES = 1_500;
const BRIEF_SIGNALS: readonly NodeJS.Signals[] = ['SIGSTOP', 'SIGCONT', 'SIGHUP', 'SIGUSR1'];

export async function startPrivateServer(deps: PrivateServerDeps): Promise<PrivateServer> {
  const { name, folder, temporary, stopSignal } = deps;
  const logPath = join(folder, 'server.log');
  const pidPath = join(folder, 'server.pid');
  let child: ChildProcess | undefined;
  let gone: Promise<void> = Promise.resolve();
  let watch: ParentWatch | undefined;
  let stopped: Promise<void> | undefined;

  async function start(): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const failure = await startOnce();
      if (failure === undefined) return;
      // After a kill the old process' children may hold the shared memory for a moment.
      if (attempt === START_TRIES || stopped) throw failure;
      await delay(RETRY_AFTER_MS);
    }
  }

  async function startOnce(): Promise<DownlinkError | undefined> {
    if (child) return undefined;
    const holder = await holderOf(folder, pidPath);
    if (holder) return failed(name, `process ${holder} already runs on ${folder}`);
    const log = await open(logPath, 'w', 0o600);
    try {
      const started = spawnServer(deps, log.fd);
      child = started.child;
      gone = started.gone.then(() => {
        child = undefined;
        watch?.stop();
        watch = undefined;
      });
    } catch (error) {
      return failed(name, messageOf(error));
    } finally {
      await log.close();
    }
    if (child?.pid) {
      watch = watchParent({
        pid: child.pid,
        signal: stopSignal,
        folder: temporary ? folder : undefined,
        path: SYSTEM_PATH,
      });
      await writeFile(pidPath, String(child.pid), { mode: 0o600 });
    }
    const giveUp = new AbortController();
    const bound = AbortSignal.any([giveUp.signal, AbortSignal.timeout(START_TIMEOUT_MS)]);
    void gone.then(() => giveUp.abort(new Error('the process ended at once')));
    try {
      await deps.answers(bound);
      return undefined;
    } catch (error) {
      await kill('SIGKILL');
      const tail = (await readFile(logPath, 'utf8').catch(() => '')).slice(-LOG_TAIL_BYTES).trim();
      return failed(name, tail === '' ? messageOf(error) : tail, error);
    }
  }

  async function kill(signal: NodeJS.Signals): Promise<void> {
    if (!child) return;
    // It does not hold our event loop open, but whoever waits for its end must not be cut short.
    child.ref();
    child.kill(signal);
    if (BRIEF_SIGNALS.includes(signal)) child.unref();
    else await gone;
  }

  async function end(): Promise<void> {
    if (child) {
      child.ref();
      // A stopped process would not hear the request.
      child.kill('SIGCONT');
      child.kill(stopSignal);
      const bound = new AbortController();
      await Promise.race([gone, delay(STOP_TIMEOUT_MS, undefined, { signal: bound.signal })]);
      bound.abort();
      await kill('SIGKILL');
    }
    if (temporary) await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  }

  try {
    await start();
  } catch (error) {
    await end();
    throw error;
  }
  return {
    get pid() {
      return child?.pid;
    },
    kill,
    start,
    stop: () => {
      stopped ??= end();
      return stopped;
    },
  };
}

/** The server's own folder below the data folder, or a new temporary one. */
export async function serverFolder(name: string, dataDir: string | undefined): Promise<string> {
  if (dataDir === undefined) return mkdtemp(join(tmpdir(), `downlink-${name}-`));
  const folder = join(dataDir, name);
  // The account a server runs as must be able to pass through the data folder to its own.
  await mkdir(dataDir, { recursive: true, mode: 0o755 });
  await mkdir(folder, { recursive: true, mode: 0o700 });
  return folder;
}

/** Redis does not lock its folder: two servers on one append-only file would ruin it. */
async function holderOf(folder: string, pidPath: string): Promise<number | undefined> {
  const pid = Number(await readFile(pidPath, 'utf8').catch(() => ''));
  if (!pid) return undefined;
  try {
    process.kill(pid, 0);
  } catch {
    return undefined;
  }
  // The number may belong to somebody else by now; where the system tells, its folder decides.
  const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => folder);
  return cwd === folder ? pid : undefined;
}

function failed(name: string, reason: string, cause?: unknown): DownlinkError {
  return new DownlinkError('DISCOVERY_FAILED', `${name} did not start: ${reason}`, { cause });
}

function spawnServer(deps: PrivateServerDeps, logFd: number) {
  const { program, args, folder, account, env = {} } = deps;
  const child = spawn(program, args, {
    cwd: folder,
    stdio: ['ignore', logFd, logFd],
    env: { PATH: SYSTEM_PATH, LC_ALL: 'C', TZ: 'UTC', ...env } as NodeJS.ProcessEnv,
    // Its own process group: Ctrl-C must reach us alone, who still need the server to drain.
    detached: true,
    ...(account && { uid: account.uid, gid: account.gid }),
  });
  const gone = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  child.unref();
  return { child, gone };
}
