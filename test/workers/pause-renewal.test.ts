import { describe, expect, it } from 'vitest';
import type { Pauses } from '../../src/store/contract.ts';
import { createPauses } from '../../src/store/pauses.ts';
import { createPauseRenewal } from '../../workers/pause-renewal.ts';
import { dutyStores } from './duty-stores.ts';

/** `between` happens after each list that the duty reads. */
async function renewal(
  between: (pauses: Pauses, lists: number) => Promise<unknown> = async () => 0,
) {
  const stores = await dutyStores();
  const pauses = createPauses(stores);
  const resumed: string[] = [];
  let lists = 0;
  const renewPauses = createPauseRenewal({
    ...stores,
    pauses: {
      find: pauses.find,
      async list(query) {
        const page = await pauses.list(query);
        lists += 1;
        await between(pauses, lists);
        return page;
      },
    },
    onResumed: (deviceId) => resumed.push(deviceId),
    devicesPerPage: 2,
  });
  const pause = (deviceId: string, pausedAt = 1_000) =>
    pauses.pause({ deviceId, pausedAt, by: 'operator', reason: null });
  const pausedAt = async (deviceId: string) =>
    (await stores.routes.inspect(deviceId, 'none', null)).pausedAt;
  return { ...stores, pauses, pause, pausedAt, renewPauses, resumed };
}

describe('a pause', () => {
  it('is said to Redis again after Redis has lost it', async () => {
    const { pause, pausedAt, renewPauses, redis, keys, resumed } = await renewal();
    const devices = ['a', 'b', 'c', 'd', 'e'];
    for (const [index, id] of devices.entries()) await pause(id, index + 1);
    expect(await renewPauses()).toBe(5);
    for (const [index, id] of devices.entries()) expect(await pausedAt(id)).toBe(index + 1);
    await redis.del(...devices.map((id) => keys.marks(id)));
    expect(await renewPauses()).toBe(5);
    expect(await pausedAt('c')).toBe(3);
    expect(resumed).toEqual([]);
  });

  it('that ended while it was being said ends in Redis too', async () => {
    const { pause, pausedAt, renewPauses, resumed } = await renewal(async (pauses, lists) => {
      if (lists === 1) await pauses.resume('a');
    });
    await pause('a');
    await pause('b');
    expect(await renewPauses()).toBe(1);
    expect([await pausedAt('a'), await pausedAt('b')]).toEqual([null, 1_000]);
    expect(resumed).toEqual(['a']);
  });

  it('that ended and began again meanwhile stands as it is now', async () => {
    const again = { deviceId: 'a', pausedAt: 2_000, by: 'another', reason: null };
    const { pause, pausedAt, renewPauses, resumed } = await renewal(async (pauses, lists) => {
      if (lists > 1) return;
      await pauses.resume('a');
      await pauses.pause(again);
    });
    await pause('a');
    expect(await renewPauses()).toBe(1);
    expect(await pausedAt('a')).toBe(2_000);
    expect(resumed).toEqual([]);
  });

  it('that ended without a word to Redis ends there with the next turn', async () => {
    const { pause, pauses, pausedAt, renewPauses, resumed, routes } = await renewal();
    await pause('a');
    await pause('b');
    await renewPauses();
    await pauses.resume('a');
    // As a worker left it that is gone: the resume came while Redis was away.
    await routes.setPaused('stranger', 500);
    expect(await pausedAt('a')).toBe(1_000);
    expect(await renewPauses()).toBe(1);
    expect([await pausedAt('a'), await pausedAt('stranger')]).toEqual([null, null]);
    expect(resumed.toSorted()).toEqual(['a', 'stranger']);
    await renewPauses();
    expect(resumed).toHaveLength(2);
  });
});
