/** What an attempt costs, what it leaves behind, and when another one follows. */
import { expect, test } from 'vitest';
import type { Delivery } from '../../src/bridge/messages.ts';
import { eventually } from '../support/eventually.ts';
import { plainSite, wireIdOf } from './site.ts';
import { acked, deviceId, startWorkerRig } from './worker-rig.ts';

// A gateway that was killed counts as gone a second later.
const site = plainSite({ env: { DOWNLINK_GATEWAY_LEASE_MS: '1000' } });

test('a retry reuses the wire message id', async () => {
  const id = await site.knownDevice();
  const device = await site.logIn(id);
  const sent = await site.query(id, 1, { ackTimeoutMs: 150, backoffMs: 0 });
  const [first, second] = [await device.frame(), await device.frame()];
  expect(second).toBe(first);
  device.accept(second);
  const { attempts } = await site.withStatus(sent.id, 'succeeded');
  expect(attempts.map(({ wireId }) => wireId)).toEqual([wireIdOf(first), wireIdOf(first)]);
  // It is the next command that gets the next one.
  await site.query(id, 2);
  expect(wireIdOf(await device.frame())).not.toBe(wireIdOf(first));
});

test('attempts leave a trail: when, through what, what went out, what came back, and after how long', async () => {
  const id = await site.knownDevice();
  const device = await site.logIn(id);
  const from = Date.now();
  const sent = await site.query(id, 1, { ackTimeoutMs: 200, backoffMs: 0 });
  const frame = await device.frame();
  device.accept(await device.frame());
  const { attempts } = await site.withStatus(sent.id, 'succeeded');
  const { body } = await site.stack().api.request('GET', `/v1/devices/${id}`);
  expect(attempts).toMatchObject([
    { attempt: 1, gatewayId: body['gatewayId'], frameOut: frame, frameIn: null, outcome: 'no-ack' },
    { attempt: 2, gatewayId: body['gatewayId'], frameOut: frame, outcome: 'acked' },
  ]);
  expect(attempts[0]?.ms).toBeGreaterThanOrEqual(200);
  expect(attempts[1]?.frameIn).toMatch(/^fcfe.*fcee$/);
  const times = attempts.map(({ writtenAt }) => Date.parse(writtenAt!));
  expect(times).toEqual(times.toSorted((a, b) => a - b));
  expect(times[0]).toBeGreaterThanOrEqual(from);
  expect(times[1]).toBeLessThanOrEqual(Date.now());
});

test('a published delivery without a receipt appears as possibly written', async () => {
  const rig = await startWorkerRig();
  await rig.start();
  const { id } = await rig.accept();
  await eventually(() => expect(rig.heard).toHaveLength(1));
  await eventually(async () => {
    const row = await rig.ledger.find(id);
    expect(row?.trail).toMatchObject({
      1: { frameOut: rig.heard[0]?.frame, writtenAt: null, outcome: null },
    });
  });
});

test('what is surely unwritten parks and spends no attempt', async () => {
  const refusals = ['lane-full', 'stale-epoch', 'socket-closed', 'draining', 'offline'] as const;
  const rig = await startWorkerRig({
    play(delivery, gateway) {
      const reason = refusals[rig.heard.length - 1];
      gateway.ended(delivery, reason ? { kind: 'unwritten', reason } : acked());
      // As a session does that stands anew or has room again.
      if (reason) void gateway.login(deviceId, 'bkv');
    },
  });
  await rig.start();
  const { id } = await rig.accept({ attempts: 1 });
  await eventually(async () => {
    await rig.gateway.login(deviceId, 'bkv');
    expect(await rig.ledger.find(id)).toMatchObject({ status: 'succeeded' });
  });
  expect(rig.heard.map(({ attempt }) => attempt)).toEqual([1, 1, 1, 1, 1, 1]);
});

test('an ambiguous end is followed by another attempt after its backoff, while attempts last', async () => {
  const at: number[] = [];
  const rig = await startWorkerRig({
    play(delivery, gateway) {
      at.push(Date.now());
      const now = Date.now();
      const ambiguous = { kind: 'ambiguous', reason: 'no-ack', writtenAt: now, endedAt: now };
      gateway.ended(delivery, ambiguous as Parameters<typeof gateway.ended>[1]);
    },
  });
  await rig.start();
  const { id } = await rig.accept({ attempts: 3, backoffMs: 100 });
  await eventually(async () =>
    expect(await rig.ledger.find(id)).toMatchObject({ status: 'unknown', code: 'NO_ACK' }),
  );
  expect(rig.heard.map(({ attempt }: Delivery) => attempt)).toEqual([1, 2, 3]);
  expect(at[1]! - at[0]!).toBeGreaterThanOrEqual(100);
  expect(at[2]! - at[1]!).toBeGreaterThanOrEqual(200);
});

// Last, since it takes the gateway away.
test('a crash may send a frame twice, never silently: the wire id is the same and the trail shows both', async () => {
  const id = await site.knownDevice();
  const before = await site.logIn(id);
  const sent = await site.query(id, 1, { backoffMs: 0 });
  const frame = await before.frame();
  await site.withStatus(sent.id, 'sent');
  await site.stack().restart('gateway');
  const device = await site.logIn(id);
  const again = await device.frame(15_000);
  expect(again).toBe(frame);
  device.accept(again);
  const { attempts } = await site.withStatus(sent.id, 'succeeded');
  expect(attempts).toMatchObject([
    { attempt: 1, wireId: wireIdOf(frame), frameOut: frame, outcome: 'gateway-lost' },
    { attempt: 2, wireId: wireIdOf(frame), frameOut: frame, outcome: 'acked' },
  ]);
});
