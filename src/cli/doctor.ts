/** `downlink doctor`: what was found, what is missing, and what to do about it. */
import { loadConfig, processEnv } from '../config/config.ts';
import { connectPostgres } from '../connections/postgres.ts';
import { closeRedis, connectRedis } from '../connections/redis.ts';
import { discover } from '../discovery/discovery.ts';
import { messageOf } from '../errors.ts';
import { migrationStatus } from '../store/migrate.ts';

type Finding = { ok: boolean; subject: string; found: string };

const minRedis = [6, 2] as const;

/** Prints one line a finding; resolves with whether all is well. */
export async function runDoctor(say: (line: string) => void): Promise<boolean> {
  const findings: Finding[] = [];
  const note = (ok: boolean, subject: string, found: string) => {
    findings.push({ ok, subject, found });
    say(`${ok ? 'ok     ' : 'MISSING'}  ${subject.padEnd(14)} ${found}`);
  };
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const node = major > 22 || (major === 22 && minor >= 18);
  note(node, 'Node', `${process.versions.node}${node ? '' : '; 22.18 or later is needed'}`);
  try {
    const config = loadConfig();
    note(true, 'configuration', 'valid');
    const { url } = config.redis;
    const stores = await discover({
      env: processEnv(),
      redisUrl: url,
      databaseUrl: config.database.url,
      announce: say,
    });
    try {
      await lookAtRedis(stores.redis.url, stores.redis.source, note);
      await lookAtPostgres(stores.postgres.url, stores.postgres.source, note);
    } finally {
      await stores.stop();
    }
  } catch (error) {
    note(false, 'stores', messageOf(error));
  }
  return findings.every(({ ok }) => ok);
}

type Note = (ok: boolean, subject: string, found: string) => void;

async function lookAtRedis(url: string, source: string, note: Note): Promise<void> {
  const redis = connectRedis({ url, purpose: 'commands', name: 'doctor' });
  try {
    const info = await redis.info();
    const value = (key: string) => new RegExp(`^${key}:(.*)$`, 'm').exec(info)?.[1]?.trim() ?? '?';
    const version = value('redis_version');
    const [major = 0, minor = 0] = version.split('.').map(Number);
    const recent = major > minRedis[0] || (major === minRedis[0] && minor >= minRedis[1]);
    note(recent, 'Redis', `${version} (${source})${recent ? '' : '; 6.2 or later is needed'}`);
    const policy = value('maxmemory_policy');
    const kept = policy === 'noeviction';
    note(
      kept,
      'Redis memory',
      `${policy}${kept ? '' : '; set maxmemory-policy noeviction: the queue may lose commands'}`,
    );
    const aof = value('aof_enabled') === '1';
    note(aof, 'Redis AOF', aof ? 'on' : 'off; set appendonly yes: a restart loses the queue');
  } catch (error) {
    note(false, 'Redis', `${url}: ${messageOf(error)}; check REDIS_URL`);
  } finally {
    await closeRedis(redis);
  }
}

async function lookAtPostgres(url: string, source: string, note: Note): Promise<void> {
  const pool = connectPostgres({ url, applicationName: 'downlink-doctor', max: 1 });
  try {
    const client = await pool.connect();
    client.release();
    note(true, 'PostgreSQL', `reachable (${source})`);
    const { pending } = await migrationStatus({ url });
    const ready = pending.length === 0 || source !== 'url';
    const advice = 'not applied; run "downlink db migrate"';
    note(
      ready,
      'migrations',
      pending.length === 0
        ? 'all applied'
        : `${pending.length} ${source === 'url' ? advice : 'to apply at the first start'}`,
    );
  } catch (error) {
    note(false, 'PostgreSQL', `${url}: ${messageOf(error)}; check DATABASE_URL`);
  } finally {
    await pool.end();
  }
}
