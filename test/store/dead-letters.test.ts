import { beforeAll, describe, expect, it } from 'vitest';
import type { CommandRecord } from '../../src/command.ts';
import type { DeadFilter, Ledger } from '../../src/store/contract.ts';
import { listDeadStatement, purgeDeadStatement } from '../../src/store/dead-letters.ts';
import { createRetention } from '../../src/store/retention.ts';
import { freshLedger } from './fixture.ts';
import { later, newRecord } from './records.ts';
import { explain, manyCommands } from './rows.ts';

const idsOf = (records: readonly { id: string }[]) => records.map(({ id }) => id);

function dead(wanted: Partial<CommandRecord> = {}): CommandRecord {
  return newRecord({ status: 'failed', code: 'INVALID', version: 2, settledAt: 5_000, ...wanted });
}

async function stored(ledger: Ledger, records: readonly CommandRecord[]): Promise<void> {
  await Promise.all(records.map((record) => ledger.write(record)));
}

/** All pages, with two rows each. */
async function listed(ledger: Ledger, filter: DeadFilter): Promise<string[]> {
  const ids: string[] = [];
  let cursor: string | null = null;
  do {
    const page = await ledger.listDead({ ...filter, limit: 2, ...(cursor ? { cursor } : {}) });
    ids.push(...idsOf(page.items));
    cursor = page.nextCursor;
  } while (cursor !== null);
  return ids;
}

describe('the list of dead letters', () => {
  it('holds what ended as failed or unknown, newest end first, page by page', async () => {
    const { ledger } = await freshLedger();
    const letters = [
      dead({ settledAt: 9_000 }),
      dead({ settledAt: 8_000, status: 'unknown', code: 'NO_ACK' }),
      ...[dead(), dead(), dead()].sort((a, b) => (a.id < b.id ? 1 : -1)),
    ];
    const others = (['succeeded', 'rejected', 'expired', 'cancelled', 'queued'] as const).map(
      (status) => newRecord({ status, settledAt: 6_000 }),
    );
    await stored(ledger, [...others, ...letters]);
    expect(await listed(ledger, { since: 0 })).toEqual(idsOf(letters));
    const { items } = await ledger.listDead({ since: 0, limit: 1 });
    expect(items).toEqual([letters[0]]);
  });

  it('answers every filter', async () => {
    const { ledger } = await freshLedger();
    const letters = [
      dead({ settledAt: 7_000, deviceId: 'a', command: 'charge.stop' }),
      dead({ settledAt: 6_000, deviceId: 'b', status: 'unknown', code: 'NO_ACK' }),
      dead({ settledAt: 5_000, deviceId: 'a', status: 'unknown', code: 'EXPIRED' }),
    ];
    await stored(ledger, letters);
    const [first, second, third] = idsOf(letters);
    const expected: [DeadFilter, (string | undefined)[]][] = [
      [{ since: 6_000 }, [first, second]],
      [{ since: 0, until: 6_000 }, [third]],
      [{ since: 0, deviceId: 'a' }, [first, third]],
      [{ since: 0, command: 'charge.stop' }, [first]],
      [{ since: 0, code: 'NO_ACK' }, [second]],
      [{ since: 0, status: 'failed' }, [first]],
      [{ since: 0, status: 'unknown', deviceId: 'a' }, [third]],
      [{ since: 0, ids: [third!, first!, 'nothing'] }, [first, third]],
      [{ since: 0, ids: [] }, []],
    ];
    for (const [filter, ids] of expected) {
      expect(await listed(ledger, filter), JSON.stringify(filter)).toEqual(ids);
    }
  });

  it.each([
    ['a cursor of another list', { since: 0, limit: 1, cursor: 'bm9pc2U' }],
    ['too many rows', { since: 0, limit: 201 }],
    ['text that no row can have', { since: 0, limit: 1, code: 'a\0b' }],
  ])('refuses %s', async (_, filter) => {
    const { ledger } = await freshLedger();
    await expect(ledger.listDead(filter)).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  });

  it('loses a command whose answer comes late', async () => {
    const { ledger } = await freshLedger();
    const [answered, refused, silent] = [1, 2, 3].map(() => dead({ status: 'unknown' }));
    await stored(ledger, [answered!, refused!, silent!]);
    await ledger.write(later(answered!, 3, { status: 'succeeded', late: true, settledAt: 6_000 }));
    await ledger.write(later(refused!, 3, { status: 'rejected', late: true, settledAt: 6_000 }));
    expect(await listed(ledger, { since: 0 })).toEqual([silent?.id]);
  });
});

describe('purging dead letters', () => {
  it('takes the oldest off the list, as many as were asked for, and keeps their rows', async () => {
    const { ledger } = await freshLedger();
    const letters = [1, 2, 3, 4].map((n) =>
      dead({ settledAt: n * 1_000, deviceId: `device-${n}` }),
    );
    await stored(ledger, letters);
    const [first, second, third, fourth] = letters;
    const purged = await ledger.purgeDead({ since: 2_000, limit: 2, at: 9_000 });
    expect(purged.toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual(
      [second, third].map((row) => ({ id: row?.id, deviceId: row?.deviceId })),
    );
    expect(await listed(ledger, { since: 0 })).toEqual([fourth?.id, first?.id]);
    expect(await ledger.find(second!.id)).toEqual(second);
    expect(await ledger.purgeDead({ since: 2_000, limit: 2, at: 9_001 })).toHaveLength(1);
    expect(await ledger.purgeDead({ since: 2_000, limit: 2, at: 9_002 })).toEqual([]);
  });

  it('purges each row once, whatever else happens to it at the same time', async () => {
    const { ledger } = await freshLedger();
    const letters = Array.from({ length: 300 }, (_, n) =>
      dead({ status: 'unknown', settledAt: 10_000 - n }),
    );
    await stored(ledger, letters);
    const [answered, ...calls] = await Promise.all([
      Promise.all(
        letters
          .slice(0, 150)
          .map((row) => ledger.write(later(row, 3, { status: 'succeeded', late: true }))),
      ),
      ...[1, 2, 3].map(() => ledger.purgeDead({ since: 0, limit: 1_000, at: 20_000 })),
    ]);
    expect(answered.every(({ applied }) => applied)).toBe(true);
    const purged = calls.flat().map(({ id }) => id);
    expect(new Set(purged).size).toBe(purged.length);
    expect(new Set([...purged, ...idsOf(letters.slice(0, 150))]).size).toBe(300);
    expect(await listed(ledger, { since: 0 })).toEqual([]);
  });

  it('does not keep a row from being answered late, nor from being removed when it is old', async () => {
    const { ledger, database } = await freshLedger();
    const row = dead({ status: 'unknown', acceptedAt: 1_000, settledAt: 2_000 });
    await ledger.write(row);
    await ledger.purgeDead({ since: 0, limit: 1, at: 3_000 });
    const answered = later(row, 3, { status: 'succeeded', late: true, settledAt: 4_000 });
    expect(await ledger.write(answered)).toEqual({ applied: true });
    expect(await ledger.find(row.id)).toEqual(answered);
    const removed = await createRetention({ database }).removeOld({
      before: 5_000,
      now: 5_000,
      limit: 9,
    });
    expect(removed.commands).toBe(1);
  });
});

describe('at 20,000 rows', () => {
  let database: Awaited<ReturnType<typeof manyCommands>>;

  beforeAll(async () => {
    database = await manyCommands();
  });

  it('the list follows its index', async () => {
    for (const wanted of [{}, { status: 'failed' as const }, { command: 'port.query' }]) {
      const { text, values } = listDeadStatement({ since: 15_000, limit: 50, ...wanted });
      const plan = await explain(database.url, text, values);
      expect(plan).toContain('commands_dead');
      expect(plan).not.toContain('Seq Scan');
    }
  });

  it('the purge follows it too', async () => {
    const { text, values } = purgeDeadStatement({ since: 15_000, limit: 100, at: 1 });
    const plan = await explain(database.url, text, values);
    expect(plan).toContain('commands_dead');
    expect(plan).not.toContain('Seq Scan');
  });
});
