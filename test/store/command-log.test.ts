import { describe, expect, it } from 'vitest';
import { createCommandLog } from '../../src/store/command-log.ts';
import type { LogRow } from '../../src/store/device-data.ts';
import { createReports } from '../../src/store/reports.ts';
import { freshLedger } from './fixture.ts';
import { attemptOf, later, newRecord } from './records.ts';

const deviceId = '82200520004869';
const t0 = Date.now();
const around = { deviceId, from: t0 - 86_400_000, to: t0 + 86_400_000, limit: 100 };

function row(n: number, wanted: Partial<LogRow> = {}): LogRow {
  return {
    entryId: `${t0}-${n}`,
    at: t0 + Math.floor(n / 2),
    deviceId,
    direction: n % 3 === 0 ? 'down' : 'up',
    protocol: 'bkv',
    name: n % 2 === 0 ? 'charge.end' : 'status.report',
    weight: 'state',
    msgId: n,
    commandId: null,
    fields: { n },
    frame: 'fcfe',
    ...wanted,
  };
}

describe('the command log', () => {
  it('holds each entry once and gives it back as it came', async () => {
    const { database } = await freshLedger();
    const log = createCommandLog({ database });
    const rows = Array.from({ length: 40 }, (_, n) => row(n));
    await Promise.all([log.add(rows), log.add(rows.toReversed())]);
    await log.add(rows.slice(0, 5));
    const { items, nextCursor } = await log.list(around);
    expect(nextCursor).toBe(null);
    const newestFirst = rows.toSorted((a, b) => b.at - a.at || (a.entryId < b.entryId ? 1 : -1));
    expect(items).toEqual(newestFirst);
  });

  it('is read in pages, of a time, a direction and a name', async () => {
    const { database } = await freshLedger();
    const log = createCommandLog({ database });
    await log.add(Array.from({ length: 31 }, (_, n) => row(n)));
    await log.add([row(1, { deviceId: 'another' })]);
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const page: Awaited<ReturnType<typeof log.list>> = await log.list({
        ...around,
        limit: 7,
        ...(cursor && { cursor }),
      });
      seen.push(...page.items.map(({ entryId }) => entryId));
      cursor = page.nextCursor;
    } while (cursor);
    expect(seen).toHaveLength(31);
    expect(new Set(seen).size).toBe(31);
    const narrow = { ...around, from: t0 + 2, to: t0 + 4 };
    const numbers = async (query: Parameters<typeof log.list>[0]) =>
      (await log.list(query)).items.map(({ msgId }) => msgId);
    expect(await numbers(narrow)).toEqual([7, 6, 5, 4]);
    expect(await numbers({ ...narrow, direction: 'down' })).toEqual([6]);
    expect(await numbers({ ...narrow, name: 'status.report' })).toEqual([7, 5]);
  });
});

describe('the frames of a command', () => {
  const written = { writtenAt: t0 + 10, ms: 25, frameIn: 'fcff0015', outcome: 'acked' };

  async function ended() {
    const { ledger, database } = await freshLedger();
    return { ledger, log: createCommandLog({ database }), reports: createReports({ database }) };
  }

  it('are in the log once it has ended, those of earlier attempts too', async () => {
    const { ledger, log, reports } = await ended();
    const record = newRecord();
    const first = attemptOf(1, { at: t0, writtenAt: t0 + 1, ms: 5, outcome: 'no_ack' });
    const second = attemptOf(2, { at: t0 + 9, ...written });
    await ledger.write(record);
    await ledger.write(later(record, 2, { status: 'queued', trail: { 1: first } }));
    expect((await log.list(around)).items).toEqual([]);
    const result = { businessNo: '104' };
    await ledger.write(later(record, 3, { status: 'succeeded', result, trail: { 2: second } }));
    const common = {
      deviceId,
      protocol: 'bkv',
      name: 'charge.start',
      weight: 'command',
      msgId: 7,
      commandId: record.id,
    };
    const down = { ...common, direction: 'down', fields: record.params, frame: 'fcff0011' };
    const { items } = await log.list(around);
    expect(items).toEqual([
      {
        ...common,
        entryId: `c:${record.id}:2:u`,
        at: t0 + 35,
        direction: 'up',
        fields: result,
        frame: 'fcff0015',
      },
      { ...down, entryId: `c:${record.id}:2:d`, at: t0 + 10 },
      { ...down, entryId: `c:${record.id}:1:d`, at: t0 + 1 },
    ]);
    expect(await reports.recent({ deviceId, names: ['charge.start'], limit: 5 })).toEqual([]);
  });

  it('gain the answer that comes late, and nothing twice', async () => {
    const { ledger, log } = await ended();
    const record = newRecord();
    const unanswered = attemptOf(1, { writtenAt: t0 + 10, ms: 9_000, outcome: 'no_ack' });
    const lost = later(record, 2, { status: 'unknown', settledAt: t0, trail: { 1: unanswered } });
    await Promise.all([ledger.write(lost), ledger.write(lost)]);
    await ledger.write(lost);
    const answered = attemptOf(1, written);
    const late = later(record, 2, { status: 'succeeded', late: true, trail: { 1: answered } });
    await ledger.write(late);
    await ledger.write(late);
    const { items } = await log.list(around);
    expect(items.map(({ entryId }) => entryId)).toEqual([
      `c:${record.id}:1:u`,
      `c:${record.id}:1:d`,
    ]);
  });

  it('are those that were surely written, and a question about one is called a probe', async () => {
    const { ledger, log } = await ended();
    const record = newRecord();
    const possibly = attemptOf(1, { at: t0 });
    const probe = attemptOf(1, { at: t0, writtenAt: t0, wireId: 9, frameIn: 'aa', probe: true });
    await ledger.write(
      later(record, 2, { status: 'unknown', trail: { 1: possibly, '1?9': probe } }),
    );
    const { items } = await log.list(around);
    expect(items).toMatchObject([
      { entryId: `c:${record.id}:1?9:u`, name: 'probe', fields: {}, frame: 'aa' },
      { entryId: `c:${record.id}:1?9:d`, name: 'probe', fields: {}, msgId: 9 },
    ]);
  });

  it('of an attempt that only an overtaken record knows are in the log as well', async () => {
    const { ledger, log } = await ended();
    const record = newRecord();
    await ledger.write(
      later(record, 9, { status: 'succeeded', trail: { 2: attemptOf(2, written) } }),
    );
    const before = attemptOf(1, { writtenAt: t0 - 50, outcome: 'no_ack' });
    await ledger.write(later(record, 3, { status: 'queued', trail: { 1: before } }));
    const { items } = await log.list(around);
    expect(items.map(({ entryId }) => entryId.slice(-3))).toEqual(['2:u', '2:d', '1:d']);
  });
});
