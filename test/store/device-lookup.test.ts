import type { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  createDeviceChanges,
  createDeviceChangesListener,
} from '../../src/bridge/device-changes.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import type { Device } from '../../src/store/contract.ts';
import { createDatabase } from '../../src/store/database.ts';
import { createDeviceIds } from '../../src/store/device-ids.ts';
import { createDeviceLookup } from '../../src/store/device-lookup.ts';
import { createDevices } from '../../src/store/devices.ts';
import { announcingNews } from '../../workers/device-news.ts';
import { eventually } from '../support/eventually.ts';
import { freshRedis } from '../support/stores.ts';
import { freshLedger, quietLog } from './fixture.ts';

const deviceId = '82200520004869';
const known = (id: string): Device => ({
  deviceId: id,
  protocol: 'bkv',
  firstSeenAt: null,
  lastSeenAt: null,
  facts: {},
});

async function lookupsOf(metrics: ReturnType<typeof createMetrics>) {
  const { values } = await metrics.deviceLookups.get();
  const counts = values.map(({ labels, value }) => [labels['result'], value] as const);
  return { hit: 0, miss: 0, stale: 0, ...Object.fromEntries(counts) };
}

/** mulberry32. */
function seeded(seed: number) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Ranks from 0: the first is asked for twice as often as the second, three times as often as the third. */
function zipf(count: number, random: () => number) {
  const shares = new Float64Array(count);
  let sum = 0;
  for (let rank = 0; rank < count; rank += 1) {
    sum += 1 / (rank + 1);
    shares[rank] = sum;
  }
  return () => {
    const at = random() * sum;
    let [low, high] = [0, count - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (shares[middle]! < at) low = middle + 1;
      else high = middle;
    }
    return low;
  };
}

/** What a memory of so many, the least recently asked for thrown out first, can answer of this sequence. */
function bestOf(sequence: Iterable<number>, room: number): number {
  const held = new Set<number>();
  let hits = 0;
  for (const id of sequence) {
    if (held.delete(id)) hits += 1;
    held.add(id);
    if (held.size > room) held.delete(held.values().next().value!);
  }
  return hits;
}

describe('the cache of devices', () => {
  it('asks PostgreSQL once for a thousand callers who miss the same device', async () => {
    const { pool } = await freshLedger();
    const metrics = createMetrics('api');
    const database = createDatabase({ pool, metrics });
    onTestFinished(() => database.close());
    const devices = createDevices({ database });
    await devices.register(deviceId, 'bkv');
    const lookup = createDeviceLookup({ devices, metrics });
    const queries = async () => {
      const { values } = await metrics.dbQueryLatency.get();
      return values.find(
        ({ metricName, labels }) =>
          metricName?.endsWith('_count') && labels['query'] === 'devices.find',
      )?.value;
    };
    const answers = await Promise.all(Array.from({ length: 1_000 }, () => lookup.find(deviceId)));
    expect(answers.every((device) => device?.protocol === 'bkv')).toBe(true);
    expect(await queries()).toBe(1);
    await Promise.all(Array.from({ length: 1_000 }, () => lookup.find('04ab373b')));
    expect(await queries()).toBe(2);
    await lookup.find(deviceId);
    expect(await queries()).toBe(2);
    expect(await lookupsOf(metrics)).toEqual({ hit: 1, miss: 2_000, stale: 0 });
  });

  it('hits under a Zipf load as often as any memory of its size that keeps the latest', async () => {
    const metrics = createMetrics('api');
    let reads = 0;
    const lookup = createDeviceLookup({
      devices: {
        async find(id) {
          reads += 1;
          return known(id);
        },
      },
      metrics,
      maxEntries: 10_000,
      now: () => 1,
    });
    const next = zipf(100_000, seeded(7));
    const sequence = Array.from({ length: 200_000 }, next);
    for (const rank of sequence) await lookup.find(`d${rank}`);
    const { hit, miss, stale } = await lookupsOf(metrics);
    expect(hit).toBe(bestOf(sequence, 10_000));
    expect([hit + miss, miss, stale]).toEqual([sequence.length, reads, 0]);
    // Not a load that would hit anyhow, or never.
    expect(hit / sequence.length).toBeGreaterThan(0.5);
    expect(hit / sequence.length).toBeLessThan(0.9);
    expect(lookup.size).toBe(10_000);
    metrics.observeDeviceLookup(lookup);
    expect(lookup.bytes).toBeGreaterThan(10_000 * 400);
    expect(await metrics.registry.metrics()).toContain(`device_lookup_bytes ${lookup.bytes}\n`);
  });

  it('takes no read for news that was under way when the device changed', async () => {
    const gates: PromiseWithResolvers<Device | null>[] = [];
    const lookup = createDeviceLookup({
      devices: {
        find: () => {
          const gate = Promise.withResolvers<Device | null>();
          gates.push(gate);
          return gate.promise;
        },
      },
    });
    const early = lookup.find('d1');
    await eventually(() => expect(gates).toHaveLength(1));
    lookup.forget('d1');
    const late = lookup.find('d1');
    await eventually(() => expect(gates).toHaveLength(2));
    gates[1]!.resolve(null);
    gates[0]!.resolve(known('d1'));
    expect([(await early)?.deviceId, await late]).toEqual(['d1', null]);
    expect(await lookup.find('d1')).toBeNull();
    expect(gates).toHaveLength(2);

    const before = lookup.find('d2');
    await eventually(() => expect(gates).toHaveLength(3));
    lookup.forgetAll();
    const after = lookup.find('d2');
    gates[2]!.resolve(null);
    expect(await before).toBeNull();
    await eventually(() => expect(gates).toHaveLength(4));
    gates[3]!.resolve(known('d2'));
    expect(await after).toMatchObject({ deviceId: 'd2' });
  });

  it('reads everything anew once all is forgotten, yet tells the old while the ledger is away', async () => {
    const metrics = createMetrics('api');
    const state = { away: false, protocol: 'bkv' };
    const lookup = createDeviceLookup({
      devices: {
        async find(id) {
          if (state.away) throw new Error('away');
          return { ...known(id), protocol: state.protocol };
        },
      },
      metrics,
    });
    await lookup.find('d1');
    await lookup.find('d2');
    state.away = true;
    lookup.forgetAll();
    expect(await lookup.find('d1')).toMatchObject({ protocol: 'bkv' });
    expect(await lookup.find('d1')).toMatchObject({ protocol: 'bkv' });
    lookup.forget('d1');
    await expect(lookup.find('d1')).rejects.toThrow('away');
    state.away = false;
    state.protocol = 'ap3000';
    expect(await lookup.find('d2')).toMatchObject({ protocol: 'ap3000' });
    expect(await lookupsOf(metrics)).toEqual({ hit: 0, miss: 3, stale: 2 });
  });
});

describe('lookups of several processes', () => {
  it('hear what another one changed, and not their own word', async () => {
    const world = await freshWorld();
    const [a, b] = [await world.process('api-a'), await world.process('api-b')];
    expect([await a.lookup.find(deviceId), await b.lookup.find(deviceId)]).toEqual([null, null]);

    await world.devices.register(deviceId, 'bkv');
    a.changes.announce([deviceId]);
    await eventually(async () => {
      expect(await b.lookup.find(deviceId)).toMatchObject({ protocol: 'bkv' });
    }, soonerThanAged);
    // Its own memory is its own to change.
    expect(await a.lookup.find(deviceId)).toBeNull();

    await world.deviceIds.remove(deviceId);
    a.changes.announce([deviceId]);
    await eventually(async () => expect(await b.lookup.find(deviceId)).toBeNull(), soonerThanAged);
  });

  it('hear of devices that a worker stores for the first time', async () => {
    const world = await freshWorld();
    const [worker, api] = [await world.process('worker-a'), await world.process('api-a')];
    const devices = announcingNews({
      devices: world.devices,
      deviceIds: world.deviceIds,
      changes: {
        announce(ids) {
          announced.push([...ids]);
          worker.changes.announce(ids);
        },
      },
    });
    const announced: string[][] = [];
    const seen = (protocol = 'bkv') => devices.seen([{ deviceId, protocol, at: 1, facts: {} }]);
    expect(await api.lookup.find(deviceId)).toBeNull();
    await seen();
    await eventually(async () => {
      expect(await api.lookup.find(deviceId)).toMatchObject({ protocol: 'bkv' });
    }, soonerThanAged);
    await seen();
    expect(announced).toEqual([[deviceId]]);
    await seen('other');
    expect(announced).toEqual([[deviceId], [deviceId]]);
  });

  it('forget everything after a gap in which they may have missed a word', async () => {
    const world = await freshWorld();
    await world.devices.register(deviceId, 'bkv');
    const [a, b] = [await world.process('api-a'), await world.process('api-b')];
    expect(await b.lookup.find(deviceId)).not.toBeNull();
    b.subscriber.disconnect();
    await eventually(() => expect(b.subscriber.status).toBe('end'));
    await world.deviceIds.remove(deviceId);
    a.changes.announce([deviceId]);
    await eventually(() => expect(a.told()).toBe(1));
    expect(await b.lookup.find(deviceId)).not.toBeNull();
    await b.subscriber.connect();
    await eventually(async () => expect(await b.lookup.find(deviceId)).toBeNull(), soonerThanAged);
  });

  it('are told again until Redis takes it, and all at once when it became too much', async () => {
    const world = await freshWorld();
    const { lookup } = await world.process('api-b');
    await world.devices.register(deviceId, 'bkv');
    expect(await lookup.find(deviceId)).not.toBeNull();
    let refusals = 3;
    const texts: string[] = [];
    const changes = createDeviceChanges({
      redis: {
        publish: async (channel: string, text: string) => {
          refusals -= 1;
          if (refusals >= 0) throw new Error('away');
          texts.push(text);
          return world.redis.publish(channel, text);
        },
      } as unknown as Redis,
      channel: world.channel,
      from: 'api-a',
      log: quietLog,
      retryMs: 5,
    });
    onTestFinished(() => changes.close());
    changes.announce([deviceId]);
    await eventually(() => expect(texts).toHaveLength(1));
    expect(JSON.parse(texts[0]!)).toEqual({ v: 1, from: 'api-a', ids: [deviceId] });

    await world.deviceIds.remove(deviceId);
    await lookup.find(deviceId);
    changes.announce(Array.from({ length: 10_001 }, (_, index) => `d${index}`));
    await eventually(() => expect(texts).toHaveLength(2));
    expect(JSON.parse(texts[1]!)).toMatchObject({ ids: 'all' });
    await eventually(async () => expect(await lookup.find(deviceId)).toBeNull(), soonerThanAged);
  });

  it.each([
    ['no JSON', 'what?'],
    ['another version', JSON.stringify({ v: 2, from: 'x', ids: [] })],
    ['an endless list', JSON.stringify({ v: 1, from: 'x', ids: Array(1_001).fill('d') })],
    ['an endless text', ' '.repeat(70_000)],
  ])('forget everything at a word they cannot read: %s', async (_name, text) => {
    let forgotten = 0;
    const world = await freshWorld();
    const subscriber = world.client('subscriber', 'odd');
    const listener = createDeviceChangesListener({
      redis: subscriber,
      channel: world.channel,
      from: 'api-a',
      lookup: {
        forget: () => expect.unreachable(),
        forgetAll: () => {
          forgotten += 1;
        },
      },
      log: quietLog,
    });
    await listener.start();
    await eventually(() => expect(subscriber.status).toBe('ready'));
    const before = forgotten;
    await world.redis.publish(world.channel, text);
    await eventually(() => expect(forgotten).toBe(before + 1));
    await listener.close();
  });
});

/** An entry would grow old by itself after 5 s at the earliest. */
const soonerThanAged = { withinMs: 3_000 };

async function freshWorld() {
  const [{ database }, { url, prefix }] = await Promise.all([freshLedger(), freshRedis()]);
  const channel = createKeys(prefix, 2).deviceChangesChannel();
  const devices = createDevices({ database });
  const client = (purpose: 'commands' | 'subscriber', name: string) => {
    const redis = connectRedis({ url, purpose, name });
    onTestFinished(() => closeRedis(redis));
    return redis;
  };
  const redis = client('commands', 'world');

  /** What an api process or a worker has of its own. */
  async function process(from: string) {
    const commands = client('commands', from);
    const subscriber = client('subscriber', `${from}:changes`);
    const lookup = createDeviceLookup({ devices });
    let told = 0;
    const changes = createDeviceChanges({
      redis: {
        publish: (...words: [string, string]) =>
          commands.publish(...words).finally(() => {
            told += 1;
          }),
      } as unknown as Redis,
      channel,
      from,
      log: quietLog,
    });
    const listener = createDeviceChangesListener({
      redis: subscriber,
      channel,
      from,
      lookup,
      log: quietLog,
    });
    await listener.start();
    onTestFinished(async () => {
      changes.close();
      await listener.close();
    });
    return { lookup, changes, subscriber, told: () => told };
  }
  return { devices, deviceIds: createDeviceIds({ database }), channel, redis, client, process };
}
