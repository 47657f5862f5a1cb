/** The order promise: what stands in one line is written in its order, and what a stop does to it. */
import { expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { askedSocket, isQuery, isStart, isStop, plainSite } from './site.ts';

const site = plainSite();

const startBody = (deviceId: string) => ({
  deviceId,
  command: 'charge.start',
  params: { socket: 1, port: 0, mode: 'time', minutes: 60 },
});

/** A start that went out and is still waited for. */
async function writtenStart(more: object = {}) {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const { id } = await site.start(deviceId, more);
  const frame = await device.frame();
  await site.withStatus(id, 'sent');
  return { deviceId, device, id, frame };
}

/** An end stands in the ledger a moment before its place in the line is free. */
function onceFree<T>(send: () => Promise<T>): Promise<T> {
  return eventually(send, { withinMs: 2_000 });
}

/** A query that occupies the lane, since it is not answered. */
async function busyDevice() {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const { id } = await site.query(deviceId, 99);
  return { deviceId, device, id, frame: await device.frame() };
}

test('commands of one order key are written in the order in which they joined its line', async () => {
  const deviceId = await site.knownDevice();
  const own = { orderKey: 'mine', ackTimeoutMs: 150, backoffMs: 50 };
  const sent = [];
  for (const socket of [1, 2, 3, 4, 5]) {
    sent.push(await site.query(deviceId, socket, { ...own, priority: socket }));
  }
  const device = await site.logIn(deviceId);
  const asked: number[] = [];
  while (asked.length < 6) {
    const frame = await device.frame();
    asked.push(askedSocket(frame));
    // The second goes unanswered once: those behind it wait for its next attempt.
    if (asked.length !== 2) device.accept(frame);
  }
  expect(asked).toEqual([1, 2, 2, 3, 4, 5]);
  for (const { id } of sent) await site.withStatus(id, 'succeeded');
});

test('a newer command waits for an unfinished older one of its key', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const older = await site.query(deviceId, 1, { orderKey: 'mine' });
  const frame = await device.frame();
  const newer = await site.query(deviceId, 2, { orderKey: 'mine' });
  expect(newer).toMatchObject({ status: 'parked' });
  expect(newer.reason).toContain(older.id);
  await site.because(newer.id, 'behind');
  device.accept(frame);
  expect(askedSocket(await device.frame())).toBe(2);
});

test('a scheduled command joins when it is due; before, it blocks, replaces and refuses nothing', async () => {
  const deviceId = await site.knownDevice();
  const device = await site.logIn(deviceId);
  const laterStart = await site.start(deviceId, { delayMs: 2_000 });
  const laterStop = await site.stop(deviceId, { delayMs: 60_000 });
  const start = await site.start(deviceId);
  const frame = await device.frame();
  expect(isStart(frame)).toBe(true);
  device.accept(frame);
  await site.withStatus(start.id, 'succeeded');
  await site.withStatus(laterStart.id, 'scheduled');
  // Unfinished when the other start is due: only now it is in its way.
  const last = await onceFree(() => site.start(deviceId));
  await device.frame();
  expect(await site.withStatus(laterStart.id, 'failed')).toMatchObject({ code: 'CONFLICT' });
  await site.cancel(laterStop.id);
  await site.cancel(last.id);
});

test('a start while a start is unfinished is refused with 409', async () => {
  const { deviceId, device, frame, id } = await writtenStart();
  const refused = await site.stack().api.request('POST', '/v1/commands', startBody(deviceId));
  expect(refused.body).toMatchObject({ status: 409, code: 'CONFLICT' });
  expect(refused.body['detail']).toContain(id);
  device.accept(frame);
  await site.withStatus(id, 'succeeded');
  expect((await onceFree(() => site.start(deviceId))).status).toBe('queued');
});

test('a set of parameters replaces an unwritten one whose fields it covers, and no other', async () => {
  const deviceId = await site.knownDevice();
  const covered = await site.set(deviceId, { maxMinutes: 60 });
  const other = await site.set(deviceId, { noLoadDelayS: 10 });
  const newest = await site.set(deviceId, { maxMinutes: 90, maxPowerDeciW: 9_000 });
  await site.withStatus(covered.id, 'superseded');
  const device = await site.logIn(deviceId);
  const frame = await device.frame();
  const shown = await site.withStatus(other.id, 'sent');
  expect(shown.attempts).toMatchObject([{ frameOut: frame }]);
  await site.withStatus(newest.id, 'parked');
});

test('a stop waits for no start of its port', async () => {
  const { deviceId, device, id } = await writtenStart();
  const { id: stop } = await site.stop(deviceId);
  // The answer to the start is due in ten seconds.
  const frame = await device.frame(2_000);
  expect(isStop(frame)).toBe(true);
  expect((await site.stack().api.command(id)).attempts).toMatchObject([{ frameIn: null }]);
  device.accept(frame);
  await site.withStatus(stop, 'succeeded');
});

test('an unwritten start that a stop replaced ends as superseded', async () => {
  const { deviceId, device, id, frame } = await busyDevice();
  const start = await site.start(deviceId);
  await site.because(start.id, 'in-lane');
  const stop = await site.stop(deviceId);
  device.accept(frame);
  await site.withStatus(id, 'succeeded');
  const next = await device.frame();
  expect(isStop(next)).toBe(true);
  device.accept(next);
  await site.withStatus(stop.id, 'succeeded');
  const ended = await site.withStatus(start.id, 'superseded');
  expect(ended).toMatchObject({ code: 'SUPERSEDED' });
  expect(ended.reason).toContain(stop.id);
  expect(await device.heardAll()).toEqual([]);
});

test('a written start that a stop replaced gets no further attempt or probe and ends as unknown', async () => {
  const { deviceId, device, id } = await writtenStart({ ackTimeoutMs: 300, backoffMs: 0 });
  const { id: stop } = await site.stop(deviceId);
  const frame = await device.frame();
  device.accept(frame);
  await site.withStatus(stop, 'succeeded');
  const ended = await site.withStatus(id, 'unknown');
  expect(ended).toMatchObject({ code: 'SUPERSEDED', attempts: [{ attempt: 1 }] });
  expect(ended.reason).toContain(stop);
  expect(await device.heardAll()).toEqual([]);
});

test('a written start that a stop replaced keeps its late-answer window', async () => {
  const { deviceId, device, id, frame } = await writtenStart({ ackTimeoutMs: 300, backoffMs: 0 });
  const { id: stop } = await site.stop(deviceId);
  device.accept(await device.frame());
  await site.withStatus(stop, 'succeeded');
  await site.withStatus(id, 'unknown');
  device.accept(frame);
  expect(await site.withStatus(id, 'succeeded')).toMatchObject({ late: true });
});

test('a start that is accepted after a stop is written after it', async () => {
  const { deviceId, device } = await writtenStart({ ackTimeoutMs: 300 });
  const stop = await site.stop(deviceId);
  const start = await site.start(deviceId);
  await site.withStatus(start.id, 'parked');
  const first = await device.frame();
  expect(isStop(first)).toBe(true);
  device.accept(first);
  await site.withStatus(stop.id, 'succeeded');
  expect(isStart(await device.frame())).toBe(true);
  await site.withStatus(start.id, 'sent');
});

test('priority orders between keys, never within one', async () => {
  const { deviceId, device, frame } = await busyDevice();
  const older = await site.query(deviceId, 1, { orderKey: 'a', priority: 1 });
  const newer = await site.query(deviceId, 2, { orderKey: 'a', priority: 9 });
  const other = await site.query(deviceId, 3, { orderKey: 'b', priority: 4 });
  await site.because(older.id, 'in-lane');
  await site.because(other.id, 'in-lane');
  await site.withStatus(newer.id, 'parked');
  device.accept(frame);
  const written: number[] = [];
  for (let count = 0; count < 3; count += 1) {
    const next = await device.frame();
    expect(isQuery(next)).toBe(true);
    written.push(askedSocket(next));
    device.accept(next);
  }
  expect(written).toEqual([3, 1, 2]);
});

// Last, since it takes the worker away.
test('an unwritten start has been taken back from its gateway when the stop is accepted', async () => {
  const { deviceId, device, frame } = await busyDevice();
  const start = await site.start(deviceId);
  await site.because(start.id, 'in-lane');
  // Told in the same turn as its delivery is published.
  await eventually(async () => {
    expect((await site.stack().api.command(start.id)).attempts).toHaveLength(1);
  });
  // Nobody sends the stop, which would overtake the start in the lane.
  await site.stack().kill('worker');
  const stop = await site.stop(deviceId);
  device.accept(frame);
  expect(await device.heardAll()).toEqual([]);
  await site.stack().restart('worker');
  const next = await device.frame();
  expect(isStop(next)).toBe(true);
  device.accept(next);
  await site.withStatus(stop.id, 'succeeded');
});
