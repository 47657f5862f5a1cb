/** `downlink start`: one role in this process, or several processes under a supervisor. */
import { randomBytes } from 'node:crypto';
import { type Config, loadConfig, processEnv } from '../config/config.ts';
import { discover } from '../discovery/discovery.ts';
import { DownlinkError } from '../errors.ts';
import { createLifecycle, type Lifecycle, onSignal } from '../lifecycle/lifecycle.ts';
import { createLog, type Log } from '../log/log.ts';
import { migrate } from '../store/migrate.ts';
import { maxGateways, startGatewayGroup } from './gateway-group.ts';
import { type RoleProcess, type roles, startRole } from './role-process.ts';
import { superviseRole } from './supervised-role.ts';

export type StartOptions = {
  role: 'all' | (typeof roles)[number];
  /** Where private servers keep their data; only with role all. */
  dataDir: string;
  /** Gateway processes that share one port; only with the roles all and gateway. */
  gateways?: number;
};

/** Starts the role; returns when it is ready. It ends by a signal. */
export async function start({ role, dataDir, gateways = 1 }: StartOptions): Promise<void> {
  checkGateways(role, gateways);
  const config = loadConfig();
  // Imported when asked for: a process loads its own role and no other.
  switch (role) {
    case 'gateway':
      if (gateways > 1) return supervise(config, (site) => startGateways(site, gateways));
      return (await import('../gateway/main.ts')).runGateway({ config });
    case 'worker':
      return (await import('../../workers/main.ts')).runWorker({ config });
    case 'api':
      return (await import('../api/main.ts')).runApi({ config });
    case 'all':
      return supervise(config, (site) => startAll(site, dataDir, gateways));
  }
}

function checkGateways(role: StartOptions['role'], gateways: number): void {
  if (!Number.isInteger(gateways) || gateways < 1 || gateways > maxGateways) {
    throw new DownlinkError('CONFIG_INVALID', `--gateways takes a number from 1 to ${maxGateways}`);
  }
  if (gateways > 1 && role !== 'all' && role !== 'gateway') {
    const text = `--gateways goes with --role all or --role gateway, not with --role ${role}`;
    throw new DownlinkError('CONFIG_INVALID', text);
  }
}

type Site = {
  config: Config;
  lifecycle: Lifecycle;
  log: Log;
  /** Environment of the processes. */
  env: NodeJS.ProcessEnv;
};

/** What a process may take for its end beyond its own drain. */
const closeGraceMs = 15_000;

/** Starts processes from this one; when one of the first does not start, none stays. */
async function supervise(config: Config, startThem: (site: Site) => Promise<void>): Promise<void> {
  const log = createLog({ level: config.log.level, role: 'supervisor' });
  const lifecycle = createLifecycle({ log });
  const graceMs = config.worker.drainMs + config.gateway.drainMs + closeGraceMs;
  lifecycle.endOnSignals({ graceMs });
  try {
    await startThem({ config, lifecycle, log, env: { ...processEnv() } });
  } catch (error) {
    await lifecycle.close().catch(() => undefined);
    throw error;
  }
}

/** Finds or starts both stores, migrates, and keeps the processes of every role running. */
async function startAll(site: Site, dataDir: string, gateways: number): Promise<void> {
  const { config, lifecycle, log } = site;
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
    ...site.env,
    REDIS_URL: stores.redis.url,
    DATABASE_URL: stores.postgres.url,
  };
  if (config.api.keys.length === 0) {
    const secret = randomBytes(18).toString('base64url');
    env['API_KEYS'] = `local:${secret}:read+send+admin`;
    say(`API key     ${secret} (made for this run; set API_KEYS to keep one)`);
  }
  // The gateways last to close: a worker may still wait for answers of devices.
  await startGateways({ ...site, env }, gateways);
  for (const role of ['worker', 'api'] as const) {
    const launch = () => startRole({ role, env, onLog });
    const supervised = await superviseRole({ launch, onReady, log });
    lifecycle.onClose(role, () => supervised.end(), config.worker.drainMs + closeGraceMs);
  }
}

async function startGateways({ config, lifecycle, log, env }: Site, count: number): Promise<void> {
  const group = await startGatewayGroup({ config, count, env, onReady, onLog, log });
  lifecycle.onClose('gateways', () => group.end(), config.gateway.drainMs + closeGraceMs);
  // Without certificates to read again a gateway ends by it, and so does everything.
  if (config.tls.addr === undefined) return;
  lifecycle.onClose(
    'certificate reload',
    onSignal('SIGHUP', () => group.signal('SIGHUP')),
  );
}

function onReady({ ready, pid }: RoleProcess): void {
  process.stdout.write(`${JSON.stringify({ ...ready, pid })}\n`);
}

function onLog(text: string): void {
  process.stderr.write(text);
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}
