import { describe, expect, it } from 'vitest';
import type { TakeBackVerdict } from '../../queues/take-back.ts';
import type { Attempt } from '../../src/command.ts';
import { DownlinkError } from '../../src/errors.ts';
import { eventually } from '../support/eventually.ts';
import { bkvId, freshWorld, queryBody, startBody, type World } from './accept-fixture.ts';

const own = () => queryBody({ orderKey: 'mine' });
const accepted = async (world: World, body: unknown) =>
  (await world.accept({ body, apiKey: 'app' })).record;

const expired: TakeBackVerdict = (written) => ({
  status: written ? 'unknown' : 'expired',
  reason: 'too late',
  code: 'EXPIRED',
});

const attempt = (more: Partial<Attempt>): Record<string, Attempt> => ({
  1: {
    attempt: 1,
    at: 1_000,
    gatewayId: 'gw-1',
    epoch: 1,
    wireId: 7,
    frameOut: 'fc',
    writtenAt: null,
    frameIn: null,
    ms: null,
    outcome: null,
    ...more,
  },
});

describe('taking a command back', () => {
  it('takes it out of the queue, ends it in the ledger and tells who waits', async () => {
    const world = await freshWorld();
    const row = await accepted(world, queryBody());
    const taken = await world.takeBack(row, expired);
    expect(taken).toMatchObject({ kind: 'ended', record: { status: 'expired', code: 'EXPIRED' } });
    expect(await world.ledger.find(row.id)).toMatchObject({
      status: 'expired',
      reason: 'too late',
      settledAt: expect.any(Number),
    });
    expect(await world.jobOf(bkvId, row.id)).toBeUndefined();
    expect(world.told).toEqual([row.id]);
  });

  it('lets the next one of its line go', async () => {
    const world = await freshWorld();
    await world.connectDevice('gw-1');
    const first = await accepted(world, own());
    const second = await accepted(world, own());
    expect(second.status).toBe('parked');
    await world.takeBack(first, expired);
    await eventually(async () => {
      const job = await world.jobOf(bkvId, second.id);
      expect(await job?.getState()).toBe('prioritized');
    });
    expect(await world.redis.zrange(world.keys.line(bkvId, 'o:mine'), '0', '-1')).toEqual([
      second.id,
    ]);
  });

  it.each([
    ['its trail has an attempt of which nobody knows', { outcome: null }, true],
    ['its trail has a write', { writtenAt: 1_500, outcome: 'no-ack' }, true],
    ['its trail has attempts that stayed here alone', { outcome: 'offline' }, false],
  ])('%s: written is judged from it', async (_name, more, written) => {
    const world = await freshWorld();
    const row = await accepted(world, queryBody());
    await world.ledger.write({ ...row, version: 2, trail: attempt(more) });
    const taken = await world.takeBack(row, expired);
    expect(taken).toMatchObject({ record: { status: written ? 'unknown' : 'expired' } });
  });

  it('judges from the mark what the ledger does not know yet', async () => {
    const world = await freshWorld();
    await world.connectDevice('gw-1');
    const row = await accepted(world, startBody());
    expect((await world.route(row)).kind).toBe('go');
    expect(await world.takeBack(row, expired)).toMatchObject({ record: { status: 'unknown' } });
    expect(await world.routes.mark(bkvId, row.id)).toBeNull();
  });

  it('leaves what a worker holds alone', async () => {
    const world = await freshWorld();
    const row = await accepted(world, queryBody());
    world.outbound.take = async () => 'active';
    expect(await world.takeBack(row, expired)).toEqual({ kind: 'active' });
    expect((await world.ledger.find(row.id))?.status).toBe('queued');
  });

  it('says what the queue does not hold, and ends it when asked to', async () => {
    const world = await freshWorld();
    const row = await accepted(world, queryBody());
    await (await world.jobOf(bkvId, row.id))?.remove();
    expect(await world.takeBack(row, expired)).toEqual({ kind: 'missing' });
    expect((await world.ledger.find(row.id))?.status).toBe('queued');
    const taken = await world.takeBack(row, expired, { missingToo: true });
    expect(taken).toMatchObject({ kind: 'ended', record: { status: 'expired' } });
  });

  it('changes nothing that has ended, and removes its shadow from the queue', async () => {
    const world = await freshWorld();
    const row = await accepted(world, queryBody());
    await world.ledger.write({ ...row, version: 9, status: 'succeeded', settledAt: 5 });
    const taken = await world.takeBack(row, expired);
    expect(taken).toMatchObject({ kind: 'over', record: { status: 'succeeded' } });
    expect(await world.jobOf(bkvId, row.id)).toBeUndefined();
    expect(world.told).toEqual([]);
  });

  it('is above every version that the job could have written', async () => {
    const world = await freshWorld();
    const row = await accepted(world, queryBody());
    const held = await world.outbound.find(bkvId, row.id);
    const taken = await world.takeBack(row, expired);
    expect(taken).toMatchObject({ record: { version: held?.nextVersion } });
  });

  it('puts the command back when its end cannot be stored', async () => {
    const world = await freshWorld();
    const row = await accepted(world, queryBody());
    const { write } = world.ledger;
    world.ledger.write = async () => {
      throw new DownlinkError('LEDGER_UNAVAILABLE', 'the ledger is away');
    };
    await expect(world.takeBack(row, expired)).rejects.toMatchObject({
      code: 'LEDGER_UNAVAILABLE',
    });
    expect(await (await world.jobOf(bkvId, row.id))?.getState()).toBe('prioritized');
    world.ledger.write = write;
    expect(await world.takeBack(row, expired)).toMatchObject({ kind: 'ended' });
  });

  it('leaves a command to the reaper that can neither be ended nor put back', async () => {
    const world = await freshWorld();
    const row = await accepted(world, queryBody());
    world.ledger.write = async () => {
      throw new DownlinkError('LEDGER_UNAVAILABLE', 'the ledger is away');
    };
    world.outbound.enqueue = async () => {
      throw new DownlinkError('QUEUE_UNAVAILABLE', 'the queue store is away');
    };
    await expect(world.takeBack(row, expired)).rejects.toThrow();
    await eventually(async () => {
      const rows = await world.ledger.unfinished({
        afterId: null,
        acceptedBefore: Date.now() + 1_000,
        limit: 10,
        ledgerOnly: true,
      });
      expect(rows.map(({ id }) => id)).toEqual([row.id]);
    });
  });

  it('takes a command back once when two try', async () => {
    const world = await freshWorld();
    const row = await accepted(world, queryBody());
    const kinds = (
      await Promise.all([world.takeBack(row, expired), world.takeBack(row, expired)])
    ).map(({ kind }) => kind);
    expect(kinds.filter((kind) => kind === 'ended')).toHaveLength(1);
    expect(world.told).toEqual([row.id]);
  });
});
