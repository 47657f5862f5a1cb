/** What each status of a command promises. */
import { expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { isStop, plainSite } from './site.ts';

const site = plainSite();

test('a command that waits for its next attempt is queued', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const { id } = await site.query(deviceId, 1, { ackTimeoutMs: 150, backoffMs: 60_000 });
  await device.frame();
  const waiting = await eventually(async () => {
    const command = await site.stack().api.command(id);
    expect(command.attempts).toMatchObject([{ outcome: 'no-ack' }]);
    expect(command.reason).toContain('attempt 2 follows');
    return command;
  });
  expect(waiting).toMatchObject({ status: 'queued', final: false });
});

test('a late answer turns unknown into succeeded', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const { id } = await site.start(deviceId, { onAmbiguous: 'stop', ackTimeoutMs: 150 });
  const frame = await device.frame();
  expect(await site.withStatus(id, 'unknown')).toMatchObject({ final: true, code: 'NO_ACK' });
  device.accept(frame);
  const ended = await site.withStatus(id, 'succeeded');
  expect(ended).toMatchObject({ late: true, inferred: false, result: { businessNo: 104 } });
});

test('a late refusal turns unknown into rejected', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const { id } = await site.start(deviceId, { onAmbiguous: 'stop', ackTimeoutMs: 150 });
  const frame = await device.frame();
  await site.withStatus(id, 'unknown');
  device.refuse(frame);
  expect(await site.withStatus(id, 'rejected')).toMatchObject({ late: true, code: '0' });
});

test('a refused command is never retried', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const { id } = await site.stop(deviceId, { attempts: 4, backoffMs: 0 });
  device.refuse(await device.frame());
  expect((await site.withStatus(id, 'rejected')).attempts).toHaveLength(1);
  await eventually(async () => {
    expect(await site.stack().api.counts()).toMatchObject({ pending: 0 });
  });
  expect(await device.heardAll()).toEqual([]);
});

test('what ended as expired, cancelled or superseded was never written', async () => {
  const deviceId = await site.knownDevice();
  const expired = await site.query(deviceId, 1, { ttlMs: 1_000 });
  const cancelled = await site.query(deviceId, 2);
  const superseded = await site.start(deviceId);
  const stop = await site.stop(deviceId);
  expect((await site.cancel(cancelled.id)).status).toBe(200);
  const ends = await Promise.all([
    site.withStatus(expired.id, 'expired'),
    site.withStatus(cancelled.id, 'cancelled'),
    site.withStatus(superseded.id, 'superseded'),
  ]);
  expect(ends.map(({ attempts }) => attempts)).toEqual([[], [], []]);
  const device = await site.logIn(deviceId);
  const frame = await device.frame();
  expect(isStop(frame)).toBe(true);
  device.accept(frame);
  await site.withStatus(stop.id, 'succeeded');
  expect(await device.heardAll()).toEqual([]);
});

test('after a first write the end of its time makes a command unknown, with that reason', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const { id } = await site.query(deviceId, 1, { ttlMs: 3_000, backoffMs: 0 });
  await device.frame();
  await device.close();
  await site.withStatus(id, 'parked');
  expect((await site.cancel(id)).body).toMatchObject({ status: 409, code: 'ALREADY_SENT' });
  const ended = await site.withStatus(id, 'unknown');
  expect(ended).toMatchObject({ code: 'EXPIRED' });
  expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(ended.deadline));
  expect((await site.cancel(id)).body).toMatchObject({ status: 409, code: 'ALREADY_FINAL' });
});

test('a write is never called a delivery', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const { id } = await site.query(deviceId, 1);
  await device.frame();
  const sent = await site.withStatus(id, 'sent');
  const { body } = await site.stack().api.request('GET', `/v1/commands/${id}/explain`);
  expect(JSON.stringify([sent, body])).not.toMatch(/deliver/i);
});

test('only what ended as failed or unknown is dead', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const before = (await site.stack().api.counts()).dead;
  const file = { host: '192.0.2.1', port: 21, fileName: 'a.bin' };
  const unacknowledged = await site.post(deviceId, 'ota.start', file, {});
  await device.frame();
  await site.withStatus(unacknowledged.id, 'unacknowledged');
  const succeeded = await site.query(deviceId, 1);
  device.accept(await device.frame());
  await site.withStatus(succeeded.id, 'succeeded');
  const rejected = await site.stop(deviceId);
  device.refuse(await device.frame());
  await site.withStatus(rejected.id, 'rejected');
  const cancelled = await site.query(deviceId, 1, { delayMs: 60_000 });
  await site.cancel(cancelled.id);
  expect((await site.stack().api.counts()).dead).toBe(before);
  const unknown = await site.start(deviceId, { onAmbiguous: 'stop', ackTimeoutMs: 150 });
  await device.frame();
  await site.withStatus(unknown.id, 'unknown');
  await eventually(async () => expect((await site.stack().api.counts()).dead).toBe(before + 1));
});
