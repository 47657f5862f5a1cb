import { describe, expect, it } from 'vitest';
import type { CommandRecord } from '../../src/command.ts';
import type { Idempotency } from '../../src/store/contract.ts';
import { freshLedger } from './fixture.ts';
import { later, newRecord } from './records.ts';

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
