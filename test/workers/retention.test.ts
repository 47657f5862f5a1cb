import { expect, it } from 'vitest';
import { createLog } from '../../src/log/log.ts';
import { createRemoval, keptMs } from '../../workers/retention.ts';
import { freshLedger } from '../store/fixture.ts';
import { newRecord } from '../store/records.ts';

const dayMs = 86_400_000;
const log = createLog({ level: 'silent', role: 'test' });

it('removes ended commands after 30 days, turn by turn, and says while there is more', async () => {
  const { ledger } = await freshLedger();
  const nowMs = Date.now();
  const endedAt = (at: number) => newRecord({ acceptedAt: at, settledAt: at, status: 'succeeded' });
  const old = Array.from({ length: 7 }, (_, n) => endedAt(nowMs - 30 * dayMs - 1 - n));
  const young = endedAt(nowMs - 30 * dayMs + 1);
  await Promise.all([...old, young].map((record) => ledger.write(record)));
  const removeOld = createRemoval({
    retention: ledger,
    log,
    now: () => nowMs,
    rowsAtOnce: 2,
    roundsPerTurn: 2,
  });
  const left = async () => (await ledger.list({ limit: 10 })).items.length;

  expect(keptMs).toBe(30 * dayMs);
  expect(await removeOld()).toBe(true);
  expect(await left()).toBe(4);
  expect(await removeOld()).toBe(false);
  const { items } = await ledger.list({ limit: 10 });
  expect(items.map(({ id }) => id)).toEqual([young.id]);
});

it('turns the days of the log: makes those to come, drops those past 30 days a few at a time', async () => {
  const { ledger, pool } = await freshLedger();
  // Noon, 2030-03-31: the last day that has been over for 30 days is 2030-02-28.
  const nowMs = Date.UTC(2030, 2, 31, 12);
  await ledger.makeLogDays({ now: Date.UTC(2030, 2, 2), daysBack: 5, daysAhead: 0 });
  const removeOld = createRemoval({ retention: ledger, log, now: () => nowMs });
  const days = async () => {
    const { rows } = await pool.query<{ day: string }>(
      `SELECT right(relname, 8) AS day FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
       WHERE inhparent = 'command_log'::regclass AND relname ~ '\\d$' ORDER BY 1`,
    );
    return rows.map(({ day }) => day);
  };
  expect((await days()).slice(-6)).toEqual(
    ['0225', '0226', '0227', '0228', '0301', '0302'].map((day) => `2030${day}`),
  );
  let turns = 1;
  while (await removeOld()) turns += 1;
  expect(turns).toBeGreaterThan(2);
  expect(await days()).toEqual(
    ['0301', '0302', '0329', '0330', '0331', '0401', '0402', '0403'].map((day) => `2030${day}`),
  );
});
