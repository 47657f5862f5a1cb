import { describe, expect, onTestFinished, test } from 'vitest';
import type { GatewayBridge, Login } from '../../src/bridge/gateway-bridge.ts';
import { createExpel, createKnownDevices } from '../../src/bridge/known-devices.ts';
import type { Evict } from '../../src/bridge/messages.ts';
import { createOutbox } from '../../src/bridge/outbox.ts';
import {
  createGatewayBridge,
  type GatewayBridgeDeps,
} from '../../src/bridge/redis-gateway-bridge.ts';
import { type BridgeRig, startBridgeRig } from '../promises/bridge-rig.ts';
import { quietLog as log } from '../store/fixture.ts';
import { eventually } from '../support/eventually.ts';

const device = '82200520004869';
const stranger = '82200520004870';
const here = () => true;
const gone = () => false;

async function gatewayOf(
  rig: BridgeRig,
  gatewayId: string,
  deps: Partial<GatewayBridgeDeps> = {},
  sessions: () => { deviceId: string; protocol: string; epoch: number }[] = () => [],
) {
  const bridge = createGatewayBridge({
    gatewayId,
    redis: await rig.client('commands'),
    subscriber: await rig.client('subscriber'),
    keys: rig.keys,
    log,
    ...deps,
  });
  const evicted: Evict[] = [];
  await bridge.start({
    deliver: () => undefined,
    withdraw: () => undefined,
    settled: () => undefined,
    remember: () => undefined,
    evict: (evict) => evicted.push(evict),
    sessions,
    load: () => ({ connections: 0, sessions: 0 }),
  });
  onTestFinished(() => bridge.stop());
  return { bridge, evicted };
}

async function granted(bridge: GatewayBridge, deviceId = device) {
  const login = await bridge.login(deviceId, 'bkv', gone);
  if (!login.granted) throw new Error(login.reason);
  return login;
}

const reasonOf = (login: Login) => (login.granted ? 'granted' : login.reason);

describe('with takeovers denied', () => {
  const deny = { takeover: 'deny' } as const;

  test('a login of an id whose session lives elsewhere is refused, and told by whom', async () => {
    const rig = await startBridgeRig();
    const one = await gatewayOf(rig, 'g1', deny);
    const two = await gatewayOf(rig, 'g2', deny);
    const { epoch } = await granted(one.bridge);
    expect(await two.bridge.login(device, 'bkv', gone)).toEqual({
      granted: false,
      reason: 'taken',
      holder: { gatewayId: 'g1', epoch },
      retryAfterMs: expect.any(Number),
    });
    expect(await rig.redis.hgetall(rig.keys.presence(device))).toMatchObject({
      gatewayId: 'g1',
      epoch: String(epoch),
    });
    expect(one.evicted).toEqual([]);
  });

  test('a presence of a gateway without a lease does not count', async () => {
    const rig = await startBridgeRig();
    const one = await gatewayOf(rig, 'g1', deny);
    const two = await gatewayOf(rig, 'g2', deny);
    const { epoch } = await granted(one.bridge);
    await one.bridge.stop();
    const login = await granted(two.bridge);
    expect(login.epoch).toBeGreaterThan(epoch);
    expect(await login.takenFrom).toBeNull();
  });

  test('a gateway that came up a moment ago is not taken for a dead one', async () => {
    const rig = await startBridgeRig();
    const one = await gatewayOf(rig, 'g1', deny);
    await granted(await gatewayOf(rig, 'g2', deny).then(({ bridge }) => bridge), stranger);
    // The directory is read here, and held for a while.
    expect(reasonOf(await one.bridge.login(stranger, 'bkv', gone))).toBe('taken');
    const three = await gatewayOf(rig, 'g3', deny);
    await granted(three.bridge);
    expect(reasonOf(await one.bridge.login(device, 'bkv', gone))).toBe('taken');
  });

  test('of this gateway only a session that stands counts', async () => {
    const rig = await startBridgeRig();
    const { bridge } = await gatewayOf(rig, 'g1', deny);
    await granted(bridge);
    expect(reasonOf(await bridge.login(device, 'bkv', here))).toBe('taken');
    expect(reasonOf(await bridge.login(device, 'bkv', gone))).toBe('granted');
  });

  test('of two logins on one gateway at once one is let in', async () => {
    const rig = await startBridgeRig();
    const { bridge } = await gatewayOf(rig, 'g1', deny);
    let stands = false;
    const ask = async () => {
      const login = await bridge.login(device, 'bkv', () => stands);
      // As a session does it: some promises later than the answer.
      for (let i = 0; i < 5; i += 1) await null;
      if (login.granted) stands = true;
      return reasonOf(login);
    };
    expect((await Promise.all([ask(), ask(), ask()])).toSorted()).toEqual([
      'granted',
      'taken',
      'taken',
    ]);
  });

  test('who replaces a dead holder is compared by its epoch, so that only one does', async () => {
    const rig = await startBridgeRig();
    const dead = await gatewayOf(rig, 'g0', deny);
    await granted(dead.bridge);
    await dead.bridge.stop();
    const two = await Promise.all(['g1', 'g2'].map((id) => gatewayOf(rig, id, deny)));
    const logins = await Promise.all(two.map(({ bridge }) => bridge.login(device, 'bkv', gone)));
    expect(logins.map(reasonOf).toSorted()).toEqual(['granted', 'taken']);
  });
});

describe('a takeover', () => {
  test('names the session that it was taken from, if that lived', async () => {
    const rig = await startBridgeRig();
    const one = await gatewayOf(rig, 'g1');
    const two = await gatewayOf(rig, 'g2');
    const { epoch, takenFrom } = await granted(one.bridge);
    expect(takenFrom).toBeUndefined();
    const login = await granted(two.bridge);
    expect(await login.takenFrom).toEqual({ gatewayId: 'g1', epoch });
    await eventually(() => expect(one.evicted).toMatchObject([{ deviceId: device }]));
    expect((await granted(two.bridge)).takenFrom).toBeUndefined();
  });

  test('costs the login of an open gateway nothing: the same script as before', async () => {
    const rig = await startBridgeRig();
    const { bridge } = await gatewayOf(rig, 'g1');
    const done = await rig.watch();
    await granted(bridge);
    await eventually(() => expect(done.some(({ name }) => name === 'hset')).toBe(true));
    const asked = done.filter(({ by }) => by === 'script').map(({ name }) => name);
    expect(asked.filter((name) => name === 'sismember' || name === 'exists')).toEqual([]);
  });
});

describe('where only known devices may log in', () => {
  const onlyKnown = { admission: 'known' } as const;

  async function withCopy(ids: string[] = [device]) {
    const rig = await startBridgeRig();
    const known = createKnownDevices({ redis: rig.redis, keys: rig.keys });
    await known.begin();
    await known.add(ids);
    await known.finish();
    return { rig, known };
  }

  test('a device of the copy is let in, and a stranger is not', async () => {
    const { rig } = await withCopy();
    const { bridge } = await gatewayOf(rig, 'g1', onlyKnown);
    await granted(bridge);
    expect(reasonOf(await bridge.login(stranger, 'bkv', gone))).toBe('not-known');
    expect(await rig.redis.exists(rig.keys.presence(stranger))).toBe(0);
    expect([bridge.vouchesFor(device), bridge.vouchesFor(stranger)]).toEqual([true, false]);
  });

  test('without a whole copy a stranger is not told from others, and who is in it comes in', async () => {
    const rig = await startBridgeRig();
    const known = createKnownDevices({ redis: rig.redis, keys: rig.keys });
    const { bridge } = await gatewayOf(rig, 'g1', onlyKnown);
    await known.add([device]);
    await granted(bridge);
    await expect(bridge.login(stranger, 'bkv', gone)).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
    });
    await known.begin();
    await known.finish();
    expect(reasonOf(await bridge.login(stranger, 'bkv', gone))).toBe('not-known');
  });

  test('a copy whose beginning Redis forgot is not called whole', async () => {
    const { rig, known } = await withCopy();
    await known.begin();
    await rig.redis.del(await rig.redis.keys(`*${rig.prefix}*`));
    await expect(known.finish()).rejects.toThrow('copied again');
    const { bridge } = await gatewayOf(rig, 'g1', onlyKnown);
    await expect(bridge.login(device, 'bkv', gone)).rejects.toThrow('no whole copy');
  });

  test('a cleared copy lets nobody be called a stranger', async () => {
    const { rig, known } = await withCopy();
    await known.clear();
    expect(await rig.redis.keys(`*${rig.prefix}*known*`)).toEqual([]);
  });

  test('an expelled device loses presence, session and whoever vouches for it', async () => {
    const { rig } = await withCopy();
    const one = await gatewayOf(rig, 'g1', onlyKnown);
    const two = await gatewayOf(rig, 'g2', onlyKnown);
    await granted(two.bridge);
    const { epoch } = await granted(one.bridge);
    const outbox = createOutbox({ redis: rig.redis, from: 'api' });
    const expel = createExpel({ redis: rig.redis, keys: rig.keys, outbox });
    expect(await expel(device)).toBe(true);
    const evict = { t: 'evict', deviceId: device, epoch: epoch + 1, removed: true };
    await eventually(() => {
      expect(one.evicted.at(-1)).toEqual(evict);
      expect(two.evicted.at(-1)).toEqual(evict);
    });
    expect([one, two].map(({ bridge }) => bridge.vouchesFor(device))).toEqual([false, false]);
    expect(await rig.redis.exists(rig.keys.presence(device))).toBe(0);
    expect(reasonOf(await one.bridge.login(device, 'bkv', gone))).toBe('not-known');
    expect(await expel(device)).toBe(false);
  });

  test('a session of a device that was removed unheard is not registered again', async () => {
    const { rig } = await withCopy();
    const sessions: { deviceId: string; protocol: string; epoch: number }[] = [];
    const one = await gatewayOf(rig, 'g1', { ...onlyKnown, leaseMs: 400 }, () => sessions);
    const { epoch } = await granted(one.bridge);
    sessions.push({ deviceId: device, protocol: 'bkv', epoch });
    const shard = rig.keys.shardOf(device);
    await rig.redis.srem(rig.keys.knownDevices(shard), device);
    await rig.redis.del(rig.keys.presence(device));
    await rig.redis.hdel(rig.keys.gateways(), 'g1');
    await eventually(() =>
      expect(one.evicted).toContainEqual({
        t: 'evict',
        deviceId: device,
        epoch: epoch + 1,
        removed: true,
      }),
    );
    expect(await rig.redis.exists(rig.keys.presence(device))).toBe(0);
  });
});
