/** What a command's time promises: nothing is written after it, wherever the command stands by then. */
import { expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { plainSite } from './site.ts';
import { startWorkerRig } from './worker-rig.ts';

const site = plainSite();

test('past its time a command is not sent, though the ledger is away', async () => {
  const away = () => Promise.reject(new Error('the ledger is away'));
  const rig = await startWorkerRig({
    asSeen: (ledger) => ({ ...ledger, write: away, find: away, findMany: away, overdue: away }),
  });
  const late = await rig.accept({ deadline: Date.now() + 50 });
  const timely = await rig.accept();
  await eventually(() => expect(Date.now()).toBeGreaterThan(late.deadline));
  await rig.start();
  await eventually(() => expect(rig.heard.map(({ id }) => id)).toEqual([timely.id]));
  // Reported by and by: what stands in for the ledger has it, or has passed it on.
  await eventually(async () => expect(await rig.stateOf(late)).toBe('completed'));
  expect(rig.heard.map(({ id }) => id)).toEqual([timely.id]);
});

test('a command whose time ends in the lane is never written and ends as expired', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const first = await site.query(deviceId, 1);
  const frame = await device.frame();
  const { id } = await site.query(deviceId, 2, { ttlMs: 2_500, ackTimeoutMs: 100 });
  await site.because(id, 'in-lane');
  const ended = await site.withStatus(id, 'expired');
  expect(ended).toMatchObject({ code: 'EXPIRED', attempts: [{ writtenAt: null }] });
  device.accept(frame);
  await site.withStatus(first.id, 'succeeded');
  expect(await device.heardAll()).toEqual([]);
});

test('a retry does not outlive its time: no frame follows the deadline', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const more = { ttlMs: 1_500, ackTimeoutMs: 150, attempts: 10, backoffMs: 100 };
  const { id, deadline } = await site.query(deviceId, 1, more);
  const { attempts } = await site.withStatus(id, 'unknown');
  expect(attempts.length).toBeGreaterThan(1);
  expect(attempts.length).toBeLessThan(10);
  const last = Date.parse(attempts.at(-1)!.writtenAt!);
  expect(last).toBeLessThan(Date.parse(deadline));
  expect(await device.heardAll()).toHaveLength(attempts.length);
});

test('the time to live counts from the moment at which the command may be sent', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const { id, acceptedAt, deadline } = await site.query(deviceId, 1, {
    delayMs: 1_200,
    ttlMs: 1_000,
  });
  expect(Date.parse(deadline) - Date.parse(acceptedAt)).toBe(2_200);
  device.accept(await device.frame());
  await site.withStatus(id, 'succeeded');
});
