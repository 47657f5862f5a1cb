import { afterEach, expect, test } from 'vitest';
import { createKeys } from '../../src/bridge/keys.ts';
import { loadConfig } from '../../src/config/config.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { type RunningGateway, startGateway } from '../../src/gateway/main.ts';
import { eventually } from '../support/eventually.ts';
import { freshRedis } from '../support/stores.ts';
import { connectDevice, dtu, frames } from './rig.ts';

let running: RunningGateway | undefined;
let redis: Redis | undefined;

afterEach(async () => {
  await running?.close();
  running = undefined;
  if (redis) await closeRedis(redis);
});

async function start() {
  const { url, prefix } = await freshRedis();
  redis = connectRedis({ url, purpose: 'commands', name: 'test' });
  const config = loadConfig({
    env: {
      DOWNLINK_CONFIG: '/dev/null',
      REDIS_URL: url,
      DOWNLINK_REDIS_PREFIX: prefix,
      TCP_ADDR: '127.0.0.1:0',
      GATEWAY_ADMIN_ADDR: '127.0.0.1:0',
      DOWNLINK_GATEWAY_ID: 'gw-main-test',
      DOWNLINK_GATEWAY_DRAIN_MS: '500',
      LOG_LEVEL: 'silent',
    },
  });
  running = await startGateway({ config });
  return { running, redis, keys: createKeys(prefix, config.outbound.shards) };
}

test('a gateway says where it listens, registers its devices, and leaves nothing behind', async () => {
  const { running: gateway, redis: store, keys } = await start();
  expect(gateway.ready).toMatchObject({ role: 'gateway', tcp: expect.stringMatching(/:\d+$/) });
  const ready = await fetch(`http://${gateway.ready.admin}/health/ready`);
  expect(await ready.json()).toMatchObject({ ready: true });

  const device = await connectDevice(gateway.ready.tcp);
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply');
  expect(await store.hget(keys.presence(dtu), 'gatewayId')).toMatch(/^gw-main-test\./);
  device.send(frames.chargeEnd());
  await device.hears('charge.end.ack');
  const entries = await store.xrange(keys.uplink(), '-', '+');
  const stored = entries.map(([, [, text]]) => JSON.parse(text!) as { name: string });
  expect(stored.map(({ name }) => name)).toContain('charge.end');
  await eventually(async () => {
    const metrics = await (await fetch(`http://${gateway.ready.admin}/metrics`)).text();
    expect(metrics).toContain(
      'gateway_frames_total{direction="in",protocol="bkv",command="heartbeat"} 1',
    );
    expect(metrics).toContain('tcp_connections_active 1');
    expect(metrics).toContain('gateway_flush_backlog 0');
  });

  await gateway.close();
  await eventually(() => expect(device.isClosed()).toBe(true));
  expect(await store.exists(keys.presence(dtu))).toBe(0);
  expect(await store.hlen(keys.gateways())).toBe(0);
});

test('a gateway without a Redis to talk to does not start, and says why', async () => {
  const config = loadConfig({ env: { DOWNLINK_CONFIG: '/dev/null', LOG_LEVEL: 'silent' } });
  await expect(startGateway({ config })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
});
