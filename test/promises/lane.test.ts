/** The lane promise, as far as test/gateway does not show it: what the tables set, and what bypasses the lane. */
import { expect, onTestFinished, test } from 'vitest';
import type { Delivery } from '../../src/bridge/messages.ts';
import type { Clock } from '../../src/gateway/clock.ts';
import { Lane } from '../../src/gateway/lane.ts';
import type { LaneEntry } from '../../src/gateway/lane-entry.ts';
import type { Outcome } from '../../src/outcome.ts';
import { protocols } from '../../src/protocols/index.ts';
import type { Protocol } from '../../src/protocols/protocol.ts';
import { createManualClock, type ManualClock } from '../gateway/manual-clock.ts';
import { connectedDtu, frames as gatewayFrames, startRig } from '../gateway/rig.ts';

const epoch = 42;

function entryOf(protocol: Protocol, command: string, given: Partial<Delivery> = {}): LaneEntry {
  const delivery: Delivery = {
    t: 'deliver',
    id: 'any',
    attempt: 1,
    workerId: 'w1',
    deviceId: 'any',
    epoch,
    protocol: protocol.name,
    command,
    params: {},
    wireId: 1,
    frame: '00',
    priority: 5,
    deadline: Number.MAX_SAFE_INTEGER,
    ackTimeoutMs: 10_000,
    ...given,
  };
  const spec = protocol.commands[command]!;
  return {
    delivery,
    spec,
    frame: new Uint8Array(1),
    lane: null,
    writtenAt: null,
    arrivedAt: 0,
    ackDueAt: 0,
  };
}

/** A lane of this protocol. `onWrite` hears of each frame, `ended` gathers the outcomes. */
function openLane(
  protocol: Protocol,
  clock: Clock & Pick<ManualClock, 'wheel'>,
  onWrite: () => void,
) {
  const ended: Outcome[] = [];
  const host = {
    clock,
    wheel: clock.wheel,
    holdsLease: () => true,
    written: () => undefined,
    ended: (_entry: LaneEntry, outcome: Outcome) => ended.push(outcome),
    hasRoom: () => undefined,
  };
  const fail = (error: unknown) => {
    throw error;
  };
  const write = () => {
    onWrite();
    return true;
  };
  return { lane: new Lane(host, { deviceId: 'any', epoch, protocol, write, broke: fail }), ended };
}

/** When a lane of this protocol writes so many frames that nobody answers, in milliseconds from the first. */
function writesOf(protocol: Protocol, command: string, count: number): number[] {
  const clock = createManualClock();
  const writes: number[] = [];
  const { lane } = openLane(protocol, clock, () => writes.push(clock.ticks()));
  for (let i = 0; i < count; i += 1) lane.offer(entryOf(protocol, command));
  clock.pass(5_000);
  return writes;
}

const [bkv, ap3000] = protocols as [Protocol, Protocol];

test('one frame is in flight per session', () => {
  expect(writesOf(bkv, 'port.query', 3)).toEqual([0]);
  expect(writesOf(ap3000, 'port.query', 3)).toEqual([0]);
});

test('a BKV session leaves 10 ms between two frames, an AP3000 session 500 ms', () => {
  // Stops wait for no answer, so that the gap alone is between them.
  expect(writesOf(bkv, 'charge.stop', 4)).toEqual([0, 10, 20, 30]);
  expect(writesOf(ap3000, 'charge.stop', 4)).toEqual([0, 500, 1_000, 1_500]);
});

test('the time to live is checked again at the moment of writing', () => {
  const manual = createManualClock();
  let jumpedMs = 0;
  const clock = { ...manual, now: () => manual.now() + jumpedMs };
  const protocol = { ...bkv, limits: { ...bkv.limits, gapMs: 0 } };
  let frames = 0;
  const { lane, ended } = openLane(protocol, clock, () => {
    frames += 1;
    // The second frame takes its time on the way into the socket.
    if (frames === 2) jumpedMs = 5_000;
  });
  const first = entryOf(protocol, 'port.query');
  const recognise = () => ({ accepted: true as const, result: {} });
  lane.offer({ ...first, spec: { ...first.spec, recognise } });
  // Nobody answers these, so that both go when the answer to the first is there.
  lane.offer(entryOf(protocol, 'ota.start'));
  lane.offer(entryOf(protocol, 'ota.start', { deadline: clock.now() + 5_000 }));
  const [item] = bkv.decoder('up').push(gatewayFrames.queryReply(1));
  if (item?.kind !== 'message') throw new Error('no message');
  lane.acknowledge(item.message);
  expect(ended).toMatchObject([
    { kind: 'acked' },
    { kind: 'unacknowledged' },
    { kind: 'refused', reason: 'expired' },
  ]);
  expect(frames).toBe(2);
});

test('acks the gateway owes a device bypass the lane', async () => {
  const rig = await startRig();
  onTestFinished(() => rig.close());
  const device = await connectedDtu(rig);
  for (let number = 1; number <= 5; number += 1) rig.deliver(`${number}`);
  await device.hears('port.query');
  device.send(gatewayFrames.chargeEnd());
  await device.hears('charge.end.ack');
  // Four more still wait for the answer to the first.
  expect(device.heard.filter(({ name }) => name === 'port.query')).toHaveLength(1);
  expect(rig.bridge.receipts.filter(({ t }) => t === 'ended')).toEqual([]);
});
