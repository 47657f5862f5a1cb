/** The durability promise: what accept does in which order, and what survives which store. */
import { v7 as uuidV7 } from 'uuid';
import { expect, test } from 'vitest';
import { createAccept } from '../../queues/accept.ts';
import { protocols } from '../../src/protocols/index.ts';
import { bkvId, freshWorld, startBody } from '../queues/accept-fixture.ts';
import { startFaultyStack } from '../support/stack.ts';
import { askedSocket, siteForFile } from './site.ts';

const site = siteForFile(() => startFaultyStack());

const sendTo = async (deviceId: string, command: string, params: object, more: object = {}) => {
  const body = { deviceId, command, params, ...more };
  const answer = await site.stack().api.request('POST', '/v1/commands', body);
  expect(answer.status, JSON.stringify(answer.body)).toBe(202);
  return answer.body;
};

test('accept is validate, claim, join, and only then ledger and queue', async () => {
  const world = await freshWorld();
  const steps: string[] = [];
  const { ledger, outbound, routes, withdrawals, log } = world;
  const accept = createAccept({
    ledger: {
      ...ledger,
      claim(...given) {
        steps.push('claim');
        return ledger.claim(...given);
      },
    },
    outbound: {
      ...outbound,
      enqueue(entry) {
        steps.push('enqueue');
        return outbound.enqueue(entry);
      },
    },
    routes: {
      ...routes,
      async join(request) {
        const joined = await routes.join(request);
        steps.push('join');
        return joined;
      },
    },
    withdrawals,
    caps: { maxPerKey: 50, maxPerDevice: 500 },
    devices: {
      async find() {
        steps.push('validate');
        return { protocol: 'bkv' };
      },
    },
    presence: { find: async () => null },
    protocols,
    log,
    newId: () => uuidV7(),
  });
  const request = { body: startBody(), apiKey: 'app', idempotencyKey: 'key-1' };
  const { record, durability } = await accept(request);
  expect(steps).toEqual(['validate', 'claim', 'join', 'enqueue']);
  expect(durability).toBe('both');
  const standing = await routes.inspect(bkvId, record.id, `t:${record.orderKey}`);
  expect(standing.seq).toBeGreaterThan(0);
  // One that does not pass the first step goes through none of the others.
  const faulty = accept({ ...request, body: startBody({ params: {} }) });
  await expect(faulty).rejects.toMatchObject({ code: 'INVALID_PARAMS' });
  expect(steps).toEqual(['validate', 'claim', 'join', 'enqueue', 'validate']);
});

test('while the ledger is down the queue has the whole command, and the row follows', async () => {
  const { api, postgres } = site.stack();
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  await site.withStatus((await site.query(deviceId, 1)).id, 'sent');
  device.accept(await device.frame());
  await postgres.server.kill('SIGKILL');
  const labels = { order: 'A-1' };
  const sent = await sendTo(deviceId, 'port.query', { socket: 2 }, { labels });
  expect(sent).toMatchObject({ durability: 'queue' });
  const frame = await device.frame();
  expect(askedSocket(frame)).toBe(2);
  device.accept(frame);
  await postgres.server.start();
  const shown = await site.withStatus(sent['id'], 'succeeded', 15_000);
  expect(shown).toMatchObject({ attempts: [{ outcome: 'acked' }], labels });
  expect(await api.list({ deviceId })).toHaveLength(2);
});

test('while the queue store is down the ledger has it, and it is enqueued in acceptance order when the store is back', {
  timeout: 40_000,
}, async () => {
  const { redis } = site.stack();
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  await redis.server.kill('SIGKILL');
  const sent: string[] = [];
  for (const socket of [3, 1, 2]) {
    const more = { orderKey: 'mine', priority: socket };
    const accepted = await sendTo(deviceId, 'port.query', { socket }, more);
    expect(accepted).toMatchObject({ durability: 'ledger' });
    sent.push(accepted['id']);
  }
  await redis.server.start();
  const asked: number[] = [];
  while (asked.length < 3) {
    const frame = await device.frame(20_000);
    asked.push(askedSocket(frame));
    device.accept(frame);
  }
  expect(asked).toEqual([3, 1, 2]);
  for (const id of sent) await site.withStatus(id, 'succeeded');
});
