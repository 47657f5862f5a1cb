import { describe, expect, it } from 'vitest';
import type { CommandRecord } from '../../src/command.ts';
import type { Idempotency } from '../../src/store/contract.ts';
import { freshLedger } from './fixture.ts';
import { attemptOf, later, newRecord } from './records.ts';

const dayMs = 24 * 3_600_000;

function idempotencyOf(record: CommandRecord, wanted: Partial<Idempotency> = {}): Idempotency {
  const expiresAt = record.acceptedAt + dayMs;
  return { apiKey: 'operator', key: 'order-17', bodyHash: 'one', expiresAt, ...wanted };
}

describe('a claim by Idempotency-Key', () => {
  it('stores the command that made it', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord();
    expect(await ledger.claim(record, idempotencyOf(record))).toEqual({ claimed: true });
    expect(await ledger.find(record.id)).toEqual(record);
  });

  it('has one winner among 50 callers at once, whom the others are told of', async () => {
    const { ledger, pool } = await freshLedger();
    const records = Array.from({ length: 50 }, () => newRecord());
    const claims = await Promise.all(
      records.map((record) => ledger.claim(record, idempotencyOf(record))),
    );
    const winner = records[claims.findIndex(({ claimed }) => claimed)];
    expect(claims.filter(({ claimed }) => claimed)).toHaveLength(1);
    for (const claim of claims) {
      if (!claim.claimed) expect(claim).toEqual({ claimed: false, same: true, record: winner });
    }
    const { rows } = await pool.query('SELECT id FROM commands');
    expect(rows).toEqual([{ id: winner?.id }]);
  });

  it('shows the same body the command as it stands now', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord();
    await ledger.claim(record, idempotencyOf(record));
    const settled = later(record, 3, { status: 'succeeded', settledAt: Date.now() });
    await ledger.write(settled);
    const again = newRecord();
    expect(await ledger.claim(again, idempotencyOf(again))).toEqual({
      claimed: false,
      same: true,
      record: settled,
    });
  });

  it('tells another body whose the key is, and stores nothing', async () => {
    const { ledger } = await freshLedger();
    const [first, second] = [newRecord(), newRecord()];
    await ledger.claim(first, idempotencyOf(first));
    expect(await ledger.claim(second, idempotencyOf(second, { bodyHash: 'two' }))).toEqual({
      claimed: false,
      same: false,
      id: first.id,
    });
    expect(await ledger.find(second.id)).toBeNull();
  });

  it('is separate for every API key', async () => {
    const { ledger } = await freshLedger();
    const [first, second] = [newRecord(), newRecord()];
    await ledger.claim(first, idempotencyOf(first));
    const other = idempotencyOf(second, { apiKey: 'another' });
    expect(await ledger.claim(second, other)).toEqual({ claimed: true });
  });

  it('is granted again to the very command that holds it', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord();
    await ledger.claim(record, idempotencyOf(record));
    expect(await ledger.claim(record, idempotencyOf(record))).toEqual({ claimed: true });
  });

  it('is free again when its time is over, and not a moment before', async () => {
    const { ledger } = await freshLedger();
    const first = newRecord();
    await ledger.claim(first, idempotencyOf(first));
    const early = newRecord({ acceptedAt: first.acceptedAt + dayMs - 1 });
    expect(await ledger.claim(early, idempotencyOf(early))).toMatchObject({ same: true });
    const due = Array.from({ length: 20 }, () =>
      newRecord({ acceptedAt: first.acceptedAt + dayMs }),
    );
    const claims = await Promise.all(
      due.map((record) => ledger.claim(record, idempotencyOf(record))),
    );
    expect(claims.filter(({ claimed }) => claimed)).toHaveLength(1);
    expect(claims.filter((claim) => !claim.claimed && claim.same)).toHaveLength(19);
  });

  it('of a command that can never be stored leaves the key free', async () => {
    const { ledger } = await freshLedger();
    const poison = newRecord({ priority: 1e9 });
    const claim = ledger.claim(poison, idempotencyOf(poison));
    await expect(claim).rejects.toMatchObject({ code: 'INTERNAL' });
    const sound = newRecord();
    expect(await ledger.claim(sound, idempotencyOf(sound))).toEqual({ claimed: true });
  });
});

describe('many claims at once', () => {
  const keyed = (key: string, wanted: Partial<Idempotency> = {}, record = newRecord()) => ({
    record,
    idempotency: idempotencyOf(record, { key, ...wanted }),
  });

  it('get one verdict each, in order', async () => {
    const { ledger } = await freshLedger();
    const held = keyed('held');
    await ledger.claim(held.record, held.idempotency);
    const items = [
      keyed('new'),
      keyed('held'),
      keyed('held', { bodyHash: 'two' }),
      keyed('held', { apiKey: 'another' }),
      held,
    ];
    expect(await ledger.claimMany(items)).toEqual([
      { claimed: true },
      { claimed: false, same: true, record: held.record },
      { claimed: false, same: false, id: held.record.id },
      { claimed: true },
      { claimed: true },
    ]);
    const stored = await ledger.findMany(items.map(({ record }) => record.id));
    expect([...stored.keys()].sort()).toEqual(
      [items[0]!, items[3]!, held].map(({ record }) => record.id).sort(),
    );
  });

  it('give a key that is named twice to the first who names it', async () => {
    const { ledger } = await freshLedger();
    const items = [keyed('k'), keyed('k'), keyed('k', { bodyHash: 'two' })];
    expect(await ledger.claimMany(items)).toEqual([
      { claimed: true },
      { claimed: false, same: true, record: items[0]?.record },
      { claimed: false, same: false, id: items[0]?.record.id },
    ]);
    expect((await ledger.list({ limit: 9 })).items).toEqual([items[0]?.record]);
  });

  it('of crossing calls have one winner for every key, whatever their order', async () => {
    const { ledger } = await freshLedger();
    const keys = Array.from({ length: 200 }, (_, index) => `order-${index}`);
    const calls = Array.from({ length: 6 }, (_, call) =>
      (call % 2 ? keys : keys.toReversed()).map((key) => keyed(key)),
    );
    const answers = await Promise.all(calls.map((call) => ledger.claimMany(call)));
    const winners = new Map<string, string[]>();
    for (const [call, claims] of answers.entries()) {
      for (const [index, claim] of claims.entries()) {
        const { record, idempotency } = calls[call]![index]!;
        const id = claim.claimed ? record.id : claim.same ? claim.record.id : claim.id;
        winners.set(idempotency.key, [...(winners.get(idempotency.key) ?? []), id]);
      }
    }
    expect(winners.size).toBe(200);
    for (const ids of winners.values()) expect(new Set(ids).size).toBe(1);
    const stored = await ledger.findMany([...winners.values()].map(([id]) => id!));
    expect(stored.size).toBe(200);
  });

  it('take over keys whose time is over', async () => {
    const { ledger } = await freshLedger();
    const first = keyed('k');
    await ledger.claim(first.record, first.idempotency);
    const due = { acceptedAt: first.record.acceptedAt + dayMs };
    const items = [keyed('k', {}, newRecord(due)), keyed('k', {}, newRecord(due))];
    expect(await ledger.claimMany(items)).toEqual([
      { claimed: true },
      { claimed: false, same: true, record: items[0]?.record },
    ]);
  });

  it('store nothing when one of them can never be stored', async () => {
    const { ledger } = await freshLedger();
    const items = [keyed('a'), keyed('b', {}, newRecord({ priority: 1e9 }))];
    await expect(ledger.claimMany(items)).rejects.toMatchObject({ code: 'INTERNAL' });
    expect((await ledger.list({ limit: 9 })).items).toEqual([]);
    expect(await ledger.claimMany([items[0]!])).toEqual([{ claimed: true }]);
    expect(await ledger.claimMany([])).toEqual([]);
  });

  it('are one statement for 1,000', async () => {
    const names: string[] = [];
    const dbQueryLatency = { observe: ({ query }: { query: string }) => names.push(query) };
    const { ledger } = await freshLedger({ metrics: { dbQueryLatency } as never });
    const items = Array.from({ length: 1_000 }, (_, index) => keyed(`k${index}`));
    const claims = await ledger.claimMany(items);
    expect(claims.filter(({ claimed }) => claimed)).toHaveLength(1_000);
    expect(names).toEqual(['ledger.claim']);
  });
});

describe('a claim that is taken back', () => {
  it('leaves neither command nor key behind', async () => {
    const { ledger, pool } = await freshLedger();
    const record = newRecord({ status: 'parked' });
    await ledger.claim(record, idempotencyOf(record));
    expect(await ledger.unclaim(record.id)).toBe(true);
    expect(await ledger.find(record.id)).toBeNull();
    expect((await pool.query('SELECT * FROM idempotency')).rows).toEqual([]);
    const next = newRecord();
    expect(await ledger.claim(next, idempotencyOf(next))).toEqual({ claimed: true });
  });

  it('takes back a command without a key as well, and an unknown one not', async () => {
    const { ledger } = await freshLedger();
    const record = newRecord();
    await ledger.write(record);
    expect(await ledger.unclaim(record.id)).toBe(true);
    expect(await ledger.unclaim(record.id)).toBe(false);
  });

  it('stays when its command has moved since', async () => {
    const { ledger } = await freshLedger();
    const moves: Partial<CommandRecord>[] = [
      { version: 2, status: 'sent' },
      { version: 3, status: 'cancelled', settledAt: 1 },
      { version: 1, trail: { 1: attemptOf(1) } },
    ];
    for (const [index, move] of moves.entries()) {
      const record = newRecord({ ...move });
      await ledger.claim(record, idempotencyOf(record, { key: `k${index}` }));
      expect(await ledger.unclaim(record.id)).toBe(false);
      expect(await ledger.find(record.id)).toEqual(record);
      const again = newRecord();
      expect(await ledger.claim(again, idempotencyOf(again, { key: `k${index}` }))).toMatchObject({
        claimed: false,
        same: true,
      });
    }
  });
});
