/** Both ends of the bridge on a real Redis, and an ear on everything that is said and done there. */
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { expect, onTestFinished } from 'vitest';
import type { GatewayBridge, GatewayHandlers } from '../../src/bridge/gateway-bridge.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import type { Delivery } from '../../src/bridge/messages.ts';
import {
  createGatewayBridge,
  type GatewayBridgeDeps,
} from '../../src/bridge/redis-gateway-bridge.ts';
import { createRoutes } from '../../src/bridge/routes.ts';
import type { Route, RouteRequest } from '../../src/bridge/routes-contract.ts';
import { createWorkerBridge, type WorkerBridgeDeps } from '../../src/bridge/worker-bridge.ts';
import {
  closeRedis,
  connectRedis,
  type Redis,
  type RedisPurpose,
} from '../../src/connections/redis.ts';
import { quietLog as log } from '../store/fixture.ts';
import { freshRedis } from '../support/stores.ts';

export const deviceId = '82200520004869';
export const deaf = { lined: () => undefined, written: () => undefined };

export type Go = Extract<Route, { kind: 'go' }>;

/** A batch as it went over a channel. */
export type Heard = { channel: string; types: string[] };

export type BridgeRig = Awaited<ReturnType<typeof startBridgeRig>>;

/** Everything is closed when the test ends. `at`: another way to the same Redis. */
export async function startBridgeRig({ shards = 4, at }: { shards?: number; at?: string } = {}) {
  const { url, prefix } = await freshRedis();
  const keys = createKeys(prefix, shards);

  async function client(purpose: RedisPurpose): Promise<Redis> {
    const name = `promises-${purpose}`;
    const redis = connectRedis({ url: at ?? url, purpose, name, onError: () => undefined });
    onTestFinished(() => closeRedis(redis));
    await redis.ping();
    return redis;
  }
  const redis = await client('commands');
  const routes = createRoutes({ redis, keys, log });

  return {
    url,
    prefix,
    keys,
    redis,
    routes,
    client,
    /** A gateway that answers nothing by itself. */
    async gateway(
      gatewayId: string,
      deps: Partial<GatewayBridgeDeps> & Partial<Pick<GatewayHandlers, 'sessions'>> = {},
    ) {
      const { sessions = () => [], ...given } = deps;
      const subscriber = await client('subscriber');
      const bridge = createGatewayBridge({
        gatewayId,
        redis: await client('commands'),
        subscriber,
        keys,
        log,
        ...given,
      });
      const heard: Delivery[] = [];
      await bridge.start({
        deliver: (delivery) => heard.push(delivery),
        withdraw: () => undefined,
        settled: () => undefined,
        remember: () => undefined,
        evict: () => undefined,
        sessions,
        load: () => ({ connections: 0, sessions: 0 }),
      });
      onTestFinished(() => bridge.stop());
      return { bridge, heard, subscriber };
    },
    async worker(workerId: string, given: Partial<WorkerBridgeDeps> = {}) {
      const bridge = createWorkerBridge({
        workerId,
        redis: await client('commands'),
        subscriber: await client('subscriber'),
        keys,
        log,
        onWake: () => undefined,
        onBack: () => undefined,
        onOrphan: () => undefined,
        ...given,
      });
      await bridge.start();
      onTestFinished(() => bridge.stop());
      return bridge;
    },
    async route(id: string, given: Partial<RouteRequest> = {}): Promise<Go> {
      const route = await routes.route({
        id,
        deviceId,
        line: null,
        priority: 5,
        attempt: 1,
        maxAttempt: 4,
        maxWireId: 0xffff,
        again: false,
        probing: false,
        ...given,
      });
      if (route.kind !== 'go') throw new Error(`${id} is routed as ${route.kind}`);
      return route;
    },
    /** The batches on all channels of this rig, beats among them. */
    async listen(): Promise<Heard[]> {
      const ear = await client('subscriber');
      const batches: Heard[] = [];
      ear.on('pmessage', (_pattern: string, channel: string, text: string) => {
        const { m } = JSON.parse(text) as { m: { t: string }[] };
        batches.push({ channel: channel.slice(prefix.length + 1), types: m.map(({ t }) => t) });
      });
      await ear.psubscribe(`${prefix}:*`);
      return batches;
    },
    watch: () => watchCommands(redis, prefix),
  };
}

export async function logIn(bridge: GatewayBridge, device = deviceId): Promise<number> {
  const login = await bridge.login(device, 'bkv');
  if (!login.granted) throw new Error(login.reason);
  return login.epoch;
}

export function deliveryOf(
  id: string,
  route: { wireId: number; attempt: number; epoch: number },
  given: Partial<Delivery> = {},
): Delivery {
  return {
    t: 'deliver',
    id,
    attempt: route.attempt,
    workerId: 'w1',
    deviceId,
    epoch: route.epoch,
    protocol: 'bkv',
    command: 'port.query',
    params: { socket: 1 },
    wireId: route.wireId,
    frame: 'fcff',
    priority: 5,
    deadline: Date.now() + 60_000,
    ackTimeoutMs: 10_000,
    ...given,
  };
}

/** What Redis did, in its order: what clients asked for, and what scripts did. */
export type Done = { by: 'client' | 'script'; name: string; args: readonly string[] };

/** Everything that names the prefix, from now on. Read as the server says it, line by line. */
export async function watchCommands({ options }: Redis, prefix: string): Promise<Done[]> {
  const { host, port, username, password } = options;
  const socket = connect({ host: host!, port: port! });
  onTestFinished(() => void socket.destroy());
  let unanswered = password ? 2 : 1;
  if (password) socket.write(`AUTH ${[username, password].filter(Boolean).join(' ')}\r\n`);
  socket.write('MONITOR\r\n');
  const lines = createInterface({ input: socket });
  const done: Done[] = [];
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    lines.on('line', (line) => {
      const [, source, text = ''] = /^\+[\d.]+ \[\d+ (\S+)\] (.*)$/.exec(line) ?? [];
      if (source === undefined) {
        if (line.startsWith('-')) reject(new Error(line));
        unanswered -= 1;
        if (unanswered === 0) resolve();
        return;
      }
      if (!text.includes(prefix)) return;
      const words = [...text.matchAll(/"((?:[^"\\]|\\.)*)"/g)];
      const [name = '', ...args] = words.map(([, word = '']) => word.replaceAll('\\"', '"'));
      done.push({ by: source === 'lua' ? 'script' : 'client', name: name.toLowerCase(), args });
    });
  });
  return done;
}

/** Each attempt once: a delivery without a receipt is published again after a second. */
export function distinct(heard: readonly Delivery[]): Delivery[] {
  return [...new Map(heard.map((each) => [`${each.id}#${each.attempt}`, each])).values()];
}

/** The one and only item. */
export function only<T>(items: readonly T[]): T {
  expect(items).toHaveLength(1);
  return items[0]!;
}
