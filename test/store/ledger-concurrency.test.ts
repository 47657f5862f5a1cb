import { describe, expect, it } from 'vitest';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { createLedger } from '../../src/store/ledger.ts';
import { freshDatabase } from '../support/stores.ts';
import { quietLog } from './fixture.ts';
import { attemptOf, later, newRecord } from './records.ts';

/** Each stands for a process: its own pool, its own batches. */
const processes = 4;
const commands = 250;
const rounds = 10;

describe('many writers of the same commands', () => {
  it('never deadlock, and the highest version stands with every attempt that was applied', async () => {
    const { url } = await freshDatabase();
    const shared = Array.from({ length: commands }, () => newRecord());

    async function runProcess(number: number): Promise<void> {
      // A short timeout makes PostgreSQL look for deadlocks at every wait, not only after a second.
      const pool = connectPostgres({
        url: `${url}?options=${encodeURIComponent('-c deadlock_timeout=2ms')}`,
        applicationName: `store-test-${number}`,
        max: 4,
      });
      const ledger = createLedger({ pool, log: quietLog, maxBatchRows: 60 + number });
      for (let round = 1; round <= rounds; round += 1) {
        const version = 1 + (round - 1) * processes + number;
        const trail = { [version]: attemptOf(version) };
        const order = shared.toSorted(() => Math.random() - 0.5);
        // 1,000 callers at once, over all processes.
        await Promise.all(
          order.flatMap((record, index) => [
            ledger.write(later(record, version, { status: 'sent', trail })),
            ...(index % 10 === 0 ? [ledger.markLedgerOnly(record.id)] : []),
          ]),
        );
      }
      await ledger.close();
      await pool.end();
    }
    await Promise.all(Array.from({ length: processes }, (_, number) => runProcess(number)));

    const pool = connectPostgres({ url, applicationName: 'store-test', max: 2 });
    const ledger = createLedger({ pool, log: quietLog });
    const rows = [...(await ledger.findMany(shared.map(({ id }) => id))).values()];
    const last = rounds * processes;
    expect(rows).toHaveLength(commands);
    for (const { version, trail } of rows) {
      expect(version).toBe(last);
      expect(trail[last]).toEqual(attemptOf(last));
    }
    // Backends hand in their counts at the latest when they end, which is a moment after pool.end().
    const others = 'SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name ~ $1';
    await expect
      .poll(async () => (await pool.query(others, ['^store-test-\\d'])).rows[0].n)
      .toBe(0);
    const { rows: counts } = await pool.query(
      'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()',
    );
    expect(counts).toEqual([{ deadlocks: '0' }]);
    await ledger.close();
    await pool.end();
  });
});
