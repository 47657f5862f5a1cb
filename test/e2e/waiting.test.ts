/** Devices answer in seconds: a command that waits for its own must not hold up the others of its shard. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createFleet, type Fleet } from '../../src/simulator/fleet.ts';
import { eventually } from '../support/eventually.ts';
import { type Stack, startStack } from '../support/stack.ts';

/** More than one shard lets be on their way at once. */
const devices = 300;
const ackDelayMs = 6_000;

let stack: Stack;
let fleet: Fleet;

beforeAll(async () => {
  stack = await startStack({ env: { DOWNLINK_OUTBOUND_SHARDS: '1' } });
  fleet = createFleet({ ...stack.tcp, devices, mix: { bkv: 1 }, knobs: { ackDelayMs } });
  await fleet.start();
});

afterAll(async () => {
  await fleet?.stop();
  await stack?.stop();
});

test('all devices of a shard have their command before the first of them has answered', async () => {
  await eventually(async () => {
    const { body } = await stack.api.request('GET', '/v1/devices?online=true&limit=200');
    expect((body['items'] as unknown[]).length).toBe(200);
  });
  await stack.kill('worker', 'SIGTERM');
  await Promise.all(
    fleet.deviceIds.map((deviceId) =>
      stack.api.send({ deviceId, command: 'params.read', params: { socket: 1 }, ttlMs: 60_000 }),
    ),
  );
  await stack.restart('worker');
  await eventually(() => expect(fleet.log.frames()).toHaveLength(devices), { withinMs: 20_000 });
  const lastArrival = Math.max(...fleet.log.frames().map(({ at }) => at));
  await eventually(
    () => expect(fleet.log.frames().every(({ answeredAt }) => answeredAt !== null)).toBe(true),
    { withinMs: 20_000 },
  );
  const answers = fleet.log.frames().map(({ answeredAt }) => answeredAt ?? 0);
  expect(lastArrival).toBeLessThan(Math.min(...answers));
});
