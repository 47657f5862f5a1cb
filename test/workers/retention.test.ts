import { expect, it } from 'vitest';
import { createLog } from '../../src/log/log.ts';
import { createRemoval, keptMs } from '../../workers/retention.ts';
import { freshLedger } from '../store/fixture.ts';
import { newRecord } from '../store/records.ts';

const dayMs = 86_400_000;
const nowMs = 1_800_000_000_000;

it('removes ended commands after 30 days, turn by turn, and says while there is more', async () => {
  const { ledger } = await freshLedger();
  const endedAt = (at: number) => newRecord({ acceptedAt: at, settledAt: at, status: 'succeeded' });
  const old = Array.from({ length: 7 }, (_, n) => endedAt(nowMs - 30 * dayMs - 1 - n));
  const young = endedAt(nowMs - 30 * dayMs + 1);
  await Promise.all([...old, young].map((record) => ledger.write(record)));
  const removeOld = createRemoval({
    retention: ledger,
    log: createLog({ level: 'silent', role: 'test' }),
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
