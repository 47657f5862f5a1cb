import { Client } from 'pg';
import { describe, expect, it } from 'vitest';
import { migrate, migrationStatus, rollback } from '../../src/store/migrate.ts';
import { emptyDatabase } from '../support/stores.ts';
import { ledgerAt } from './fixture.ts';

const all = [
  '0001_ledger',
  '0002_devices',
  '0003_indexes',
  '0004_delivery',
  '0005_delivery_indexes',
  '0006_device_data',
  '0007_device_data_indexes',
];
/** Steps back to the state before 0004. */
const sinceDelivery = all.slice(3);

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
    expect(before).toContain('orders_device');
    expect(await rollback({ url, steps: 1 })).toEqual(['0007_device_data_indexes']);
    expect(await relations(url)).not.toContain('orders_device');
    expect(await rollback({ url, steps: 1 })).toEqual(['0006_device_data']);
    expect(await relations(url)).not.toContain('command_log_pkey');
    expect(before).toContain('commands_dead');
    expect(await rollback({ url, steps: 1 })).toEqual(['0005_delivery_indexes']);
    expect(await relations(url)).not.toContain('commands_dead');
    expect(before).toContain('commands_unfinished_deadline');
    expect(await rollback({ url, steps: 2 })).toEqual(['0004_delivery', '0003_indexes']);
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
    await client.query("DELETE FROM downlink_migrations WHERE name = '0007_device_data_indexes'");
    await client.query(
      "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_device'::regclass",
    );
    await client.end();
    expect(await migrate({ url })).toEqual(['0007_device_data_indexes']);
    expect(await relations(url)).toContain('orders_device');
  });

  it('give up soon when a reader holds the table, and apply once it is gone', async () => {
    const { url } = await emptyDatabase();
    await migrate({ url });
    await rollback({ url, steps: sinceDelivery.length });
    const reader = new Client({ connectionString: url });
    await reader.connect();
    await reader.query('BEGIN');
    await reader.query('SELECT count(*) FROM commands');
    await expect(migrate({ url })).rejects.toThrow(/lock timeout/);
    await reader.query('COMMIT');
    await reader.end();
    expect(await migrate({ url })).toEqual(sinceDelivery);
  });

  it('keep the rows that were there before a column came', async () => {
    const { url } = await emptyDatabase();
    await migrate({ url });
    await rollback({ url, steps: sinceDelivery.length });
    const client = new Client({ connectionString: url });
    await client.connect();
    await client.query(
      `INSERT INTO commands (id, device_id, protocol, command, params, priority, accepted_at,
         not_before, deadline, ack_timeout_ms, attempts, backoff_ms, on_ambiguous, labels, api_key,
         status, version, late, inferred, settled_at, trail)
       VALUES ('a', 'device-1', 'bkv', 'port.query', '{}', 5, 1, 1, 2, 10, 4, 3, 'resend', '{}', 'k',
         'failed', 2, false, false, 5, '{}')`,
    );
    await client.end();
    await migrate({ url });
    const { ledger } = ledgerAt(url);
    expect(await ledger.find('a')).toMatchObject({ replayOf: null, settledAt: 5 });
    expect((await ledger.listDead({ since: 0, limit: 5 })).items.map(({ id }) => id)).toEqual([
      'a',
    ]);
  });

  it('carry reports into the command log, each into its day, and back again', async () => {
    const { url } = await emptyDatabase();
    await migrate({ url });
    await rollback({ url, steps: 2 });
    const client = new Client({ connectionString: url });
    await client.connect();
    const tenDaysAgo = Date.now() - 10 * 86_400_000;
    await client.query(
      `INSERT INTO device_reports VALUES
         ('1-1', 'd', 'bkv', 'charge.end', 'money', $1, 7, '{"energyWh": 5}', 'fcfe'),
         ('1-2', 'd', 'bkv', 'charge.end', 'money', 5, 8, '{}', '')`,
      [tenDaysAgo],
    );
    await migrate({ url });
    const { rows } = await client.query(
      'SELECT tableoid::regclass::text AS day, entry_id, direction FROM command_log ORDER BY entry_id',
    );
    const day = new Date(tenDaysAgo).toISOString().slice(0, 10).replaceAll('-', '');
    expect(rows).toEqual([
      { day: `command_log_${day}`, entry_id: '1-1', direction: 'up' },
      { day: 'command_log_default', entry_id: '1-2', direction: 'up' },
    ]);
    await client.query(
      `INSERT INTO command_log (at, entry_id, device_id, direction, protocol, name, weight, msg_id, fields, frame)
       VALUES ($1, '1-3', 'd', 'up', 'bkv', 'charge.end', 'money', 9, '{}', '')`,
      [Date.now()],
    );
    await rollback({ url, steps: 2 });
    const { rows: back } = await client.query('SELECT entry_id FROM device_reports ORDER BY 1');
    await client.end();
    expect(back.map(({ entry_id }) => entry_id)).toEqual(['1-1', '1-2', '1-3']);
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
