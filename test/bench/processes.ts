/** What benchmarks start: stores of their own, roles and helpers as processes. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { discover, type Stores } from '../../src/discovery/discovery.ts';
import { migrate } from '../../src/store/migrate.ts';

export type BenchStores = Stores & { env: NodeJS.ProcessEnv };

/** Private stores with an empty, migrated database, and the environment of roles that use them. */
export async function benchStores(): Promise<BenchStores> {
  const stores = await discover({ env: process.env, allow: ['system', 'packages'] });
  await migrate({ url: stores.postgres.url });
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    REDIS_URL: stores.redis.url,
    DATABASE_URL: stores.postgres.url,
    TCP_ADDR: '127.0.0.1:0',
    HTTP_ADDR: '127.0.0.1:0',
    GATEWAY_ADMIN_ADDR: '127.0.0.1:0',
    DOWNLINK_TCP_RATE_LIMIT: '20000',
    DOWNLINK_TCP_RATE_BURST: '20000',
    DOWNLINK_TCP_MAX_CONNECTIONS: '30000',
    WORKER_ADMIN_ADDR: '127.0.0.1:0',
    API_KEYS: 'bench:bench-bench-bench-bench:read+send+admin',
    LOG_LEVEL: 'warn',
  };
  return { ...stores, env };
}

/** Version of the PostgreSQL server. */
export async function postgresVersion(url: string): Promise<string> {
  const pool = connectPostgres({ url, applicationName: 'bench', max: 1 });
  try {
    const { rows } = await pool.query<{ server_version: string }>('SHOW server_version');
    return rows[0]?.server_version.split(' ')[0] ?? '?';
  } finally {
    await pool.end();
  }
}

/** Runs a script of this folder to its end and resolves with the JSON line it printed. */
export function runScript<T>(script: string, args: readonly string[]): Promise<T> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [local(`./${script}`), ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    child.once('exit', (code) => {
      if (code === 0) resolve(JSON.parse(text) as T);
      else reject(new Error(`${script} ended with ${code}`));
    });
  });
}

function local(path: string): string {
  return fileURLToPath(new URL(path, import.meta.url));
}
