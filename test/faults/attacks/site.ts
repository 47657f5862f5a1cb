/** One process of each role, and what can be learned of the gateway from outside and from its probe. */
import { fileURLToPath } from 'node:url';
import { type RoleProcess, startRole } from '../../../src/cli/role-process.ts';
import { type ApiClient, createApiClient } from '../../support/api-client.ts';
import { freshDatabase, freshRedis } from '../../support/stores.ts';
import type { Probed } from './gateway-probe.ts';

export type GatewayUnderAttack = {
  readonly pid: number;
  readonly host: string;
  readonly port: number;
  /** Every sample of its metrics, by name and labels as they are written there. */
  metrics(): Promise<ReadonlyMap<string, number>>;
  /** What lives in it once all garbage is gone. It stands still meanwhile. */
  probe(): Promise<Probed>;
  /** How it ended; null: it runs. */
  readonly fate: string | null;
};

export type Site = {
  readonly api: ApiClient;
  gateway(settings: Record<string, string>): Promise<GatewayUnderAttack>;
  stop(): Promise<void>;
};

const key = 'admin-key-of-the-tests';
const probeWithinMs = 20_000;
const probeProgram = fileURLToPath(new URL('./gateway-probe.ts', import.meta.url));

/** Worker and API; gateways are started with the settings of the test. */
export async function startSite(): Promise<Site> {
  const [redis, database] = await Promise.all([freshRedis(), freshDatabase()]);
  const env = {
    PATH: process.env['PATH'],
    REDIS_URL: redis.url,
    DATABASE_URL: database.url,
    DOWNLINK_REDIS_PREFIX: redis.prefix,
    DOWNLINK_DATABASE_POOL_MIN: '1',
    DOWNLINK_DATABASE_POOL_MAX: '6',
    TCP_ADDR: '127.0.0.1:0',
    HTTP_ADDR: '127.0.0.1:0',
    GATEWAY_ADMIN_ADDR: '127.0.0.1:0',
    WORKER_ADMIN_ADDR: '127.0.0.1:0',
    API_KEYS: `admin:${key}:read+send+admin`,
    LOG_LEVEL: 'warn',
  };
  const running: RoleProcess[] = [];

  async function start(...[options]: Parameters<typeof startRole>): Promise<RoleProcess> {
    const child = await startRole(options);
    running.push(child);
    return child;
  }

  const [api] = await Promise.all([
    start({ role: 'api', env, onLog: showLog }),
    start({ role: 'worker', env, onLog: showLog }),
  ]);

  return {
    api: createApiClient(`http://${api.ready.http}`, key),
    async gateway(settings) {
      const probes: ((probed: Probed) => void)[] = [];
      const onLine = (line: string) => {
        if (line.startsWith('probed ')) probes.shift()?.(JSON.parse(line.slice(7)) as Probed);
        else if (line !== '') showLog(`${line}\n`);
      };
      const child = await start({
        role: 'gateway',
        env: { ...env, ...settings },
        onLog: linesOf(onLine),
        nodeArgs: ['--import', probeProgram],
      });
      let fate: string | null = null;
      void child.ended.then(({ code, signal }) => {
        fate = String(signal ?? code);
      });
      const [host = '', port = ''] = child.ready.tcp!.split(':');
      return {
        pid: child.pid,
        host,
        port: Number(port),
        async metrics() {
          const response = await fetch(`http://${child.ready.admin}/metrics`);
          return samplesOf(await response.text());
        },
        probe() {
          return new Promise((resolve, reject) => {
            const giveUp = () => reject(new Error('the gateway did not answer its probe'));
            const timer = setTimeout(giveUp, probeWithinMs);
            probes.push((probed) => {
              clearTimeout(timer);
              resolve(probed);
            });
            process.kill(child.pid, 'SIGWINCH');
          });
        },
        get fate() {
          return fate;
        },
      };
    },
    async stop() {
      await Promise.all(running.map((child) => child.end('SIGKILL')));
    },
  };
}

/** STACK_LOG=1 shows what the processes log, for whoever looks for a cause. */
function showLog(text: string): void {
  if (process.env['STACK_LOG']) process.stderr.write(text);
}

function linesOf(onLine: (line: string) => void): (text: string) => void {
  let held = '';
  return (text) => {
    const lines = (held + text).split('\n');
    held = lines.pop()!;
    for (const line of lines) onLine(line);
  };
}

function samplesOf(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const at = line.lastIndexOf(' ');
    samples.set(line.slice(0, at), Number(line.slice(at + 1)));
  }
  return samples;
}
