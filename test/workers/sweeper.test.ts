import { describe, expect, it } from 'vitest';
import type { TakeBack } from '../../queues/take-back.ts';
import { DownlinkError } from '../../src/errors.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import { createSweeper, type SweeperDeps } from '../../workers/sweeper.ts';
import { attemptOf } from '../store/records.ts';
import { dutyStores, query } from './duty-stores.ts';

async function sweeperAt(at: number, wanted: Partial<SweeperDeps> = {}) {
  const stores = await dutyStores();
  const metrics = createMetrics('worker');
  const clock = { now: at };
  const sweep = createSweeper({ ...stores, metrics, now: () => clock.now, ...wanted });
  return { ...stores, metrics, clock, sweep };
}

const deadline = Date.now() + 60_000;
const soon = { deadline };

describe('a command past its time', () => {
  it('expires behind any backlog, whatever it waits for', async () => {
    const { sweep, clock, accept, ledger, outbound, notified } = await sweeperAt(deadline - 1);
    const overdue = [
      await accept(soon),
      await accept({ ...soon, status: 'parked' }),
      await accept({ ...soon, status: 'scheduled', notBefore: deadline - 5_000 }),
    ];
    const young = await accept({ deadline: deadline + 1 });
    expect(await sweep()).toEqual({ seen: 0, ended: 0, more: false });
    clock.now = deadline;
    expect(await sweep()).toEqual({ seen: 3, ended: 3, more: false });
    for (const { id, version } of overdue) {
      const row = await ledger.find(id);
      expect(row).toMatchObject({
        status: 'expired',
        code: 'EXPIRED',
        reason: 'its time to live ended before it could be written',
      });
      expect(row?.version).toBeGreaterThan(version);
    }
    expect(await outbound.holds([...overdue, young])).toEqual(new Set([young.id]));
    expect((await ledger.find(young.id))?.status).toBe('queued');
    expect(notified.sort()).toEqual(overdue.map(({ id }) => id).sort());
    expect(await sweep()).toEqual({ seen: 0, ended: 0, more: false });
  });

  it('ends as unknown when it may have been written', async () => {
    const { sweep, accept, ledger, metrics } = await sweeperAt(deadline);
    const trail = { 1: attemptOf(1, { writtenAt: 5, outcome: 'no-ack' }) };
    const { id } = await accept({ ...soon, trail, version: 3 });
    const unsent = { 1: attemptOf(1, { outcome: 'offline' }) };
    const other = await accept({ ...soon, trail: unsent, version: 3 });
    await sweep();
    expect(await ledger.find(id)).toMatchObject({
      status: 'unknown',
      code: 'EXPIRED',
      reason: 'expired after it was written without an answer',
      trail,
    });
    expect((await ledger.find(other.id))?.status).toBe('expired');
    const counted = async (name: string) =>
      (await metrics.registry.getSingleMetric(name)?.get())?.values[0]?.value;
    expect(await counted('outbound_failed_total')).toBe(1);
    expect(await counted('outbound_completed_total')).toBe(1);
  });

  it('ends as what had revoked it before', async () => {
    const { sweep, acceptInLine, join, ledger } = await sweeperAt(deadline);
    const start = await acceptInLine(soon);
    const stop = {
      ...start,
      id: 'the-stop',
      command: 'charge.stop',
      params: { socket: 1, port: 0 },
    };
    expect(await join(stop)).toMatchObject({ superseded: [start.id] });
    await sweep();
    expect(await ledger.find(start.id)).toMatchObject({
      status: 'superseded',
      code: 'SUPERSEDED',
      reason: 'superseded by command the-stop before it was written',
    });
  });

  it('gives its place to the one behind it', async () => {
    const { sweep, acceptInLine, routes } = await sweeperAt(deadline);
    const params = { socket: 1, port: 0, minutes: 10 };
    const first = await acceptInLine({ ...soon, command: 'charge.stop', params });
    const second = await acceptInLine({ deadline: deadline + 60_000, params });
    const line = `t:${second.orderKey}`;
    expect((await routes.inspect(second.deviceId, second.id, line)).ahead).toEqual([first.id]);
    await sweep();
    expect(await routes.inspect(second.deviceId, second.id, line)).toMatchObject({
      ahead: [],
      parked: 'waiting',
    });
  });

  it('is left to the worker that holds it', async () => {
    const { sweep, accept, ledger, consume } = await sweeperAt(deadline);
    const held = await accept(soon);
    await consume(held.deviceId, () => new Promise(() => undefined), { jobs: 1 });
    expect(await sweep()).toEqual({ seen: 1, ended: 0, more: false });
    expect(await ledger.find(held.id)).toEqual(held);
  });
});

describe('a command that the queue does not hold', () => {
  it('is left to the reaper for half a minute, then ended', async () => {
    const { sweep, clock, ledger, metrics } = await sweeperAt(deadline + 30_000);
    const lost = query(soon);
    await ledger.write(lost);
    expect(await sweep()).toEqual({ seen: 1, ended: 0, more: false });
    clock.now += 1;
    expect(await sweep()).toEqual({ seen: 1, ended: 1, more: false });
    expect(await ledger.find(lost.id)).toMatchObject({ status: 'expired', code: 'EXPIRED' });
    const { values } = await metrics.outboundCompleted.get();
    expect(values[0]?.value).toBe(1);
  });

  it('is left alone while settlements are on their way to the ledger', async () => {
    const { sweep, ledger, redis, keys } = await sweeperAt(deadline + 90_000);
    const settled = query(soon);
    await ledger.write(settled);
    const entryId = await redis.xadd(keys.settlements(), '*', 's', '{}');
    expect(await sweep()).toEqual({ seen: 1, ended: 0, more: false });
    expect(await ledger.find(settled.id)).toEqual(settled);
    await redis.xdel(keys.settlements(), entryId!);
    expect((await sweep()).ended).toBe(1);
  });
});

describe('a turn of the sweeper', () => {
  it('ends at its limit, and the next goes on behind what must stay', async () => {
    const limits = { rowsPerPage: 2, pagesPerTurn: 1 };
    const { sweep, accept, ledger, consume } = await sweeperAt(deadline + 10, limits);
    const held = [await accept(soon), await accept(soon)];
    await consume(held[0]!.deviceId, () => new Promise(() => undefined), { jobs: 2 });
    const behind = query({ deadline: deadline + 1, deviceId: held[0]!.deviceId });
    await ledger.write(behind);
    expect(await sweep()).toEqual({ seen: 2, ended: 0, more: true });
    expect(await sweep()).toEqual({ seen: 1, ended: 0, more: false });
    expect(await sweep()).toEqual({ seen: 2, ended: 0, more: true });
  });

  it('takes back no more than 20 at once', async () => {
    let [running, most] = [0, 0];
    const takeBack: TakeBack = async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
      return { kind: 'active' };
    };
    const { sweep, ledger } = await sweeperAt(deadline, { takeBack });
    await Promise.all(Array.from({ length: 70 }, () => ledger.write(query(soon))));
    expect(await sweep()).toEqual({ seen: 70, ended: 0, more: false });
    expect(most).toBe(20);
  });

  it('goes past a command that cannot be ended, and stops when a store is away', async () => {
    let fault = new DownlinkError('INTERNAL', 'this one is poison');
    let calls = 0;
    const takeBack: TakeBack = async (record) => {
      calls += 1;
      if (record.command === 'port.query') throw fault;
      return { kind: 'ended', record: { ...record, status: 'expired' } };
    };
    const { sweep, ledger } = await sweeperAt(deadline, { takeBack, rowsPerPage: 30 });
    const rows = Array.from({ length: 50 }, (_, n) => query({ deadline: deadline - 100 + n }));
    const [first, ...others] = rows;
    await Promise.all(
      [first!, ...others.map((row) => ({ ...row, command: 'charge.stop' }))].map((row) =>
        ledger.write(row),
      ),
    );
    expect(await sweep()).toEqual({ seen: 50, ended: 49, more: false });
    fault = new DownlinkError('QUEUE_UNAVAILABLE', 'the queue store is away');
    calls = 0;
    await expect(sweep()).rejects.toBe(fault);
    expect(calls).toBe(20);
  });
});
