/** `downlink start`: one role in this process, or one of each under a supervisor. */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { type Config, loadConfig, processEnv } from '../config/config.ts';
import { discover } from '../discovery/discovery.ts';
import { createLifecycle } from '../lifecycle/lifecycle.ts';
import { createLog } from '../log/log.ts';
import { migrate } from '../store/migrate.ts';
import { roles, startRole } from './role-process.ts';

export type StartOptions = {
  role: 'all' | (typeof roles)[number];
  /** Where private servers keep their data; only with role all. */
  dataDir: string;
};

/** Starts the role; returns when it is ready. It ends by a signal. */
export async function start({ role, dataDir }: StartOptions): Promise<void> {
  const config = loadConfig();
  // Imported when asked for: a process loads its own role and no other.
  switch (role) {
    case 'gateway':
      return (await import('../gateway/main.ts')).runGateway({ config });
    case 'worker':
      return (await import('../../workers/main.ts')).runWorker({ config });
    case 'api':
      return (await import('../api/main.ts')).runApi({ config });
    case 'all':
      return startAll(config, dataDir);
  }
}

const restartAfterMs = 1_000;

/** Finds or starts both stores, migrates, and keeps one process of each role running. */
async function startAll(config: Config, dataDir: string): Promise<void> {
  const log = createLog({ level: config.log.level, role: 'supervisor' });
  const lifecycle = createLifecycle({ log });
  lifecycle.endOnSignals({ graceMs: config.worker.drainMs + config.gateway.drainMs + 15_000 });
  const say = (line: string) => process.stderr.write(`${line}\n`);

  const stores = await discover({
    env: processEnv(),
    redisUrl: config.redis.url,
    databaseUrl: config.database.url,
    dataDir,
  });
  lifecycle.onClose('stores', () => stores.stop(), 30_000);
  say(`Redis       ${stores.redis.url} (${stores.redis.source})`);
  say(`PostgreSQL  ${stores.postgres.url} (${stores.postgres.source})`);
  const applied = await migrate({ url: stores.postgres.url, log });
  if (applied.length > 0) say(`migrations  ${applied.length} applied`);

  const env: NodeJS.ProcessEnv = {
    ...processEnv(),
    REDIS_URL: stores.redis.url,
    DATABASE_URL: stores.postgres.url,
  };
  if (config.api.keys.length === 0) {
    const secret = randomBytes(18).toString('base64url');
    env['API_KEYS'] = `local:${secret}:read+send+admin`;
    say(`API key     ${secret} (made for this run; set API_KEYS to keep one)`);
  }
  // The gateway last to close: a worker may still wait for answers of devices.
  for (const role of roles) {
    lifecycle.onClose(role, await keepRunning(role), config.worker.drainMs + 15_000);
  }

  async function keepRunning(role: (typeof roles)[number]): Promise<() => Promise<void>> {
    const launch = () => startRole({ role, env, onLog: (text) => void process.stderr.write(text) });
    let current = await launch();
    process.stdout.write(`${JSON.stringify(current.ready)}\n`);
    void (async () => {
      for (;;) {
        const { code, signal } = await current.ended;
        if (lifecycle.closing()) return;
        log.error({ role, code, signal }, 'process ended; it is started again');
        await delay(restartAfterMs);
        if (lifecycle.closing()) return;
        current = await launch();
      }
    })().catch((error) => log.fatal({ role, error }, 'process does not come back'));
    return () => current.end();
  }
}
