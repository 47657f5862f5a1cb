import { describe, expect, it } from 'vitest';
import { createExpel, createKnownDevices } from '../../src/bridge/known-devices.ts';
import { createOutbox } from '../../src/bridge/outbox.ts';
import { createDeviceIds } from '../../src/store/device-ids.ts';
import { createDevices } from '../../src/store/devices.ts';
import { createKnownCopy, onlyKnown } from '../../workers/known-devices.ts';
import { dutyStores } from './duty-stores.ts';

/** `between` happens after each page that the duty reads. */
async function copier(between: (page: string[]) => Promise<unknown> = async () => 0) {
  const stores = await dutyStores();
  const { redis, keys, database, log } = stores;
  const devices = createDevices({ database });
  const deviceIds = createDeviceIds({ database });
  const known = createKnownDevices({ redis, keys });
  const expel = createExpel({ redis, keys, outbox: createOutbox({ redis, from: 'w1' }) });
  const copy = createKnownCopy({
    deviceIds: {
      existing: deviceIds.existing,
      async page(query) {
        const page = await deviceIds.page(query);
        await between(page);
        return page;
      },
    },
    known,
    expel,
    log,
    idsPerPage: 2,
  });
  const register = async (...ids: string[]) => {
    for (const id of ids) await devices.register(id, 'bkv');
  };
  async function copied(): Promise<string[]> {
    const ids = new Set<string>();
    for await (const piece of known.pieces()) for (const id of piece) ids.add(id);
    return [...ids].toSorted();
  }
  const isWhole = async () => {
    const marks = [0, 1].map((shard) => redis.exists(keys.knownLoaded(shard)));
    return (await Promise.all(marks)).every((each) => each === 1);
  };
  return { ...stores, devices, deviceIds, known, copy, register, copied, isWhole };
}

const ids = ['a', 'b', 'c', 'd', 'e'];

describe('the copy of known devices', () => {
  it('is made page by page, and again after Redis has lost it', async () => {
    const { copy, register, copied, isWhole, redis, keys } = await copier();
    await register(...ids);
    expect(await isWhole()).toBe(false);
    expect(await copy()).toEqual({ known: 5, expelled: 0 });
    expect([await copied(), await isWhole()]).toEqual([ids, true]);
    await redis.del(...[0, 1].flatMap((n) => [keys.knownDevices(n), keys.knownLoaded(n)]));
    await copy();
    expect([await copied(), await isWhole()]).toEqual([ids, true]);
  });

  it('of no device at all is whole too', async () => {
    const { copy, copied, isWhole } = await copier();
    expect(await copy()).toEqual({ known: 0, expelled: 0 });
    expect([await copied(), await isWhole()]).toEqual([[], true]);
  });

  it('that Redis lost half way is not called whole', async () => {
    const stores = await copier(async (page) => {
      if (!page.includes('c')) return;
      const { redis, keys } = stores;
      await redis.del(...[0, 1].flatMap((n) => [keys.knownDevices(n), keys.knownFilling(n)]));
    });
    await stores.register(...ids);
    await expect(stores.copy()).rejects.toThrow('lost its memory');
    expect(await stores.isWhole()).toBe(false);
  });

  it('loses a device that was removed without a word, and one that goes while it is copied', async () => {
    let remove: string | null = null;
    const stores = await copier(async (page) => {
      if (remove !== null && page.includes(remove)) await stores.deviceIds.remove(remove);
    });
    await stores.register(...ids);
    await stores.copy();
    await stores.deviceIds.remove('b');
    remove = 'd';
    expect(await stores.copy()).toMatchObject({ expelled: 2 });
    expect(await stores.copied()).toEqual(['a', 'c', 'e']);
  });

  it('keeps a device that is registered behind the page', async () => {
    const stores = await copier(async (page) => {
      if (!page.includes('c')) return;
      await stores.register('aa');
      await stores.known.add(['aa']);
    });
    await stores.register(...ids);
    expect(await stores.copy()).toMatchObject({ expelled: 0 });
    expect(await stores.copied()).toEqual(['a', 'aa', 'b', 'c', 'd', 'e']);
  });
});

describe('sightings where only known devices may log in', () => {
  it('make no device known, and are kept of those that are', async () => {
    const { devices, deviceIds, register } = await copier();
    await register('a');
    const seen = (deviceId: string) => ({ deviceId, protocol: 'bkv', at: 5, facts: {} });
    await onlyKnown(devices, deviceIds).seen([seen('a'), seen('b')]);
    expect(await devices.find('a')).toMatchObject({ lastSeenAt: 5 });
    expect(await devices.find('b')).toBeNull();
  });
});
