import { expect, test } from 'vitest';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { freshDatabase, freshRedis } from './stores.ts';

async function tablesOf(url: string): Promise<string[]> {
  const pool = connectPostgres({ url, applicationName: 'test', max: 1 });
  try {
    const { rows } = await pool.query<{ name: string }>(
      "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public'",
    );
    return rows.map(({ name }) => name);
  } finally {
    await pool.end();
  }
}

test('every fresh database is migrated and another one', async () => {
  const [first, second] = await Promise.all([freshDatabase(), freshDatabase()]);
  expect(first.url).not.toBe(second.url);
  const tables = await tablesOf(first.url);
  expect(tables).toContain('downlink_migrations');
  expect(tables.length).toBeGreaterThan(1);
  expect(await tablesOf(second.url)).toEqual(expect.arrayContaining(tables));
});

test('every fresh prefix is another one, in one Redis', async () => {
  const [first, second] = [await freshRedis(), await freshRedis()];
  expect(first.url).toBe(second.url);
  expect(first.prefix).not.toBe(second.prefix);
});
