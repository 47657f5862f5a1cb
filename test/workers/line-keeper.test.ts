import { describe, expect, it } from 'vitest';
import type { CommandRecord } from '../../src/command.ts';
import { DownlinkError } from '../../src/errors.ts';
import { createLineKeeper, type LineKeeperDeps } from '../../workers/line-keeper.ts';
import { newRecord } from '../store/records.ts';
import { dutyStores } from './duty-stores.ts';

async function keeper(wanted: Partial<LineKeeperDeps> = {}) {
  const stores = await dutyStores();
  // The places in a line are told by the clock of Redis.
  const clock = { now: Date.now() + 31_000 };
  const keepLines = createLineKeeper({ ...stores, now: () => clock.now, ...wanted });
  const ahead = async ({ deviceId, id, orderKey }: CommandRecord) =>
    (await stores.routes.inspect(deviceId, id, `t:${orderKey}`)).ahead;
  return { ...stores, clock, keepLines, ahead };
}

/** Commands of one line of which none excludes or replaces another. */
const set = (wanted: Partial<CommandRecord> = {}) =>
  newRecord({ command: 'charge.stop', params: { socket: 1, port: 0 }, ...wanted });

describe('a command in a line', () => {
  it('leaves it when it was never stored, and lets those behind it go', async () => {
    const { keepLines, join, acceptInLine, ahead, redis, keys, outbound } = await keeper();
    const lost = set();
    await join(lost);
    const behind = await acceptInLine(set());
    await redis.hset(keys.presence(behind.deviceId), { gatewayId: 'gateway-1', epoch: 1 });
    expect(await ahead(behind)).toEqual([lost.id]);
    expect((await outbound.inspect(behind.deviceId, behind.id))?.state).toBe('delayed');
    expect(await keepLines()).toEqual({ entries: 2, left: 1 });
    expect(await ahead(behind)).toEqual([]);
    expect((await outbound.inspect(behind.deviceId, behind.id))?.state).toBe('prioritized');
    expect(await keepLines()).toEqual({ entries: 1, left: 0 });
  });

  it('leaves it when it has ended and its queue has forgotten it', async () => {
    const { keepLines, join, ledger, acceptInLine, ahead } = await keeper();
    const ended = set({ status: 'unknown', version: 4, settledAt: 5 });
    await join(ended);
    await ledger.write(ended);
    const behind = await acceptInLine(set());
    expect((await keepLines()).left).toBe(1);
    expect(await ahead(behind)).toEqual([]);
  });

  it('stays while it is young, held by the queue, or unfinished in the ledger', async () => {
    const { keepLines, clock, join, ledger, outbound, accept } = await keeper();
    const young = set();
    await join(young);
    clock.now = Date.now() + 29_000;
    expect(await keepLines()).toEqual({ entries: 0, left: 0 });
    clock.now = Date.now() + 31_000;
    // Its end is written, and its job is about to end.
    const ending = set({ deviceId: '82200520004870', status: 'unknown', version: 4, settledAt: 5 });
    await join(ending);
    await ledger.write(ending);
    await outbound.enqueue({ command: ending });
    // The reaper's.
    const lost = set({ deviceId: '82200520004871' });
    await join(lost);
    await ledger.write(lost);
    await accept();
    expect(await keepLines()).toEqual({ entries: 3, left: 1 });
    expect(await keepLines()).toEqual({ entries: 2, left: 0 });
  });

  it('stays while settlements are on their way to the ledger', async () => {
    const { keepLines, join, redis, keys } = await keeper();
    await join(set());
    const entryId = await redis.xadd(keys.settlements(), '*', 's', '{}');
    expect(await keepLines()).toEqual({ entries: 1, left: 0 });
    await redis.xdel(keys.settlements(), entryId!);
    expect(await keepLines()).toEqual({ entries: 1, left: 1 });
  });

  it('stays while the ledger is away', async () => {
    const away = new DownlinkError('LEDGER_UNAVAILABLE', 'PostgreSQL is away');
    const ledger = { findMany: () => Promise.reject(away) };
    const { keepLines, join, routes } = await keeper({ ledger });
    const record = set();
    await join(record);
    await expect(keepLines()).rejects.toBe(away);
    const { seq } = await routes.inspect(record.deviceId, record.id, `t:${record.orderKey}`);
    expect(seq).not.toBeNull();
  });
});

describe('a line', () => {
  it('that is empty is forgotten, and one that is not is kept', async () => {
    const { keepLines, join, redis, keys } = await keeper();
    const record = set({ orderKey: 'a|b' });
    await join(record);
    const shard = keys.shardOf(record.deviceId);
    await redis.sadd(keys.lines(shard), `${record.deviceId}|o:empty`);
    await redis.xadd(keys.settlements(), '*', 's', '{}');
    await keepLines();
    expect(await redis.smembers(keys.lines(shard))).toEqual([`${record.deviceId}|o:a|b`]);
    await redis.del(keys.settlements());
    expect((await keepLines()).left).toBe(1);
    expect(await redis.smembers(keys.lines(shard))).toEqual([]);
  });
});
