import { describe, expect, it } from 'vitest';
import { statuses } from '../../src/command.ts';
import { overdueSql } from '../../src/store/ledger.ts';
import { freshLedger } from './fixture.ts';
import { newRecord } from './records.ts';
import { explain, manyCommands } from './rows.ts';

describe('what is overdue', () => {
  it('is every unfinished command at its deadline, earliest first, page by page', async () => {
    const { ledger } = await freshLedger();
    const records = Array.from({ length: 60 }, (_, index) =>
      newRecord({
        status: statuses[index % statuses.length]!,
        // Three of one moment, so that the id must break the tie.
        deadline: 1_000 + Math.floor(index / 3),
      }),
    );
    await Promise.all(records.map((record) => ledger.write(record)));
    const open = ['scheduled', 'queued', 'parked', 'sent'];
    const expected = records
      .filter(({ status, deadline }) => open.includes(status) && deadline <= 1_015)
      .sort((a, b) => a.deadline - b.deadline || (a.id < b.id ? -1 : 1))
      .map(({ id }) => id);
    const seen: string[] = [];
    let after: { deadline: number; id: string } | null = null;
    for (;;) {
      const page = await ledger.overdue({ before: 1_015, after, limit: 3 });
      seen.push(...page.map(({ id }) => id));
      const last = page.at(-1);
      if (page.length < 3 || !last) break;
      after = { deadline: last.deadline, id: last.id };
    }
    expect(expected.length).toBeGreaterThan(10);
    expect(seen).toEqual(expected);
  });

  it('is found by the index of deadlines', async () => {
    const { url } = await manyCommands();
    const plan = await explain(url, overdueSql, [70_000, 65_000, '000000005000', 100]);
    expect(plan).toContain('commands_unfinished_deadline');
    expect(plan).not.toContain('Seq Scan');
  });
});
