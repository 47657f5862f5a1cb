import { beforeAll, describe, expect, it } from 'vitest';
import type { CommandRecord, Status } from '../../src/command.ts';
import { statuses } from '../../src/command.ts';
import { listStatement } from '../../src/store/command-list.ts';
import type { CommandFilter, Ledger } from '../../src/store/contract.ts';
import { freshLedger, ledgerAt } from './fixture.ts';
import { newRecord } from './records.ts';
import { explain, manyCommands } from './rows.ts';

async function pages(ledger: Ledger, filter: CommandFilter): Promise<CommandRecord[]> {
  const items: CommandRecord[] = [];
  let cursor: string | null = null;
  do {
    const page = await ledger.list({ ...filter, ...(cursor === null ? {} : { cursor }) });
    expect(page.items.length).toBeLessThanOrEqual(filter.limit);
    items.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor !== null);
  return items;
}

const idsOf = (records: readonly CommandRecord[]) => records.map(({ id }) => id);

/** Newest first, and by id where they were accepted in the same moment. */
function newestFirst(records: readonly CommandRecord[]): CommandRecord[] {
  return records.toSorted((a, b) => b.acceptedAt - a.acceptedAt || (a.id < b.id ? 1 : -1));
}

describe('a list of commands', () => {
  it('answers every combination of filters, page by page', async () => {
    const { ledger } = await freshLedger();
    const records = Array.from({ length: 240 }, (_, index) =>
      newRecord({
        deviceId: `device-${index % 3}`,
        command: ['charge.start', 'charge.stop'][index % 2]!,
        status: statuses[index % statuses.length]!,
        // Three commands in each moment, so that the id must break the tie.
        acceptedAt: 1_700_000_000_000 + Math.floor(index / 3) * 1_000,
      }),
    );
    await Promise.all(records.map((record) => ledger.write(record)));
    const from = 1_700_000_020_000;
    const to = 1_700_000_060_000;
    const wantedStatuses: (Status[] | undefined)[] = [
      undefined,
      ['failed'],
      ['succeeded'],
      ['failed', 'unknown'],
      ['queued', 'parked'],
      ['sent', 'succeeded', 'unknown'],
    ];
    for (let bits = 0; bits < 16; bits += 1) {
      for (const status of wantedStatuses) {
        const filter: CommandFilter = {
          limit: 7,
          ...(bits & 1 ? { deviceId: 'device-1' } : {}),
          ...(bits & 2 ? { command: 'charge.stop' } : {}),
          ...(bits & 4 ? { from } : {}),
          ...(bits & 8 ? { to } : {}),
          ...(status ? { status } : {}),
        };
        const expected = records.filter(
          (record) =>
            (!(bits & 1) || record.deviceId === 'device-1') &&
            (!(bits & 2) || record.command === 'charge.stop') &&
            (!(bits & 4) || record.acceptedAt >= from) &&
            (!(bits & 8) || record.acceptedAt < to) &&
            (!status || status.includes(record.status)),
        );
        expect(idsOf(await pages(ledger, filter)), JSON.stringify(filter)).toEqual(
          idsOf(newestFirst(expected)),
        );
      }
    }
  });

  it('visits each row once while new ones come in', async () => {
    const { ledger } = await freshLedger();
    const old = Array.from({ length: 100 }, () => newRecord());
    await Promise.all(old.map((record) => ledger.write(record)));
    const seen: string[] = [];
    let cursor: string | undefined;
    for (;;) {
      const page = await ledger.list({ limit: 9, ...(cursor ? { cursor } : {}) });
      seen.push(...idsOf(page.items));
      if (page.nextCursor === null) break;
      cursor = page.nextCursor;
      await Promise.all([
        ledger.write(newRecord({ acceptedAt: Date.now() + 1_000 })),
        ledger.write(newRecord({ acceptedAt: Date.now() + 1_000 })),
      ]);
    }
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen.sort()).toEqual(idsOf(old).sort());
  });

  it('ends without a cursor when the last page is full', async () => {
    const { ledger } = await freshLedger();
    await Promise.all([1, 2, 3].map(() => ledger.write(newRecord())));
    expect((await ledger.list({ limit: 3 })).nextCursor).toBeNull();
    expect((await ledger.list({ limit: 2 })).nextCursor).not.toBeNull();
    expect(await ledger.list({ limit: 2, status: [] })).toEqual({ items: [], nextCursor: null });
  });

  it.each([
    ['an empty cursor', { limit: 1, cursor: '' }],
    ['noise for a cursor', { limit: 1, cursor: '%%%' }],
    [
      'a cursor of another shape',
      { limit: 1, cursor: Buffer.from('["x",1]').toString('base64url') },
    ],
    ['a cursor without end', { limit: 1, cursor: 'W'.repeat(10_000) }],
    ['no rows', { limit: 0 }],
    ['too many rows', { limit: 201 }],
    ['half a row', { limit: 1.5 }],
    ['a status that is none', { limit: 1, status: ["x' OR true --" as Status] }],
    ['text that no row can have', { limit: 1, deviceId: 'a\0b' }],
  ])('refuses %s', async (_, filter) => {
    const { ledger } = await freshLedger();
    await expect(ledger.list(filter)).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  });
});

describe('what is unfinished', () => {
  it('comes in the order of acceptance, page by page, without what is too young', async () => {
    const { ledger } = await freshLedger();
    const records = Array.from({ length: 30 }, (_, index) =>
      newRecord({ status: statuses[index % statuses.length]!, acceptedAt: 1_000 + index }),
    );
    await Promise.all(records.map((record) => ledger.write(record)));
    const open = records.filter(
      ({ status, acceptedAt }) =>
        ['scheduled', 'queued', 'parked', 'sent'].includes(status) && acceptedAt < 1_020,
    );
    const seen: string[] = [];
    let afterId: string | null = null;
    for (;;) {
      const page: CommandRecord[] = await ledger.unfinished({
        afterId,
        acceptedBefore: 1_020,
        limit: 3,
        ledgerOnly: false,
      });
      seen.push(...idsOf(page));
      afterId = page.at(-1)?.id ?? null;
      if (page.length < 3) break;
    }
    expect(open.length).toBeGreaterThan(5);
    expect(seen).toEqual(idsOf(open).sort());
  });
});

describe('at 20,000 rows', () => {
  let url: string;

  beforeAll(async () => {
    url = (await manyCommands()).url;
  });

  const filters: [string, CommandFilter, string][] = [
    ['all', { limit: 50 }, 'commands_accepted'],
    ['a device', { limit: 50, deviceId: 'device-7' }, 'commands_device'],
    ['dead ones', { limit: 50, status: ['failed', 'unknown'] }, 'commands_ended'],
    ['queued ones', { limit: 50, status: ['queued'] }, 'commands_unfinished'],
    ['a time range', { limit: 50, from: 100, to: 200 }, 'commands_accepted'],
    [
      'a device in a time range',
      { limit: 50, deviceId: 'device-7', from: 100, to: 9_000 },
      'commands_device',
    ],
  ];

  it.each(filters)('a list of %s follows an index', async (_, filter, index) => {
    const { text, values } = listStatement(filter);
    const plan = await explain(url, text, values);
    expect(plan).toContain(index);
    expect(plan).not.toContain('Seq Scan');
  });

  it('the reaper follows the indexes of unfinished rows', async () => {
    const { ledger, pool } = ledgerAt(url);
    const scansOf = async () => {
      const { rows } = await pool.query<{ name: string; scans: string }>(
        `SELECT indexrelname AS name, pg_stat_get_numscans(indexrelid) AS scans
         FROM pg_stat_user_indexes WHERE relname = 'commands'`,
      );
      return Object.fromEntries(rows.map(({ name, scans }) => [name, Number(scans)]));
    };
    const query = { afterId: null, acceptedBefore: 30_000, limit: 10 };
    expect(await ledger.unfinished({ ...query, ledgerOnly: false })).toHaveLength(10);
    expect(await ledger.unfinished({ ...query, ledgerOnly: true })).toHaveLength(10);
    await expect.poll(scansOf, { timeout: 10_000 }).toMatchObject({
      commands_unfinished: expect.toSatisfy((scans: number) => scans > 0),
      commands_ledger_only: expect.toSatisfy((scans: number) => scans > 0),
    });
  });
});
