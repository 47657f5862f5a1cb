import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { slowTable } from '../../src/cli/db-slow.ts';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { emptyDatabase, freshDatabase, privatePostgres } from '../support/stores.ts';

const root = join(import.meta.dirname, '../..');

/** Runs the command as a user does. */
function downlink(url: string, ...args: string[]) {
  return new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
    const child = execFile(
      process.execPath,
      ['src/cli/main.ts', ...args],
      { cwd: root, env: { PATH: process.env['PATH'], DATABASE_URL: url } },
      (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

async function query(url: string, text: string) {
  const pool = connectPostgres({ url, applicationName: 'test', max: 1 });
  try {
    return (await pool.query(text)).rows;
  } finally {
    await pool.end();
  }
}

describe('downlink db seed', { timeout: 60_000 }, () => {
  it('fills an empty database, tells how far it is, and refuses one in use', async () => {
    const { url } = await freshDatabase();
    const numbers = ['--devices', '50', '--orders', '300', '--log', '400'];
    const first = await downlink(url, 'db', 'seed', ...numbers);
    expect(first.stderr).toContain('devices 50 of 50\n');
    expect(first.stderr).toContain('command_log 400 of 400\n');
    expect(first.stdout).toMatch(/^seeded 50 devices, 300 orders, 400 log rows in [\d.]+ s\n$/);
    expect(first.code).toBe(0);
    const countsSql = `SELECT (SELECT count(*) FROM devices)::int AS devices,
      (SELECT count(*) FROM orders)::int AS orders, (SELECT count(*) FROM command_log)::int AS log`;
    expect(await query(url, countsSql)).toEqual([{ devices: 50, orders: 300, log: 400 }]);

    await query(url, `INSERT INTO devices (device_id, protocol) VALUES ('82200520004869', 'bkv')`);
    const second = await downlink(url, 'db', 'seed', ...numbers);
    expect(second.code).toBe(1);
    expect(second.stderr).toContain('this database is in use (devices)');
    const third = await downlink(url, 'db', 'seed', ...numbers, '--in-use');
    expect(third.code).toBe(0);
  });

  it('says what a database without tables lacks, and what a number must be', async () => {
    const { url } = await emptyDatabase();
    const bare = await downlink(url, 'db', 'seed', '--devices', '1');
    expect([bare.code, bare.stdout]).toEqual([1, '']);
    expect(bare.stderr).toContain('the database may need its migrations');
    const wrong = await downlink(url, 'db', 'seed', '--devices', 'many');
    expect(wrong.code).toBe(1);
    expect(wrong.stderr).toContain('It takes a whole number.');
  });
});

describe('downlink db slow', { timeout: 60_000 }, () => {
  it('says how statements come to be counted, then lists those above the mean', async () => {
    const postgres = await privatePostgres();
    try {
      const { url } = postgres;
      const before = await downlink(url, 'db', 'slow');
      expect(before.code).toBe(1);
      expect(before.stdout).toContain("shared_preload_libraries = 'pg_stat_statements'");

      const available = await query(
        url,
        `SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements'`,
      );
      // Some distributions pack it apart; the sentence above is then all there is.
      if (available.length === 0) return;
      await query(url, `ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'`);
      await postgres.server.kill('SIGQUIT');
      await postgres.server.start();
      await query(url, 'CREATE EXTENSION pg_stat_statements');
      await query(url, `SELECT 'a nap', pg_sleep(0.15)`);
      await query(url, `SELECT 'no nap'`);

      const after = await downlink(url, 'db', 'slow', '--mean', '120', '--limit', '5');
      const [head, ...rows] = after.stdout.trimEnd().split('\n');
      expect(head).toMatch(/mean ms +max ms +calls +total s +rows +statement/);
      expect(rows.filter((row) => row.includes('pg_sleep'))).toHaveLength(1);
      expect(after.stdout).not.toContain('no nap');
      expect(after.code).toBe(0);
      const none = await downlink(url, 'db', 'slow', '--mean', '60000');
      expect([none.code, none.stdout]).toEqual([
        0,
        'no statement takes 60000 ms or more on average\n',
      ]);
    } finally {
      await postgres.stop();
    }
  });

  it('keeps a table to the width of the terminal, and statements to one harmless line', () => {
    const query = `SELECT\n  a,\u001b[31m b FROM ${'very_'.repeat(40)}long`;
    const statement = { query, calls: 3, meanMs: 1234.56, maxMs: 2000, totalMs: 3703.68, rows: 9 };
    const lines = slowTable([statement], 100);
    expect(lines[1]).toMatch(/^ +1234\.6 +2000\.0 +3 +3\.7 +9 {2}SELECT a, \[31m b FROM very_.*…$/);
    expect(Math.max(...lines.map((line) => line.length))).toBe(100);
  });
});
