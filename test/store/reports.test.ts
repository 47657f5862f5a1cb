import { describe, expect, it } from 'vitest';
import type { StoredReport } from '../../src/store/contract.ts';
import { createReports } from '../../src/store/reports.ts';
import { createRetention } from '../../src/store/retention.ts';
import { freshLedger } from './fixture.ts';
import { newRecord } from './records.ts';

function report(n: number, wanted: Partial<StoredReport> = {}): StoredReport {
  return {
    entryId: `1700000000000-${n}`,
    deviceId: '82200520004869',
    protocol: 'bkv',
    name: 'charge.end',
    weight: 'money',
    at: 1_700_000_000_000 + n,
    msgId: n,
    fields: { energyWh: 120, orderNo: n },
    frame: 'fcff0011',
    ...wanted,
  };
}

describe('reports of devices', () => {
  it('are stored once, however often their stream entry is read', async () => {
    const { database, pool } = await freshLedger();
    const reports = createReports({ database });
    const many = Array.from({ length: 1_200 }, (_, index) => report(index));
    await Promise.all([reports.add(many), reports.add(many.toReversed()), reports.add([])]);
    await reports.add([...many.slice(0, 3), ...many.slice(0, 3)]);
    const { rows } = await pool.query(
      'SELECT count(*)::int AS n, count(DISTINCT entry_id)::int AS entries FROM command_log',
    );
    expect(rows).toEqual([{ n: 1_200, entries: 1_200 }]);
    const { rows: last } = await pool.query(
      "SELECT fields, at, frame FROM command_log WHERE entry_id = '1700000000000-7'",
    );
    expect(last).toEqual([
      { fields: { energyWh: 120, orderNo: 7 }, at: '1700000000007', frame: 'fcff0011' },
    ]);
  });

  it('are stored also when one among them can never be', async () => {
    const { database, pool } = await freshLedger();
    const reports = createReports({ database });
    const poison = report(5, { at: 0.5 });
    await expect(
      reports.add([report(1), report(2, { fields: { text: 'a\0b' } }), poison, report(9)]),
    ).rejects.toMatchObject({ code: 'INTERNAL', message: expect.stringContaining(poison.entryId) });
    const { rows } = await pool.query('SELECT msg_id FROM command_log ORDER BY msg_id');
    expect(rows.map(({ msg_id }) => msg_id)).toEqual(['1', '2', '9']);
  });
});

describe('the recent reports of a device', () => {
  it('are those of the names asked for, newest first, before a moment or since it', async () => {
    const { database } = await freshLedger();
    const reports = createReports({ database });
    const all = [
      report(1, { at: 1_000, name: 'port.status' }),
      report(2, { at: 2_000, name: 'charge.end' }),
      report(3, { at: 2_000, name: 'heartbeat' }),
      report(4, { at: 3_000, name: 'port.status' }),
      report(5, { at: 3_000, name: 'port.status', deviceId: 'another' }),
    ];
    await reports.add(all);
    const [first, second, , fourth] = all;
    const query = {
      deviceId: '82200520004869',
      names: ['port.status', 'charge.end'],
      limit: 10,
    };
    expect(await reports.recent(query)).toEqual([fourth, second, first]);
    expect(await reports.recent({ ...query, limit: 1 })).toEqual([fourth]);
    expect(await reports.recent({ ...query, before: 3_000 })).toEqual([second, first]);
    expect(await reports.recent({ ...query, since: 2_000 })).toEqual([fourth, second]);
    expect(await reports.recent({ ...query, names: [] })).toEqual([]);
  });
});

describe('retention', () => {
  it('removes what is past its time, never an unfinished command, at most so many at once', async () => {
    const { database, ledger } = await freshLedger();
    const retention = createRetention({ database });
    const old = Array.from({ length: 5 }, () =>
      newRecord({ acceptedAt: 1_000, status: 'expired' }),
    );
    const open = newRecord({ acceptedAt: 1_000 });
    const endedLately = newRecord({ acceptedAt: 1_100, status: 'succeeded', settledAt: 2_500 });
    const young = newRecord({ status: 'succeeded' });
    await Promise.all([...old, open, endedLately, young].map((record) => ledger.write(record)));
    const claimer = newRecord({ acceptedAt: 1_500 });
    const idempotency = { apiKey: 'a', key: 'k', bodyHash: 'h', expiresAt: 1_600 };
    await ledger.claim(claimer, idempotency);
    await createReports({ database }).add([report(1, { at: 1_000 }), report(2)]);

    const query = { before: 2_000, now: 1_600, limit: 3 };
    expect(await retention.removeOld(query)).toEqual({ commands: 3, claims: 1, reports: 1 });
    expect(await retention.removeOld(query)).toEqual({ commands: 2, claims: 0, reports: 0 });
    expect(await retention.removeOld(query)).toEqual({ commands: 0, claims: 0, reports: 0 });
    const { items } = await ledger.list({ limit: 10 });
    expect(items.map(({ id }) => id)).toEqual([young.id, claimer.id, endedLately.id, open.id]);
  });
});
