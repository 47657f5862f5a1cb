/** A Redis that comes back without its memory: the ledger and the gateways know what it has forgotten. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { type RemoteFleet, startRemoteFleet } from '../../src/simulator/remote.ts';
import { eventually } from '../support/eventually.ts';
import { type FaultyStack, startFaultyStack } from '../support/stack.ts';

const absent = '82200520004869';

let stack: FaultyStack;
let fleet: RemoteFleet;

beforeAll(async () => {
  stack = await startFaultyStack();
  fleet = await startRemoteFleet({ ...stack.tcp, devices: 4 });
});

afterAll(async () => {
  await fleet?.stop();
  await stack?.stop();
});

test('after a flush, connected devices are found again and waiting commands come back', {
  timeout: 60_000,
}, async () => {
  await stack.api.request('PUT', `/v1/devices/${absent}`, {});
  const query = { command: 'port.query', params: { socket: 1 } };
  const waiting = await stack.api.send({ deviceId: absent, ...query });
  await eventually(async () => expect((await stack.api.command(waiting.id)).status).toBe('parked'));

  const client = connectRedis({ url: stack.redisUrl, purpose: 'blocking', name: 'forget' });
  await client.flushall();
  await closeRedis(client);

  // Nobody has logged in again: the gateway says by itself who is there.
  await eventually(
    async () => {
      const { body } = await stack.api.request('GET', '/v1/devices?online=true');
      expect(body['items']).toHaveLength(4);
    },
    { withinMs: 8_000 },
  );
  for (const deviceId of fleet.deviceIds) {
    const params = deviceId.length === 14 ? { socket: 1 } : {};
    const { status } = await stack.api.send({ deviceId, command: 'port.query', params }, 10_000);
    expect(status).toBe('succeeded');
  }
  // The ledger is what remembers the command that was parked.
  await eventually(
    async () => {
      const { waiting: count } = await stack.api.counts();
      expect(count).toBe(1);
      expect((await stack.api.command(waiting.id)).status).toBe('parked');
    },
    { withinMs: 20_000, everyMs: 200 },
  );
  await eventually(
    async () => {
      const cancelled = await stack.api.request('DELETE', `/v1/commands/${waiting.id}`);
      expect(cancelled.status).toBe(200);
    },
    { withinMs: 5_000 },
  );
});
