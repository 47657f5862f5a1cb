/** Finds or starts Redis. */
import { closeRedis, connectRedis } from '../connections/redis.ts';
import { DownlinkError, messageOf } from '../errors.ts';
import { findFreePort } from './free-port.ts';
import { type Env, findProgram, programFolders, run } from './machine.ts';
import { type PrivateServer, serverFolder, startPrivateServer } from './private-server.ts';
import { unpackRedis } from './redis-packages.ts';
import type { Found, Search } from './search.ts';

type Binary = { program: string; env?: Env };

const VERSION_TIMEOUT_MS = 5_000;

export async function discoverRedis(search: Search): Promise<Found> {
  const { allow, redisUrl: url } = search;
  if (url && allow.includes('url')) {
    return { url, source: 'url', detail: 'REDIS_URL', server: null, stop: async () => undefined };
  }
  const tried: string[] = url ? ['REDIS_URL is set, but not allowed here'] : [];
  for (const stage of ['system', 'packages'] as const) {
    if (!allow.includes(stage)) continue;
    try {
      const binary = stage === 'system' ? await onMachine(search) : await unpackRedis(search);
      const { url, server } = await startRedis(binary, search);
      return { url, source: stage, detail: binary.program, server, stop: () => server.stop() };
    } catch (error) {
      tried.push(messageOf(error));
    }
  }
  throw new DownlinkError(
    'DISCOVERY_FAILED',
    `redis was neither found nor started; install it (apt-get install redis-server) or set REDIS_URL; ${tried.join('; ')}`,
    { details: { tried } },
  );
}

async function onMachine({ env }: Search): Promise<Binary> {
  const folders = programFolders(env);
  const refused: string[] = [];
  for (const name of ['redis-server', 'valkey-server']) {
    const program = await findProgram(name, folders);
    if (!program) continue;
    const version = await run(program, ['--version'], { timeoutMs: VERSION_TIMEOUT_MS });
    if (version.ok) return { program };
    refused.push(`${program} does not run: ${version.output}`);
  }
  throw new DownlinkError(
    'DISCOVERY_FAILED',
    refused.join('; ') || 'no redis-server and no valkey-server in PATH or the system folders',
  );
}

async function startRedis({ program, env = {} }: Binary, { dataDir }: Search) {
  const folder = await serverFolder('redis', dataDir);
  const port = await findFreePort();
  const url = `redis://127.0.0.1:${port}`;
  const server: PrivateServer = await startPrivateServer({
    name: `redis (${program})`,
    program,
    args: redisArgs(port, folder),
    folder,
    temporary: dataDir === undefined,
    stopSignal: 'SIGTERM',
    env,
    answers: (signal) => answers(url, signal),
  });
  return { url, server };
}

function redisArgs(port: number, folder: string): string[] {
  return [
    ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder],
    ['--appendonly', 'yes', '--appendfsync', 'everysec', '--save', ''],
    ['--maxmemory-policy', 'noeviction', '--daemonize', 'no'],
  ].flat();
}

async function answers(url: string, signal: AbortSignal): Promise<void> {
  const client = connectRedis({ url, purpose: 'blocking', name: 'downlink-discovery' });
  // A client that is ended rejects what still waits in it.
  const giveUp = () => client.disconnect();
  signal.addEventListener('abort', giveUp, { once: true });
  try {
    await client.ping();
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    signal.removeEventListener('abort', giveUp);
    await closeRedis(client);
  }
}
