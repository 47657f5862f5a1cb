/** Wire ids: the numbers by which a device's answer finds its command. */
import { expect, test } from 'vitest';
import { createLateWindow } from '../../src/gateway/late-window.ts';
import { defaultOptions } from '../../src/gateway/options.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import type { Message } from '../../src/protocols/protocol.ts';
import { createManualClock } from '../gateway/manual-clock.ts';
import { frames } from '../gateway/rig.ts';
import { deliveryOf, deviceId, logIn, startBridgeRig } from './bridge-rig.ts';

const deviceNo = (n: number) => `822005200${String(n).padStart(5, '0')}`;

test('the counter of a device starts anywhere', async () => {
  const rig = await startBridgeRig();
  const { bridge } = await rig.gateway('g1');
  const firsts = new Set<number>();
  for (let n = 0; n < 20; n += 1) {
    const device = deviceNo(n);
    await logIn(bridge, device);
    firsts.add((await rig.route(`c${n}`, { deviceId: device })).wireId);
  }
  // Two of twenty may meet among 65,535.
  expect(firsts.size).toBeGreaterThan(15);
});

test('a wire id is not given again within the late-answer window', async () => {
  const rig = await startBridgeRig();
  const { bridge } = await rig.gateway('g1');
  await logIn(bridge);
  const given = new Set<number>();
  for (let n = 0; n < 300; n += 1) {
    const id = `c${n}`;
    given.add((await rig.route(id)).wireId);
    // Nothing of the command is left, but the counter.
    const end = { line: null, mode: 'final', wake: 0, again: true, attempt: 1 } as const;
    await rig.routes.release({ deviceId, id, ...end });
  }
  expect(given.size).toBe(300);
  const keptForMs = await rig.redis.pttl(rig.keys.marks(deviceId));
  expect(keptForMs).toBeGreaterThan(2 * defaultOptions.lateWindowMs);
});

test('late answers match by device, command and wire id', () => {
  const clock = createManualClock();
  const late = createLateWindow({ windowMs: 60_000, maxFrames: 10, clock });
  const spec = bkv.commands['port.query']!;
  const wireId = 0x1234;
  const route = { wireId, attempt: 1, epoch: 1 };
  const socket = 1;
  late.add(deliveryOf('c1', route, { params: { socket } }), spec, clock.now());

  const start = bkv.commands['charge.start']!;
  const params = { socket, port: 0, mode: 'time', minutes: 60 };
  const other = deliveryOf('c2', { ...route, wireId: wireId + 1 }, { params });
  late.add({ ...other, command: 'charge.start' }, start, clock.now());

  expect(late.match(answer(wireId, '82200520004870')), 'of another device').toBeNull();
  expect(late.match(answer(wireId + 1)), 'to another command').toBeNull();
  expect(late.match(answer(wireId + 2)), 'with another wire id').toBeNull();
  // A report of the same socket says the same, and proves nothing.
  expect(late.match(read(frames.statusReport())), 'without a wire id').toBeNull();
  expect(late.match(answer(wireId))).toMatchObject({ delivery: { id: 'c1' } });
});

function answer(wireId: number, device = deviceId): Message {
  return read(frames.queryReply(wireId, device));
}

function read(frame: Uint8Array): Message {
  const [item] = bkv.decoder('up').push(frame);
  if (item?.kind !== 'message') throw new Error('no frame');
  return item.message;
}
