import { describe, expect, it } from 'vitest';
import type { CommandRecord, Status } from '../../src/command.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import { freshLedger } from './fixture.ts';
import { attemptOf, later, newRecord } from './records.ts';

describe('a write to the ledger', () => {
  it('gives back every field as it was written', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord({
      status: 'rejected',
      version: 4,
      reason: 'the device said no',
      code: '7',
      result: { code: 7, list: [1, null, { deep: 'é漢' }] },
      late: true,
      inferred: true,
      settledAt: Date.now(),
      trail: { 1: attemptOf(1), 2: attemptOf(2, { outcome: 'rejected', ms: 12 }) },
      orderKey: null,
      waiter: 'api-1',
      replayOf: null,
    });
    expect(await ledger.write(record)).toEqual({ applied: true });
    expect(await ledger.find(record.id)).toEqual(record);
  });

  it('knows nothing of a command that was never written', async () => {
    const { ledger } = await freshLedger();
    expect(await ledger.find('0197-none')).toBeNull();
  });

  it('inserts an accepted command once and leaves the row alone afterwards', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord();
    expect(await ledger.write(record)).toEqual({ applied: true });
    expect(await ledger.write({ ...record, reason: 'again' })).toEqual({ applied: false });
    expect(await ledger.find(record.id)).toEqual(record);
  });

  it('refuses an older version', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord();
    await ledger.write(later(record, 5, { status: 'sent' }));
    expect(await ledger.write(later(record, 4, { status: 'parked' }))).toEqual({ applied: false });
    expect(await ledger.find(record.id)).toMatchObject({ version: 5, status: 'sent' });
  });

  it('stores a settlement that arrives before its accept', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord();
    const settled = later(record, 3, { status: 'succeeded', settledAt: Date.now() });
    expect(await ledger.write(settled)).toEqual({ applied: true });
    expect(await ledger.write(record)).toEqual({ applied: false });
    expect(await ledger.find(record.id)).toEqual(settled);
  });

  const ends: Status[] = [
    'succeeded',
    'rejected',
    'unacknowledged',
    'expired',
    'cancelled',
    'superseded',
    'failed',
  ];
  it.each(ends)('never changes a command that ended as %s', async (end) => {
    const { ledger } = await freshLedger();
    const record = newRecord({ status: end });
    await ledger.write(record);
    for (const status of ['queued', 'sent', 'succeeded', 'rejected', 'unknown'] as const) {
      expect(await ledger.write(later(record, 9, { status }))).toEqual({ applied: false });
    }
    expect(await ledger.find(record.id)).toEqual(record);
  });

  it.each(['succeeded', 'rejected'] as const)(
    'lets a late answer turn unknown into %s',
    async (end) => {
      const { ledger } = await freshLedger();
      const record = newRecord({ status: 'unknown', trail: { 1: attemptOf(1) } });
      await ledger.write(record);
      const answer = later(record, 2, { status: end, late: true, trail: { 2: attemptOf(2) } });
      expect(await ledger.write(answer)).toEqual({ applied: true });
      expect(await ledger.find(record.id)).toMatchObject({
        status: end,
        late: true,
        trail: { 1: attemptOf(1), 2: attemptOf(2) },
      });
    },
  );

  it.each(['queued', 'sent', 'expired', 'unknown'] as const)(
    'keeps unknown when a newer version says %s',
    async (status) => {
      const { ledger } = await freshLedger();
      const record = newRecord({ status: 'unknown' });
      await ledger.write(record);
      expect(await ledger.write(later(record, 2, { status }))).toEqual({ applied: false });
      expect(await ledger.find(record.id)).toEqual(record);
    },
  );

  it('merges trails, the newer version deciding on an attempt that both know', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord({ trail: { 1: attemptOf(1), 2: attemptOf(2) } });
    await ledger.write(record);
    const ended = attemptOf(2, { outcome: 'ambiguous', ms: 10_000 });
    await ledger.write(later(record, 2, { status: 'sent', trail: { 2: ended, 3: attemptOf(3) } }));
    expect((await ledger.find(record.id))?.trail).toEqual({
      1: attemptOf(1),
      2: ended,
      3: attemptOf(3),
    });
  });

  it('takes from a record that came too late the attempts that the row does not know', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord();
    const second = attemptOf(2, { outcome: 'acked', ms: 12 });
    const ended = later(record, 9, { status: 'succeeded', trail: { 2: second } });
    await ledger.write(ended);
    const first = attemptOf(1, { outcome: 'gateway-lost' });
    const older = later(record, 4, {
      status: 'queued',
      trail: { 1: first, 2: attemptOf(2, { outcome: null }) },
    });
    expect(await ledger.write(older)).toEqual({ applied: false });
    expect(await ledger.find(record.id)).toEqual({ ...ended, trail: { 1: first, 2: second } });
  });

  it('keeps all attempts of records that are written at once, whatever their order', async () => {
    const { ledger } = await freshLedger();
    const records = Array.from({ length: 20 }, () => newRecord());
    await Promise.all(
      records.flatMap((record) => [
        ledger.write(later(record, 9, { status: 'succeeded', trail: { 2: attemptOf(2) } })),
        ledger.write(later(record, 4, { status: 'queued', trail: { 1: attemptOf(1) } })),
        ledger.write(record),
      ]),
    );
    for (const { id } of records) {
      expect(await ledger.find(id)).toMatchObject({
        status: 'succeeded',
        version: 9,
        trail: { 1: attemptOf(1), 2: attemptOf(2) },
      });
    }
  });

  it('never changes what was asked', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord();
    await ledger.write(record);
    await ledger.write(later(record, 2, { status: 'sent', params: { port: 9 }, priority: 0 }));
    expect(await ledger.find(record.id)).toMatchObject({
      status: 'sent',
      params: record.params,
      priority: record.priority,
    });
  });

  it('folds what is written of one command in one moment and answers every caller', async () => {
    const { ledger, pool } = await freshLedger();
    const record = newRecord();
    const answers = await Promise.all([
      ledger.write(record),
      ledger.write(later(record, 2, { status: 'sent', trail: { 1: attemptOf(1) } })),
      ledger.write(later(record, 4, { status: 'succeeded', trail: { 2: attemptOf(2) } })),
      ledger.write(later(record, 3, { status: 'queued' })),
      ledger.write(later(record, 5, { status: 'queued' })),
    ]);
    expect(answers.map(({ applied }) => applied)).toEqual([true, true, true, false, false]);
    expect(await ledger.find(record.id)).toMatchObject({
      status: 'succeeded',
      version: 4,
      trail: { 1: attemptOf(1), 2: attemptOf(2) },
    });
    const { rows } = await pool.query('SELECT count(*)::int AS n FROM commands');
    expect(rows).toEqual([{ n: 1 }]);
  });

  it('lets a late answer win over an illegal move that was written in the same moment', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord({ status: 'unknown' });
    await ledger.write(record);
    const [, late] = await Promise.all([
      ledger.write(later(record, 3, { status: 'queued' })),
      ledger.write(later(record, 2, { status: 'succeeded', late: true })),
    ]);
    expect(late.applied).toBe(true);
    expect(await ledger.find(record.id)).toMatchObject({ status: 'succeeded', late: true });
  });

  it.each(['succeeded', 'rejected', 'unacknowledged'] as const)(
    'takes %s of an older version over an unfinished row, and never counts back',
    async (status) => {
      const { ledger } = await freshLedger();
      const record = newRecord({ status: 'parked', version: 18 });
      await ledger.write(record);
      expect(await ledger.write({ ...record, version: 10, status })).toEqual({ applied: true });
      expect(await ledger.find(record.id)).toMatchObject({ status, version: 18 });
    },
  );

  it('takes no other end of an older version', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord({ status: 'parked', version: 18 });
    await ledger.write(record);
    const stale = { ...record, version: 10, status: 'unknown' as const };
    expect(await ledger.write(stale)).toEqual({ applied: false });
  });

  it('writes many rows with few statements', async () => {
    const metrics = createMetrics('worker');
    const { ledger } = await freshLedger({ metrics });
    const records = Array.from({ length: 2_000 }, () => newRecord());
    await Promise.all(records.map((record) => ledger.write(record)));
    const { values } = await metrics.dbQueryLatency.get();
    const statements = values.find(
      ({ metricName, labels }) =>
        metricName === 'db_query_latency_seconds_count' && labels.query === 'ledger.write',
    );
    expect(statements?.value).toBeLessThanOrEqual(8);
    expect((await ledger.findMany(records.map(({ id }) => id))).size).toBe(2_000);
  });
});

describe('a row that can never be stored', () => {
  it('fails alone, whatever its batch', async () => {
    const { ledger } = await freshLedger();
    const sound = Array.from({ length: 300 }, () => newRecord());
    const poison = newRecord({ priority: 1e9 });
    const writes = [...sound.slice(0, 150), poison, ...sound.slice(150)].map((record) =>
      ledger.write(record),
    );
    const ends = await Promise.allSettled(writes);
    expect(ends.filter(({ status }) => status === 'rejected')).toHaveLength(1);
    await expect(writes[150]).rejects.toMatchObject({ code: 'INTERNAL' });
    expect((await ledger.findMany(sound.map(({ id }) => id))).size).toBe(300);
  });

  it('does not take along the sound version of the same command', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord();
    const circular: Record<string, unknown> = {};
    circular['self'] = circular;
    const [sound, poison] = await Promise.allSettled([
      ledger.write(record),
      ledger.write(later(record, 2, { status: 'succeeded', result: circular })),
    ]);
    expect(sound).toEqual({ status: 'fulfilled', value: { applied: true } });
    expect(poison).toMatchObject({ status: 'rejected', reason: { code: 'INTERNAL' } });
    expect(await ledger.find(record.id)).toEqual(record);
  });

  it('is not what text with NUL or half a surrogate pair becomes', async () => {
    const { ledger } = await freshLedger();
    const record: CommandRecord = newRecord({
      reason: 'bad\0text',
      result: { 'k\0ey': 'a\0b', half: '\ud800', escaped: '\\u0000', emoji: '🔌' },
    });
    await ledger.write(record);
    expect(await ledger.find(record.id)).toMatchObject({
      reason: 'badtext',
      result: { key: 'ab', half: '\ufffd', escaped: '\\u0000', emoji: '🔌' },
    });
  });
});

describe('the ledger-only mark', () => {
  const waiting = { afterId: null, acceptedBefore: Number.MAX_SAFE_INTEGER, limit: 100 };

  it('holds when it is set in the same moment as the row is written', async () => {
    const { ledger } = await freshLedger({ maxBatchRows: 10 });
    const records = Array.from({ length: 60 }, () => newRecord());
    const writes = records.map((record) => ledger.write(record));
    const marks = records.map(({ id }) => ledger.markLedgerOnly(id));
    await Promise.all([...writes, ...marks]);
    const marked = await ledger.unfinished({ ...waiting, ledgerOnly: true });
    expect(marked.map(({ id }) => id)).toEqual(records.map(({ id }) => id).sort());
  });

  it('outlives the moves of its command until it is cleared', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord();
    await ledger.write(record);
    await ledger.markLedgerOnly(record.id);
    await ledger.write(later(record, 2, { status: 'parked' }));
    expect(await ledger.unfinished({ ...waiting, ledgerOnly: true })).toHaveLength(1);
    await ledger.clearLedgerOnly([record.id]);
    expect(await ledger.unfinished({ ...waiting, ledgerOnly: true })).toEqual([]);
    expect(await ledger.unfinished({ ...waiting, ledgerOnly: false })).toHaveLength(1);
  });

  it('does nothing for a command that has no row', async () => {
    const { ledger } = await freshLedger();
    await ledger.markLedgerOnly(newRecord().id);
    await ledger.clearLedgerOnly([newRecord().id]);
    expect(await ledger.unfinished({ ...waiting, ledgerOnly: true })).toEqual([]);
  });
});

describe('handing over', () => {
  it('flushes what was written so far', async () => {
    const { ledger, pool } = await freshLedger();
    for (let index = 0; index < 20; index += 1) void ledger.write(newRecord());
    await ledger.flush();
    const { rows } = await pool.query('SELECT count(*)::int AS n FROM commands');
    expect(rows).toEqual([{ n: 20 }]);
  });

  it('refuses more callers than may wait', async () => {
    const { ledger } = await freshLedger({ maxPending: 10 });
    const ends = await Promise.allSettled(
      Array.from({ length: 12 }, () => ledger.write(newRecord())),
    );
    expect(ends.slice(0, 10).every(({ status }) => status === 'fulfilled')).toBe(true);
    expect(ends.slice(10)).toMatchObject([
      { status: 'rejected', reason: { code: 'LEDGER_UNAVAILABLE' } },
      { status: 'rejected', reason: { code: 'LEDGER_UNAVAILABLE' } },
    ]);
    expect(await ledger.write(newRecord())).toEqual({ applied: true });
  });

  it('refuses writes once it is closed, after storing what it had', async () => {
    const { ledger, pool } = await freshLedger();
    const record = newRecord();
    const written = ledger.write(record);
    await ledger.close();
    expect(await written).toEqual({ applied: true });
    await expect(ledger.write(newRecord())).rejects.toMatchObject({ code: 'LEDGER_UNAVAILABLE' });
    const { rows } = await pool.query('SELECT id FROM commands');
    expect(rows).toEqual([{ id: record.id }]);
  });
});
