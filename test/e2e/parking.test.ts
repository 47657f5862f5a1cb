/** Commands that cannot go yet: they wait, cost nothing, and go at the first moment they can. */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { ShownCommand } from '../support/api-client.ts';
import { eventually } from '../support/eventually.ts';
import {
  bkvPatched,
  bkvSealed,
  bkvSize,
  connectPlain,
  type PlainDevice,
} from '../support/plain-device.ts';
import { type Stack, startStack } from '../support/stack.ts';

const heartbeat =
  'fcfe002e0000000000000182200520004869383938363034363331313230373033313934313763562e31723436001fcafcee';
/** The vendor's answer to a query of socket 1. */
const queryReply =
  'fcfe00350015001c91ee018600445945300500211c01513629150080000008ef00000001000000000180000008ef000000010000000077fcee';

let stack: Stack;
let number = 0;
const devices: PlainDevice[] = [];

beforeAll(async () => {
  stack = await startStack();
});

afterEach(async () => {
  await Promise.all(devices.splice(0).map((device) => device.close()));
});

afterAll(() => stack?.stop());

/** A device that is known, and not connected. */
async function knownDevice(): Promise<string> {
  const deviceId = `8220052100${String(++number).padStart(4, '0')}`;
  expect((await stack.api.request('PUT', `/v1/devices/${deviceId}`, {})).status).toBe(201);
  return deviceId;
}

async function logIn(deviceId: string): Promise<PlainDevice> {
  const device = await connectPlain(stack.tcp, bkvSize);
  devices.push(device);
  device.send(bkvPatched(heartbeat, deviceId));
  expect((await device.frame()).slice(0, 12)).toBe('fcff00180000');
  return device;
}

const query = (deviceId: string, socket: number, more: object = {}) =>
  stack.api.send({ deviceId, command: 'port.query', params: { socket }, ...more });

/** The socket that a query asks about: 0003 … 1d <socket>. */
const askedSocket = (frame: string) => Number.parseInt(frame.slice(42, 44), 16);

function answerTo(frame: string, deviceId: string): string {
  const answer = bkvPatched(queryReply, deviceId, frame.slice(12, 20));
  return bkvSealed(`${answer.slice(0, 42)}${frame.slice(42, 44)}${answer.slice(44)}`);
}

function withStatus(id: string, status: string): Promise<ShownCommand> {
  return eventually(async () => {
    const command = await stack.api.command(id);
    expect(command.status).toBe(status);
    return command;
  });
}

test('a command for an absent device parks, and is written within a moment of its login', async () => {
  const deviceId = await knownDevice();
  const { id } = await query(deviceId, 7);
  const parked = await withStatus(id, 'parked');
  expect(parked).toMatchObject({ final: false, attempts: [] });
  expect(parked.reason).toContain('not connected');

  const device = await logIn(deviceId);
  const frame = await device.frame(1_000);
  expect(askedSocket(frame)).toBe(7);
  device.send(answerTo(frame, deviceId));
  // Waiting has cost it no attempt.
  expect(await withStatus(id, 'succeeded')).toMatchObject({ attempts: [{ attempt: 1 }] });
});

test('it finds its device again however often that comes and goes', async () => {
  const deviceId = await knownDevice();
  await (await logIn(deviceId)).close();
  for (let socket = 1; socket <= 3; socket += 1) {
    await eventually(async () => {
      const { body } = await stack.api.request('GET', `/v1/devices/${deviceId}`);
      expect(body['online']).toBe(false);
    });
    const { id } = await query(deviceId, socket);
    await withStatus(id, 'parked');
    const device = await logIn(deviceId);
    const frame = await device.frame(1_000);
    expect(askedSocket(frame)).toBe(socket);
    device.send(answerTo(frame, deviceId));
    await withStatus(id, 'succeeded');
    await device.close();
  }
});

test('ten commands pass through a lane of four, the most urgent first', async () => {
  const deviceId = await knownDevice();
  const device = await logIn(deviceId);
  const first = await query(deviceId, 100, { priority: 0 });
  const frames = [await device.frame()];
  // The first is unanswered, so the others meet a lane that takes no more than four.
  const priorities = [1, 2, 3, 4, 5, 6, 7, 8, 3, 6];
  const others: ShownCommand[] = [];
  for (const [i, priority] of priorities.entries()) {
    others.push(await query(deviceId, i + 1, { priority }));
  }
  const parkedAre = (count: number) =>
    eventually(async () => {
      expect(await stack.api.list({ deviceId, status: 'parked' })).toHaveLength(count);
    });
  await parkedAre(6);
  device.send(answerTo(frames[0]!, deviceId));
  for (const i of priorities.keys()) {
    const frame = await device.frame();
    frames.push(frame);
    // Each end lets one of those that were turned away into the lane.
    await parkedAre(Math.max(0, 5 - i));
    device.send(answerTo(frame, deviceId));
  }
  for (const { id } of [first, ...others]) {
    expect((await withStatus(id, 'succeeded')).attempts).toHaveLength(1);
  }
  const written = frames.slice(1).map((frame) => priorities[askedSocket(frame) - 1]!);
  expect(written).toEqual([...priorities].sort((a, b) => b - a));
  expect(device.unread).toEqual([]);
});

test('ten commands for an absent device all succeed after its login, none written twice', async () => {
  const deviceId = await knownDevice();
  const sent = await Promise.all(Array.from({ length: 10 }, (_, i) => query(deviceId, i + 1)));
  for (const { id } of sent) await withStatus(id, 'parked');
  const device = await logIn(deviceId);
  const asked: number[] = [];
  for (const _ of sent) {
    const frame = await device.frame();
    asked.push(askedSocket(frame));
    device.send(answerTo(frame, deviceId));
  }
  for (const { id } of sent) await withStatus(id, 'succeeded');
  expect(asked.toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  expect(device.unread).toEqual([]);
});

test('a command whose time passes while its device is away ends as expired', async () => {
  const deviceId = await knownDevice();
  const { id } = await query(deviceId, 1, { ttlMs: 1_000 });
  await withStatus(id, 'parked');
  const command = await withStatus(id, 'expired');
  expect(command).toMatchObject({ final: true, code: 'EXPIRED', attempts: [] });
  const lateMs = Date.parse(command.settledAt!) - Date.parse(command.deadline);
  expect(lateMs).toBeGreaterThanOrEqual(0);
  expect(lateMs).toBeLessThan(3_000);
  const device = await logIn(deviceId);
  await expectNothingWritten(device, deviceId);
});

test('a parked command can be cancelled, and is never written then', async () => {
  const deviceId = await knownDevice();
  const { id } = await query(deviceId, 1);
  await withStatus(id, 'parked');
  const cancelled = await stack.api.request('DELETE', `/v1/commands/${id}`);
  expect(cancelled.status).toBe(200);
  expect(cancelled.body).toMatchObject({ id, status: 'cancelled', final: true });
  const device = await logIn(deviceId);
  await expectNothingWritten(device, deviceId);
  expect((await stack.api.command(id)).status).toBe('cancelled');
  const again = await stack.api.request('DELETE', `/v1/commands/${id}`);
  expect(again.status).toBe(409);
  expect(again.body).toMatchObject({ code: 'ALREADY_FINAL' });
});

test('a command that was written can no longer be cancelled', async () => {
  const deviceId = await knownDevice();
  const device = await logIn(deviceId);
  const { id } = await query(deviceId, 1);
  const frame = await device.frame();
  const refused = await stack.api.request('DELETE', `/v1/commands/${id}`);
  expect(refused.status).toBe(409);
  expect(refused.body).toMatchObject({ code: 'ALREADY_SENT' });
  device.send(answerTo(frame, deviceId));
  await withStatus(id, 'succeeded');
});

test('a command with a delay stays scheduled and is written when it is due', async () => {
  const deviceId = await knownDevice();
  const device = await logIn(deviceId);
  const delayMs = 1_500;
  const { id, status, acceptedAt } = await query(deviceId, 9, { delayMs });
  expect(status).toBe('scheduled');
  // A later one without a delay goes ahead of it.
  const { id: at_once } = await query(deviceId, 1);
  const early = await device.frame();
  expect(askedSocket(early)).toBe(1);
  device.send(answerTo(early, deviceId));
  await withStatus(at_once, 'succeeded');
  expect((await stack.api.command(id)).status).toBe('scheduled');
  const frame = await device.frame(delayMs + 2_000);
  const earlyMs = Date.parse(acceptedAt) + delayMs - Date.now();
  expect(earlyMs).toBeLessThanOrEqual(0);
  expect(earlyMs).toBeGreaterThan(-1_000);
  device.send(answerTo(frame, deviceId));
  await withStatus(id, 'succeeded');
});

test('a scheduled command can be cancelled before it is due', async () => {
  const deviceId = await knownDevice();
  const { id } = await query(deviceId, 9, { delayMs: 60_000 });
  const cancelled = await stack.api.request('DELETE', `/v1/commands/${id}`);
  expect(cancelled.status).toBe(200);
  expect(cancelled.body).toMatchObject({ status: 'cancelled' });
  expect((await stack.api.counts()).waiting).toBe(0);
});

test('a parked command outlives its worker: the next one writes it', async () => {
  const deviceId = await knownDevice();
  const { id } = await query(deviceId, 3);
  await withStatus(id, 'parked');
  await stack.kill('worker');
  // It comes back while nobody is there to wake the command.
  const device = await logIn(deviceId);
  await delay(200);
  expect(device.unread).toEqual([]);
  await stack.restart('worker');
  const frame = await device.frame(10_000);
  expect(askedSocket(frame)).toBe(3);
  device.send(answerTo(frame, deviceId));
  expect(await withStatus(id, 'succeeded')).toMatchObject({ attempts: [{ attempt: 1 }] });
});

test('when all is done, nothing is left in the queue', async () => {
  await eventually(async () => {
    expect(await stack.api.counts()).toMatchObject({ waiting: 0, pending: 0, dead: 0 });
  });
});

/** A query that comes after shows that nothing came before it. */
async function expectNothingWritten(device: PlainDevice, deviceId: string): Promise<void> {
  const { id } = await query(deviceId, 200);
  const frame = await device.frame();
  expect(askedSocket(frame)).toBe(200);
  device.send(answerTo(frame, deviceId));
  await withStatus(id, 'succeeded');
  expect(device.unread).toEqual([]);
}
