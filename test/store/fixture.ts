/** A ledger on a database of the test's own. */
import type { Pool } from 'pg';
import { onTestFinished } from 'vitest';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { createLog } from '../../src/log/log.ts';
import { createDatabase, type Database } from '../../src/store/database.ts';
import { createLedger, type LedgerDeps, type PostgresLedger } from '../../src/store/ledger.ts';
import { freshDatabase } from '../support/stores.ts';

export const quietLog = createLog({ level: 'silent', role: 'test' });

export type Fixture = { url: string; pool: Pool; database: Database; ledger: PostgresLedger };

/** Closed at the end of the test that asked. */
export async function freshLedger(wanted: Partial<LedgerDeps> = {}): Promise<Fixture> {
  const { url } = await freshDatabase();
  return ledgerAt(url, wanted);
}

export function ledgerAt(url: string, wanted: Partial<LedgerDeps> = {}): Fixture {
  const pool = connectPostgres({ url, applicationName: 'store-test', max: 8 });
  const database = createDatabase({ pool });
  const ledger = createLedger({ pool, log: quietLog, ...wanted });
  onTestFinished(async () => {
    await ledger.close();
    database.close();
    await pool.end();
  });
  return { url, pool, database, ledger };
}

/** Repeats until it does not throw; throws its last error after `withinMs`. */
export async function eventually<T>(attempt: () => Promise<T>, withinMs: number): Promise<T> {
  const giveUpAt = performance.now() + withinMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > giveUpAt) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
