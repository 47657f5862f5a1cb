import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { migrate } from '../../src/store/migrate.ts';
import { type PrivateStore, privatePostgres } from '../support/stores.ts';
import { eventually, freshLedger, ledgerAt } from './fixture.ts';
import { newRecord } from './records.ts';

const away = { code: 'LEDGER_UNAVAILABLE' };
/** What a caller may wait for its refusal: one statement timeout and a little. */
const statementTimeoutMs = 500;
const boundMs = 3_000;
const recoveryMs = 10_000;

async function timed(promise: Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await expect(promise).rejects.toMatchObject(away);
  return performance.now() - startedAt;
}

describe('a ledger whose PostgreSQL goes away', () => {
  let store: PrivateStore;

  beforeAll(async () => {
    store = await privatePostgres();
    await migrate({ url: store.url });
  });

  afterAll(() => store.server.stop());

  it('refuses every caller within a bound and takes writes again by itself', async () => {
    const { ledger } = ledgerAt(store.url, { statementTimeoutMs });
    await ledger.write(newRecord());
    // A crash that takes the backends along; after SIGKILL they may serve for a moment more.
    await store.server.kill('SIGQUIT');
    const many = Array.from({ length: 1_000 }, () => timed(ledger.write(newRecord())));
    expect(Math.max(...(await Promise.all(many)))).toBeLessThan(boundMs);
    expect(await timed(ledger.find('any'))).toBeLessThan(boundMs);
    expect(await timed(ledger.markLedgerOnly('any'))).toBeLessThan(boundMs);
    const record = newRecord();
    const idempotency = { apiKey: 'a', key: 'k', bodyHash: 'h', expiresAt: Date.now() + 1_000 };
    expect(await timed(ledger.claim(record, idempotency))).toBeLessThan(boundMs);

    await store.server.start();
    expect(await eventually(() => ledger.write(record), recoveryMs)).toEqual({ applied: true });
    expect(await ledger.find(record.id)).toEqual(record);
  });

  it('refuses at once after the first caller found the server hanging', async () => {
    const { ledger } = ledgerAt(store.url, { statementTimeoutMs });
    await ledger.write(newRecord());
    await store.server.kill('SIGSTOP');
    try {
      // Only the processes' parent is stopped: what waits is the opening of connections.
      const { ledger: cold } = ledgerAt(store.url, { statementTimeoutMs });
      expect(await timed(cold.write(newRecord()))).toBeLessThan(boundMs);
      expect(await timed(cold.write(newRecord()))).toBeLessThan(statementTimeoutMs / 2);
    } finally {
      await store.server.kill('SIGCONT');
    }
  });
});

describe('a ledger that loses its connections', () => {
  it('loses no write that it confirmed and goes on by itself', async () => {
    const { ledger, url } = await freshLedger({ statementTimeoutMs });
    const admin = connectPostgres({ url, applicationName: 'store-test-admin', max: 1 });
    const confirmed: string[] = [];
    let refused = 0;
    for (let round = 0; round < 5; round += 1) {
      const writes = Array.from({ length: 400 }, async () => {
        const record = newRecord();
        try {
          await ledger.write(record);
          confirmed.push(record.id);
        } catch {
          refused += 1;
        }
      });
      await admin.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = 'store-test' AND datname = current_database()`,
      );
      await Promise.all(writes);
      await eventually(() => ledger.find('any'), recoveryMs);
    }
    await admin.end();
    expect(confirmed.length + refused).toBe(2_000);
    expect((await ledger.findMany(confirmed)).size).toBe(confirmed.length);
    expect(await ledger.write(newRecord())).toEqual({ applied: true });
  });

  it('refuses, rather than holds, the callers of a locked table, and goes on after', async () => {
    const { ledger, url } = await freshLedger({ statementTimeoutMs });
    const admin = connectPostgres({ url, applicationName: 'store-test-admin', max: 1 });
    const client = await admin.connect();
    await client.query('BEGIN; LOCK TABLE commands');
    const many = Array.from({ length: 1_200 }, () => timed(ledger.write(newRecord())));
    expect(Math.max(...(await Promise.all(many)))).toBeLessThan(boundMs);
    await client.query('ROLLBACK');
    client.release();
    await admin.end();
    const record = newRecord();
    expect(await eventually(() => ledger.write(record), recoveryMs)).toEqual({ applied: true });
  });

  it('says that the migrations are missing', async () => {
    const { ledger, pool } = await freshLedger();
    await pool.query('DROP TABLE commands');
    await expect(ledger.write(newRecord())).rejects.toMatchObject({
      ...away,
      message: expect.stringContaining('migrations'),
    });
  });
});
