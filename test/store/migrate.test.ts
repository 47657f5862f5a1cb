import { Client } from 'pg';
import { describe, expect, it } from 'vitest';
import { migrate, migrationStatus, rollback } from '../../src/store/migrate.ts';
import { emptyDatabase } from '../support/stores.ts';

const all = ['0001_ledger', '0002_devices', '0003_indexes'];

async function relations(url: string): Promise<string[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query<{ relname: string }>(
    `SELECT relname FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid
     WHERE relnamespace = 'public'::regnamespace AND indisvalid ORDER BY relname`,
  );
  await client.end();
  return rows.map(({ relname }) => relname);
}

describe('migrations', () => {
  it('apply each file once when several processes start together', async () => {
    const { url } = await emptyDatabase();
    const applied = await Promise.all([migrate({ url }), migrate({ url }), migrate({ url })]);
    expect(applied.flat().sort()).toEqual(all);
    expect(await migrationStatus({ url })).toEqual({ applied: all, pending: [] });
  });

  it('leave nothing to do for the next start', async () => {
    const { url } = await emptyDatabase();
    expect(await migrate({ url })).toEqual(all);
    expect(await migrate({ url })).toEqual([]);
  });

  it('tell what is missing without changing anything', async () => {
    const { url } = await emptyDatabase();
    expect(await migrationStatus({ url })).toEqual({ applied: [], pending: all });
    expect(await relations(url)).toEqual([]);
  });

  it('roll back step by step and apply again', async () => {
    const { url } = await emptyDatabase();
    await migrate({ url });
    const before = await relations(url);
    expect(before).toContain('commands_unfinished_deadline');
    expect(await rollback({ url, steps: 1 })).toEqual(['0003_indexes']);
    expect(await relations(url)).not.toContain('commands_unfinished_deadline');
    expect(await rollback({ url, steps: 2 })).toEqual(['0002_devices', '0001_ledger']);
    expect((await migrationStatus({ url })).pending).toEqual(all);
    await migrate({ url });
    expect(await relations(url)).toEqual(before);
  });

  it('repair an index whose build was cut off', async () => {
    const { url } = await emptyDatabase();
    await migrate({ url });
    const client = new Client({ connectionString: url });
    await client.connect();
    await client.query("DELETE FROM downlink_migrations WHERE name = '0003_indexes'");
    await client.query(
      "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'commands_device'::regclass",
    );
    await client.end();
    expect(await migrate({ url })).toEqual(['0003_indexes']);
    expect(await relations(url)).toContain('commands_device');
  });

  it('refuse a rollback of no steps', async () => {
    const { url } = await emptyDatabase();
    await expect(rollback({ url, steps: 0 })).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  });

  it('say that the server cannot be reached', async () => {
    const url = 'postgres://nobody@127.0.0.1:1/nothing';
    await expect(migrate({ url })).rejects.toMatchObject({ code: 'LEDGER_UNAVAILABLE' });
  });
});
