import { describe, expect, it } from 'vitest';
import type { Device } from '../../src/store/contract.ts';
import { createDeviceLookup } from '../../src/store/device-lookup.ts';
import { createDevices } from '../../src/store/devices.ts';
import { freshLedger } from './fixture.ts';

async function freshDevices() {
  const { database } = await freshLedger();
  return createDevices({ database });
}

function sighting(deviceId: string, at: number, facts: Record<string, unknown> = {}) {
  return { deviceId, protocol: 'bkv', at, facts };
}

describe('devices', () => {
  it('are known once they are registered, and new only once', async () => {
    const devices = await freshDevices();
    expect(await devices.find('04ab373b')).toBeNull();
    expect(await devices.register('04ab373b', 'ap3000')).toBe(true);
    expect(await devices.register('04ab373b', 'bkv')).toBe(false);
    expect(await devices.find('04ab373b')).toEqual({
      deviceId: '04ab373b',
      protocol: 'ap3000',
      firstSeenAt: null,
      lastSeenAt: null,
      facts: {},
    });
  });

  it('keep their first and their latest sighting, in whatever order sightings come', async () => {
    const devices = await freshDevices();
    await devices.register('d1', 'bkv');
    await devices.seen([sighting('d1', 2_000, { firmware: '2', iccid: '89' })]);
    await devices.seen([sighting('d1', 1_000, { firmware: '1', signal: 20 })]);
    expect(await devices.find('d1')).toMatchObject({
      firstSeenAt: 1_000,
      lastSeenAt: 2_000,
      facts: { firmware: '2', iccid: '89', signal: 20 },
    });
    await devices.seen([sighting('d1', 3_000, { signal: 9 })]);
    expect(await devices.find('d1')).toMatchObject({
      lastSeenAt: 3_000,
      facts: { firmware: '2', iccid: '89', signal: 9 },
    });
  });

  it('may be sighted several times in one call', async () => {
    const devices = await freshDevices();
    await devices.seen([sighting('d1', 20, { a: 2 }), sighting('d1', 10, { a: 1, b: 1 })]);
    expect(await devices.find('d1')).toMatchObject({ lastSeenAt: 20, facts: { a: 2, b: 1 } });
  });

  it('are sighted by concurrent writers without deadlock', async () => {
    const devices = await freshDevices();
    const ids = Array.from({ length: 700 }, (_, index) => `d${index}`);
    await Promise.all(
      Array.from({ length: 6 }, (_, writer) =>
        devices.seen(
          (writer % 2 ? ids : ids.toReversed()).map((id) => sighting(id, 1_000 + writer)),
        ),
      ),
    );
    expect(await devices.find('d699')).toMatchObject({ lastSeenAt: 1_005 });
  });

  it('are listed page by page, by protocol and by when they were seen', async () => {
    const devices = await freshDevices();
    await devices.seen(Array.from({ length: 10 }, (_, index) => sighting(`d${index}`, index)));
    await devices.register('x1', 'ap3000');
    const first = await devices.list({ limit: 4, protocol: 'bkv', seenSince: 3 });
    expect(first.items.map(({ deviceId }) => deviceId)).toEqual(['d3', 'd4', 'd5', 'd6']);
    const second = await devices.list({
      limit: 4,
      protocol: 'bkv',
      seenSince: 3,
      cursor: first.nextCursor!,
    });
    expect(second.items.map(({ deviceId }) => deviceId)).toEqual(['d7', 'd8', 'd9']);
    expect(second.nextCursor).toBeNull();
    expect((await devices.list({ limit: 200 })).items).toHaveLength(11);
    await expect(devices.list({ limit: 4, cursor: 'nonsense' })).rejects.toMatchObject({
      code: 'BAD_REQUEST',
    });
  });
});

describe('the lookup of devices', () => {
  const known: Device = {
    deviceId: 'd1',
    protocol: 'bkv',
    firstSeenAt: null,
    lastSeenAt: null,
    facts: {},
  };

  /** A lookup over devices that the test holds, with a clock that the test moves. */
  function lookupOver(stored: Map<string, Device>, limits: { maxEntries?: number } = {}) {
    const state = { reads: 0, away: false, nowMs: 1 };
    const gate = Promise.withResolvers<void>();
    const lookup = createDeviceLookup({
      ...limits,
      now: () => state.nowMs,
      devices: {
        async find(deviceId) {
          state.reads += 1;
          await gate.promise;
          if (state.away) throw new Error('away');
          return stored.get(deviceId) ?? null;
        },
      },
    });
    return { lookup, state, open: () => gate.resolve() };
  }

  it('reads a device once for many callers, and again after its time', async () => {
    const { lookup, state, open } = lookupOver(new Map([['d1', known]]));
    const answers = Promise.all(Array.from({ length: 50 }, () => lookup.find('d1')));
    open();
    expect(await answers).toEqual(Array(50).fill(known));
    expect(state.reads).toBe(1);
    state.nowMs += 5 * 60_000 - 1;
    await lookup.find('d1');
    expect(state.reads).toBe(1);
    state.nowMs += 2;
    await lookup.find('d1');
    expect(state.reads).toBe(2);
  });

  it('believes only briefly that a device does not exist', async () => {
    const stored = new Map<string, Device>();
    const { lookup, state, open } = lookupOver(stored);
    open();
    expect(await lookup.find('d1')).toBeNull();
    stored.set('d1', known);
    expect(await lookup.find('d1')).toBeNull();
    state.nowMs += 5_001;
    expect(await lookup.find('d1')).toEqual(known);
  });

  it('tells a device it once knew while the ledger is away, and looks again when it is back', async () => {
    const stored = new Map([['d1', known]]);
    const { lookup, state, open } = lookupOver(stored);
    open();
    await lookup.find('d1');
    state.nowMs += 10 * 60_000;
    state.away = true;
    expect(await lookup.find('d1')).toEqual(known);
    state.away = false;
    stored.set('d1', { ...known, protocol: 'ap3000' });
    state.nowMs += 5_001;
    expect(await lookup.find('d1')).toMatchObject({ protocol: 'ap3000' });
  });

  it('never says that a device does not exist while the ledger is away', async () => {
    const { lookup, state, open } = lookupOver(new Map());
    open();
    expect(await lookup.find('d1')).toBeNull();
    state.nowMs += 5_001;
    state.away = true;
    await expect(lookup.find('d1')).rejects.toThrow('away');
    await expect(lookup.find('d2')).rejects.toThrow('away');
    expect(lookup.size).toBe(0);
  });

  it('takes in what was learnt elsewhere, also while a read is under way', async () => {
    const { lookup, state, open } = lookupOver(new Map());
    const reading = lookup.find('d1');
    lookup.put(known);
    open();
    expect(await reading).toBeNull();
    expect(await lookup.find('d1')).toEqual(known);
    expect(state.reads).toBe(1);
  });

  it('holds no more devices than it may', async () => {
    const { lookup, open } = lookupOver(new Map(), { maxEntries: 100 });
    open();
    for (let index = 0; index < 300; index += 1) await lookup.find(`d${index}`);
    expect(lookup.size).toBe(100);
  });

  it('holds no more bytes than it may', () => {
    const devices = { find: async () => null };
    const lookup = createDeviceLookup({ devices, maxBytes: 10_000 });
    const facts = { notes: 'x'.repeat(1_000) };
    for (let index = 0; index < 50; index += 1)
      lookup.put({ ...known, deviceId: `d${index}`, facts });
    expect(lookup.size).toBeGreaterThan(0);
    expect(lookup.size).toBeLessThan(10);
  });
});

describe('the devices seen of late', () => {
  it('come the latest first, page by page, those of one moment by their ids', async () => {
    const devices = await freshDevices();
    const at = (n: number) => 10_000 + Math.floor(n / 4);
    await devices.seen(Array.from({ length: 30 }, (_, n) => sighting(`d${n + 10}`, at(n))));
    await devices.seen([sighting('old', 9_000), { ...sighting('x', 10_003), protocol: 'ap3000' }]);
    await devices.register('never', 'bkv');
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const page: Awaited<ReturnType<typeof devices.recentlySeen>> = await devices.recentlySeen({
        since: 10_000,
        limit: 6,
        ...(cursor && { cursor }),
      });
      seen.push(...page.items.map(({ deviceId }) => deviceId));
      cursor = page.nextCursor;
    } while (cursor);
    const ids = Array.from({ length: 30 }, (_, n) => n).sort((a, b) => at(b) - at(a) || a - b);
    const expected = ids.map((n) => `d${n + 10}`);
    expected.splice(expected.indexOf('d25') + 1, 0, 'x');
    expect(seen).toEqual(expected);
    const some = await devices.recentlySeen({ since: 0, protocol: 'ap3000', limit: 5 });
    expect(some.items).toMatchObject([{ deviceId: 'x', lastSeenAt: 10_003 }]);
    await expect(devices.recentlySeen({ since: 0, limit: 0 })).rejects.toMatchObject({
      code: 'BAD_REQUEST',
    });
  });
});
