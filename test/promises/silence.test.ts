/** A bridge that hears nothing: both ends notice it by themselves, and say so. */
import { connect, createServer, type Socket } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { startRole } from '../../src/cli/role-process.ts';
import { eventually } from '../support/eventually.ts';
import { freshDatabase, freshRedis } from '../support/stores.ts';
import { deaf, deliveryOf, logIn, startBridgeRig } from './bridge-rig.ts';
import { acked } from './worker-rig.ts';

/** What gateways and workers call their subscribers. */
const saysSubscriber = /-subscriber|:bridge/;

/** The way to a Redis on which the words for subscribers can be lost, though their connections stand. */
async function startWay(url: string) {
  const { hostname, port, pathname } = new URL(url);
  const sockets = new Set<Socket>();
  /** Clients say their names first. */
  const subscribers = new Set<Socket>();
  const lost = new Set<Socket>();
  let losing = false;
  const server = createServer((client) => {
    const redis = connect({ host: hostname, port: Number(port) });
    for (const [one, other] of [
      [client, redis],
      [redis, client],
    ] as const) {
      sockets.add(one);
      one.on('error', () => undefined);
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
    }
    client.on('data', (bytes) => {
      if (saysSubscriber.test(bytes.toString('latin1'))) {
        subscribers.add(client);
        if (losing) lost.add(client);
      }
      redis.write(bytes);
    });
    redis.on('data', (bytes) => {
      if (!lost.has(client)) client.write(bytes);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  const address = server.address();
  if (typeof address !== 'object' || !address) throw new Error('no address');
  return {
    url: `redis://127.0.0.1:${address.port}${pathname}`,
    /** From now on the subscribers of this moment hear nothing. */
    deafen() {
      for (const socket of subscribers) lost.add(socket);
    },
    /** None that comes later does, either. */
    cut() {
      losing = true;
      this.deafen();
    },
    mend() {
      losing = false;
      for (const socket of lost) socket.destroy();
      lost.clear();
    },
  };
}

const adminAddr = '127.0.0.1:0';

/** A process of the role whose Redis is behind that way. */
async function startBehind(role: 'gateway' | 'worker') {
  const { url, prefix } = await freshRedis();
  const way = await startWay(url);
  const started = await startRole({
    role,
    env: {
      PATH: process.env['PATH'],
      DOWNLINK_CONFIG: '/dev/null',
      REDIS_URL: way.url,
      DATABASE_URL: (await freshDatabase()).url,
      DOWNLINK_REDIS_PREFIX: prefix,
      DOWNLINK_GATEWAY_LEASE_MS: '3000',
      TCP_ADDR: '127.0.0.1:0',
      GATEWAY_ADMIN_ADDR: adminAddr,
      WORKER_ADMIN_ADDR: adminAddr,
      LOG_LEVEL: 'silent',
    },
  });
  onTestFinished(() => started.end('SIGKILL'));
  const health = async () => {
    const answer = await fetch(`http://${started.ready.admin}/health/ready`);
    return { status: answer.status, text: await answer.text() };
  };
  return { way, health };
}

test('both ends heartbeat over the channel, and subscribe again by themselves', async () => {
  const { url } = await freshRedis();
  const way = await startWay(url);
  const rig = await startBridgeRig({ at: way.url });
  let skewMs = 0;
  const { bridge, heard } = await rig.gateway('g1', { leaseMs: 1_000 });
  const worker = await rig.worker('w1', { now: () => Date.now() + skewMs });
  await logIn(bridge);
  const route = await rig.route('c1');
  way.deafen();
  // Its own measure of silence is 6 s.
  skewMs = 6_000;
  expect(worker.alive()).toBe(false);
  await eventually(() => expect(bridge.alive()).toBe(false), { withinMs: 5_000, everyMs: 5 });
  await eventually(() => expect([bridge.alive(), worker.alive()]).toEqual([true, true]));
  const end = worker.deliver(deliveryOf('c1', route), route, deaf);
  await eventually(() => expect(heard.length).toBeGreaterThan(0));
  bridge.ended(heard[0]!, acked());
  expect(await end).toMatchObject({ kind: 'acked' });
});

test.each(['gateway', 'worker'] as const)(
  'a silent bridge shows in the health of a %s',
  {
    timeout: 40_000,
  },
  async (role) => {
    const { way, health } = await startBehind(role);
    expect(await health()).toMatchObject({ status: 200 });
    way.cut();
    const sick = await eventually(
      async () => {
        const answer = await health();
        expect(answer.status).toBe(503);
        return answer;
      },
      { withinMs: 15_000, everyMs: 100 },
    );
    expect(sick.text).toContain('silent');
    way.mend();
    await eventually(async () => expect((await health()).status).toBe(200), { withinMs: 15_000 });
  },
);
