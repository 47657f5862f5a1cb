/** Who keeps a device id, between connections and between gateways, on a real Redis. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Report } from '../../src/bridge/gateway-bridge.ts';
import { createKeys, type Keys } from '../../src/bridge/keys.ts';
import { createExpel, createKnownDevices } from '../../src/bridge/known-devices.ts';
import { createOutbox } from '../../src/bridge/outbox.ts';
import { createGatewayBridge } from '../../src/bridge/redis-gateway-bridge.ts';
import { type BridgeScripts, withBridgeScripts } from '../../src/bridge/scripts.ts';
import {
  closeRedis,
  connectRedis,
  type Redis,
  type RedisPurpose,
} from '../../src/connections/redis.ts';
import { createGateway, type Gateway } from '../../src/gateway/gateway.ts';
import type { GatewayOptions } from '../../src/gateway/options.ts';
import { createLog } from '../../src/log/log.ts';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { eventually } from '../support/eventually.ts';
import { freshRedis } from '../support/stores.ts';
import { connectDevice, type Device, dtu, frames, socketA, socketB } from './rig.ts';

const log = createLog({ level: 'silent', role: 'test' });
const stranger = '82200520004870';

let url: string;
let keys: Keys;
let redis: Redis;
let closers: (() => unknown)[] = [];

beforeEach(async () => {
  const fresh = await freshRedis();
  url = fresh.url;
  keys = createKeys(fresh.prefix, 2);
  redis = client('commands');
});

afterEach(async () => {
  for (const close of closers.reverse()) await close();
  closers = [];
});

function client(purpose: RedisPurpose): Redis {
  const made = connectRedis({ url, purpose, name: 'test', onError: () => undefined });
  closers.push(() => closeRedis(made));
  return made;
}

type Rules = {
  takeover?: 'newest' | 'deny';
  admission?: 'open' | 'known';
  options?: Partial<GatewayOptions>;
  places?: number;
};

type Site = {
  gateway: Gateway;
  addr: string;
  commands: Redis & BridgeScripts;
  device(): Promise<Device>;
};

async function site(gatewayId: string, rules: Rules = {}): Promise<Site> {
  const { takeover = 'newest', admission = 'open', options, places } = rules;
  const commands = withBridgeScripts(client('commands'));
  const bridge = createGatewayBridge({
    gatewayId,
    redis: commands,
    subscriber: client('subscriber'),
    keys,
    log,
    takeover,
    admission,
  });
  const gateway = createGateway({
    bridge,
    protocols: [bkv, ap3000],
    addr: '127.0.0.1:0',
    options: { takeover, ...options },
    ...(places !== undefined && { admission: { maxConnections: places } }),
    log,
  });
  const { tcp: addr } = await gateway.start();
  closers.push(() => gateway.stop());
  const device = async () => {
    const made = await connectDevice(addr);
    closers.push(() => made.socket.destroy());
    return made;
  };
  return { gateway, addr, commands, device };
}

async function connected({ device }: Site, deviceId = dtu): Promise<Device> {
  const made = await device();
  made.send(frames.heartbeat(deviceId));
  await made.hears('heartbeat.reply');
  return made;
}

async function refused(at: Site, deviceId = dtu): Promise<string> {
  const made = await at.device();
  const address = addressOf(made);
  made.send(frames.heartbeat(deviceId), frames.chargeEnd(deviceId));
  await eventually(() => expect(made.isClosed()).toBe(true));
  expect(made.heard).toEqual([]);
  return address;
}

async function told(...names: string[]): Promise<Report[]> {
  const entries = await redis.xrange(keys.uplink(), '-', '+');
  return entries
    .map(([, fields]) => JSON.parse(fields[1]!) as Report)
    .filter(({ name }) => names.includes(name));
}

/** Nothing is left to ask a socket for once it is closed. */
const addressOf = ({ socket }: Device) => `${socket.localAddress}:${socket.localPort}`;
const presenceOf = (deviceId = dtu) => redis.hgetall(keys.presence(deviceId));

describe('where the newest login wins', () => {
  test('a takeover on one gateway is told once, with both sessions', async () => {
    const one = await site('g1');
    const old = await connected(one);
    const { epoch: fromEpoch } = await presenceOf();
    const fresh = await connected(one);
    await eventually(() => expect(old.isClosed()).toBe(true));
    const { epoch } = await presenceOf();
    await eventually(async () => expect(await told('session.takenOver')).toHaveLength(1));
    expect((await told('session.takenOver'))[0]).toMatchObject({
      deviceId: dtu,
      weight: 'state',
      fields: {
        fromGatewayId: 'g1',
        fromEpoch: Number(fromEpoch),
        gatewayId: 'g1',
        epoch: Number(epoch),
        remote: addressOf(fresh),
      },
    });
    expect(one.gateway.counts.takeovers).toBe(1);
  });

  test('a takeover from another gateway is told once, by the winner', async () => {
    const [one, two] = [await site('g1'), await site('g2')];
    const old = await connected(one);
    const { epoch: fromEpoch } = await presenceOf();
    const fresh = await connected(two);
    await eventually(() => expect(old.isClosed()).toBe(true));
    await eventually(async () =>
      expect(await told('session.takenOver')).toMatchObject([
        {
          fields: {
            fromGatewayId: 'g1',
            fromEpoch: Number(fromEpoch),
            gatewayId: 'g2',
            remote: addressOf(fresh),
          },
        },
      ]),
    );
    expect([one, two].map(({ gateway }) => gateway.counts.takeovers)).toEqual([0, 1]);
    expect(one.gateway.counts.closed['taken-over']).toBe(1);
  });

  test('a device that comes back after its connection ended takes nothing over', async () => {
    const [one, two] = [await site('g1'), await site('g2')];
    for (const at of [one, one, two]) {
      const device = await connected(at);
      device.socket.destroy();
      await eventually(async () => expect(await presenceOf()).toEqual({}));
    }
    await connected(one);
    await eventually(async () => expect(await told('session.opened')).toHaveLength(4));
    expect(await told('session.takenOver')).toEqual([]);
    expect([one, two].map(({ gateway }) => gateway.counts.takeovers)).toEqual([0, 0]);
  });
});

describe('at the connection limit', () => {
  test('a device gets the place of its own old connection, and that is a takeover', async () => {
    const one = await site('g1', { places: 2 });
    const old = await connected(one);
    const { epoch: fromEpoch } = await presenceOf();
    const neighbour = await connected(one, stranger);
    const fresh = await connected(one);
    await eventually(() => expect(old.isClosed()).toBe(true));
    expect(neighbour.isClosed()).toBe(false);
    await eventually(async () =>
      expect(await told('session.takenOver')).toMatchObject([
        { fields: { fromGatewayId: 'g1', fromEpoch: Number(fromEpoch), gatewayId: 'g1' } },
      ]),
    );
    expect(one.gateway.counts.takeovers).toBe(1);
    expect(await presenceOf()).toMatchObject({ gatewayId: 'g1' });
    expect(fresh.isClosed()).toBe(false);
  });

  test('where takeovers are denied the old connection keeps its place', async () => {
    const one = await site('g1', { places: 1, takeover: 'deny' });
    const old = await connected(one);
    const waiting = await one.device();
    waiting.send(frames.heartbeat());
    old.send(frames.heartbeat());
    await old.hears('heartbeat.reply', 2);
    expect(one.gateway.load()).toMatchObject({ connections: 1, sessions: 1 });
    expect(waiting.heard).toEqual([]);
  });
});

describe('where takeovers are denied', () => {
  const deny = { takeover: 'deny' } as const;

  test.each([
    ['the same gateway', 'g1'],
    ['another gateway', 'g2'],
  ])('a second login through %s is closed unheard, and the first goes on', async (_name, at) => {
    const sites = { g1: await site('g1', deny), g2: await site('g2', deny) };
    const first = await connected(sites.g1);
    const held = await presenceOf();
    const where = sites[at as 'g1' | 'g2'];
    const second = await refused(where);
    expect(await presenceOf()).toEqual(held);
    first.send(frames.heartbeat());
    await first.hears('heartbeat.reply', 2);
    await eventually(async () =>
      expect(await told('session.denied')).toMatchObject([
        {
          deviceId: dtu,
          weight: 'state',
          fields: { reason: 'taken', holderGatewayId: 'g1', remote: second },
        },
      ]),
    );
    expect(await told('charge.end', 'session.takenOver')).toEqual([]);
    const { counts } = where.gateway;
    expect([counts.closed.taken, counts.loginFailures.taken]).toEqual([1, 1]);
    expect(counts.takeovers).toBe(0);
  });

  test('behind a host only the session that is taken ends, and its neighbours are served', async () => {
    const one = await site('g1', deny);
    const holder = await connectDevice(one.addr, ap3000);
    closers.push(() => holder.socket.destroy());
    holder.send(frames.heartbeat21(socketA, 1));
    await holder.hears('heartbeat.reply');
    const host = await connectDevice(one.addr, ap3000);
    closers.push(() => host.socket.destroy());
    host.send(frames.heartbeat21(socketB, 1));
    await host.hears('heartbeat.reply');
    host.send(frames.heartbeat21(socketA, 2));
    await eventually(() => expect(one.gateway.counts.loginFailures.taken).toBe(1));
    host.send(frames.heartbeat21(socketA, 3), frames.heartbeat21(socketB, 4));
    await host.hears('heartbeat.reply', 2);
    expect(host.heard.map(({ deviceId }) => deviceId)).toEqual([socketB, socketB]);
    holder.send(frames.heartbeat21(socketA, 5));
    await holder.hears('heartbeat.reply', 2);
  });

  test('the id is free as soon as its session has ended', async () => {
    const one = await site('g1', deny);
    const first = await connected(one);
    first.socket.destroy();
    await eventually(() => expect(one.gateway.load().sessions).toBe(0));
    await connected(one);
  });

  test('a gateway that stopped without a word holds nobody up once its lease is over', async () => {
    const [dead, one] = [await site('g0', deny), await site('g1', deny)];
    await connected(dead);
    const held = await presenceOf();
    await dead.gateway.stop();
    // As a crash leaves it: the presence stands, the lease does not.
    await redis.hset(keys.presence(dtu), held);
    await connected(one);
    expect(await presenceOf()).toMatchObject({ gatewayId: 'g1' });
    expect(await told('session.takenOver')).toEqual([]);
  });
});

describe('where only known devices may log in', () => {
  const known = { admission: 'known', options: { slowLoginMs: 300, loginRetryMs: 100 } } as const;

  async function copy(...ids: string[]): Promise<void> {
    const copied = createKnownDevices({ redis, keys });
    await copied.begin();
    await copied.add(ids);
    await copied.finish();
  }

  test('a stranger is closed, and nothing that it said is stored or answered', async () => {
    await copy(dtu);
    const one = await site('g1', known);
    await connected(one);
    await refused(one, stranger);
    await eventually(async () => expect(await told('session.denied')).toHaveLength(1));
    const reports = await told('session.denied', 'heartbeat', 'charge.end', 'session.opened');
    const ofStranger = reports.filter(({ deviceId }) => deviceId === stranger);
    expect(ofStranger).toMatchObject([{ fields: { reason: 'not-known' } }]);
    expect(await presenceOf(stranger)).toEqual({});
    const { counts } = one.gateway;
    expect([counts.closed['not-known'], counts.loginFailures['not-known']]).toEqual([1, 1]);
  });

  test('while nobody can tell a stranger is held, then closed without a word', async () => {
    const one = await site('g1', known);
    const startedAt = performance.now();
    await refused(one, stranger);
    expect(performance.now() - startedAt).toBeGreaterThan(250);
    expect(one.gateway.counts.closed['not-vouched']).toBe(1);
    expect(await told('session.denied', 'heartbeat', 'charge.end')).toEqual([]);
  });

  test('who is held is let in as soon as it turns out to be known', async () => {
    const one = await site('g1', { admission: 'known', options: { slowLoginMs: 8_000 } });
    const waiting = await one.device();
    waiting.send(frames.heartbeat(stranger));
    await eventually(() => expect(one.gateway.counts.logins.failed).toBeGreaterThan(0));
    await copy(stranger);
    await waiting.hears('heartbeat.reply');
    expect(await presenceOf(stranger)).toMatchObject({ gatewayId: 'g1' });
  });

  test('a device that was let in before is served while Redis is away, and a stranger is not', async () => {
    await copy(dtu);
    const one = await site('g1', known);
    const device = await connected(one);
    device.socket.destroy();
    await eventually(() => expect(one.gateway.load().connections).toBe(0));
    one.commands.dlLoginGuarded = () => Promise.reject(new Error('redis is away'));
    await connected(one);
    await refused(one, stranger);
    expect(one.gateway.counts.closed['not-vouched']).toBe(1);
    expect(one.gateway.counts.loginFailures['not-known']).toBe(0);
  });

  test('a device that is removed loses its session and is refused from then on', async () => {
    await copy(dtu);
    const one = await site('g1', known);
    const device = await connected(one);
    const expel = createExpel({ redis, keys, outbox: createOutbox({ redis, from: 'api' }) });
    await expel(dtu);
    await eventually(() => expect(device.isClosed()).toBe(true));
    await refused(one);
    // Not even its end is told: whatever is told of a device makes it known.
    expect(await told('session.closed')).toEqual([]);
    expect(one.gateway.counts.takeovers).toBe(0);
  });
});
