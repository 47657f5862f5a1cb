import { describe, expect, it } from 'vitest';
import type { BatchVerdict } from '../../queues/accept-contract.ts';
import { DownlinkError } from '../../src/errors.ts';
import { eventually } from '../support/eventually.ts';
import { bkvId, freshWorld, queryBody, startBody, stopBody, type World } from './accept-fixture.ts';

type Item = { body: unknown; idempotencyKey?: string };

const askMany = (world: World, items: Item[]) =>
  world.accept.many(items.map((item) => ({ ...item, apiKey: 'app' })));

const codeOf = (verdict: BatchVerdict | undefined) =>
  verdict && 'error' in verdict ? verdict.error.code : 'accepted';

function acceptedOf(verdict: BatchVerdict | undefined) {
  if (!verdict || 'error' in verdict) throw new Error(`refused: ${codeOf(verdict)}`);
  return verdict.accepted;
}

/** Counts the statements that the ledger sends. */
function countingWrites(world: World) {
  const calls = { enqueueMany: 0, enqueue: 0, claimMany: 0, claim: 0 };
  const { outbound, ledger } = world;
  const { enqueueMany, enqueue } = outbound;
  const { claimMany, claim } = ledger;
  outbound.enqueueMany = (entries) => {
    calls.enqueueMany += 1;
    return enqueueMany(entries);
  };
  outbound.enqueue = (entry) => {
    calls.enqueue += 1;
    return enqueue(entry);
  };
  ledger.claimMany = (claims) => {
    calls.claimMany += 1;
    return claimMany(claims);
  };
  ledger.claim = (record, idempotency) => {
    calls.claim += 1;
    return claim(record, idempotency);
  };
  return calls;
}

describe('many commands at once', () => {
  it('have one verdict each, in order, and one that is refused concerns no other', async () => {
    const world = await freshWorld();
    const verdicts = await askMany(world, [
      { body: queryBody() },
      { body: null },
      { body: startBody() },
      { body: startBody() },
      { body: { deviceId: bkvId, command: 'no.such' } },
      { body: queryBody(), idempotencyKey: 'tab\t' },
      { body: queryBody({ priority: 1 }) },
    ]);
    expect(verdicts.map(codeOf)).toEqual([
      'accepted',
      'BAD_REQUEST',
      'accepted',
      'CONFLICT',
      'COMMAND_UNKNOWN',
      'BAD_REQUEST',
      'accepted',
    ]);
    const [first, , , fourth] = verdicts;
    expect(acceptedOf(first).durability).toBe('both');
    const start = acceptedOf(verdicts[2]).record;
    expect(fourth).toMatchObject({ error: { details: { id: start.id } } });
    expect((await world.ledger.list({ limit: 10 })).items).toHaveLength(3);
    expect(await world.outbound.counts()).toMatchObject({ waiting: 3 });
  });

  it('a thousand of them cost one add and one statement for the keys', async () => {
    const world = await freshWorld();
    const calls = countingWrites(world);
    const items = Array.from({ length: 1_000 }, (_, i) => ({
      body: queryBody({ deviceId: (0x82200520000000 + i).toString(16) }),
      ...(i % 2 === 0 && { idempotencyKey: `k${i}` }),
    }));
    const verdicts = await askMany(world, items);
    expect(new Set(verdicts.map(codeOf))).toEqual(new Set(['accepted']));
    expect(new Set(verdicts.map((verdict) => acceptedOf(verdict).durability))).toEqual(
      new Set(['both']),
    );
    const ids = verdicts.map((verdict) => acceptedOf(verdict).record.id);
    expect(ids).toEqual([...ids].sort());
    expect(calls).toEqual({ enqueueMany: 1, enqueue: 0, claimMany: 1, claim: 0 });
    expect(await world.outbound.counts()).toMatchObject({ waiting: 1_000 });
  });

  it('of one order key stand in the order of the items', async () => {
    const world = await freshWorld();
    const items = Array.from({ length: 20 }, () => ({ body: queryBody({ orderKey: 'mine' }) }));
    const ids = (await askMany(world, items)).map((verdict) => acceptedOf(verdict).record.id);
    const line = await world.redis.zrange(world.keys.line(bkvId, 'o:mine'), '0', '-1');
    expect(line).toEqual(ids);
  });

  it('may replace one another, and the replaced one is hastened to its end', async () => {
    const world = await freshWorld();
    const [start, stop] = (
      await askMany(world, [{ body: startBody({ priority: 0 }) }, { body: stopBody }])
    ).map(acceptedOf);
    expect(await world.routes.revocation(bkvId, start!.record.id)).toMatchObject({
      by: stop!.record.id,
    });
    await eventually(async () => {
      expect((await world.jobOf(bkvId, start!.record.id))?.priority).toBe(1);
    });
  });

  it('count against the caps together', async () => {
    const world = await freshWorld({ accept: { caps: { maxPerKey: 2, maxPerDevice: 500 } } });
    const items = Array.from({ length: 4 }, (_, i) => ({
      body: queryBody({ orderKey: 'mine' }),
      idempotencyKey: `k${i}`,
    }));
    const codes = (await askMany(world, items)).map(codeOf);
    expect(codes).toEqual(['accepted', 'accepted', 'TOO_MANY_WAITING', 'TOO_MANY_WAITING']);
    // The keys of the refused are free again.
    expect((await world.ledger.list({ limit: 10 })).items).toHaveLength(2);
  });
});

describe('keys of many', () => {
  it('are honoured one by one', async () => {
    const world = await freshWorld();
    const [first] = await askMany(world, [{ body: queryBody(), idempotencyKey: 'a' }]);
    const again = await askMany(world, [
      { body: queryBody(), idempotencyKey: 'a' },
      { body: queryBody({ priority: 1 }), idempotencyKey: 'a' },
      { body: queryBody(), idempotencyKey: 'b' },
    ]);
    expect(again.map(codeOf)).toEqual(['accepted', 'IDEMPOTENCY_CONFLICT', 'accepted']);
    expect(acceptedOf(again[0])).toMatchObject({
      replayed: true,
      record: { id: acceptedOf(first).record.id },
    });
    expect(acceptedOf(again[2]).replayed).toBe(false);
  });

  it('given twice in one call have one fate', async () => {
    const world = await freshWorld();
    await askMany(world, [{ body: startBody() }]);
    const verdicts = await askMany(world, [
      { body: queryBody(), idempotencyKey: 'a' },
      { body: queryBody(), idempotencyKey: 'a' },
      { body: startBody(), idempotencyKey: 'b' },
      { body: startBody(), idempotencyKey: 'b' },
    ]);
    expect(verdicts.map(codeOf)).toEqual(['accepted', 'accepted', 'CONFLICT', 'CONFLICT']);
    const [first, second] = verdicts.slice(0, 2).map(acceptedOf);
    expect(second).toMatchObject({ replayed: true, record: { id: first!.record.id } });
    expect(await world.outbound.counts()).toMatchObject({ waiting: 2 });
  });

  it('cannot be honoured while the ledger is away, which the others survive', async () => {
    const world = await freshWorld({ postgres: 'away' });
    const verdicts = await askMany(world, [
      { body: queryBody(), idempotencyKey: 'a' },
      { body: queryBody() },
    ]);
    expect(verdicts.map(codeOf)).toEqual(['LEDGER_UNAVAILABLE', 'accepted']);
    expect(acceptedOf(verdicts[1]).durability).toBe('queue');
  });

  it('of a command that cannot be stored concern no other', async () => {
    const world = await freshWorld();
    world.ledger.claimMany = async () => {
      throw new DownlinkError('INTERNAL', 'one of them cannot be stored');
    };
    const { claim } = world.ledger;
    world.ledger.claim = async (record, idempotency) => {
      if (idempotency.key === 'bad') throw new DownlinkError('INTERNAL', 'it cannot be stored');
      return claim(record, idempotency);
    };
    const verdicts = await askMany(world, [
      { body: queryBody(), idempotencyKey: 'bad' },
      { body: queryBody(), idempotencyKey: 'good' },
    ]);
    expect(verdicts.map(codeOf)).toEqual(['INTERNAL', 'accepted']);
  });
});

describe('stores away', () => {
  it('the queue: all are left to the reaper', async () => {
    const world = await freshWorld({ redis: 'away' });
    const verdicts = await askMany(world, [{ body: queryBody() }, { body: startBody() }]);
    expect(verdicts.map((verdict) => acceptedOf(verdict).durability)).toEqual(['ledger', 'ledger']);
  });

  it('both: each is refused with its id, and its line is left', async () => {
    const world = await freshWorld({ postgres: 'away' });
    world.outbound.enqueueMany = async () => {
      throw new DownlinkError('QUEUE_UNAVAILABLE', 'the queue store is away');
    };
    const [verdict] = await askMany(world, [{ body: startBody() }]);
    expect(codeOf(verdict)).toBe('STORE_UNAVAILABLE');
    expect(await world.redis.exists(world.keys.line(bkvId, 't:port:1:0'))).toBe(0);
  });
});
