import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import { toHex } from '../../src/protocols/bytes.ts';
import { eventually } from '../support/eventually.ts';
import {
  connectedDtu,
  type Device,
  dtu,
  frames,
  type Rig,
  socketA,
  socketB,
  standing,
  startRig,
} from './rig.ts';

let rig: Rig;
let device: Device;

beforeEach(async () => {
  rig = await startRig();
  device = await connectedDtu(rig);
});

afterEach(() => rig.close());

const receipts = (id: string) =>
  rig.bridge.receipts.filter((receipt) => receipt.id === id).map(({ t }) => t);
const queries = () => device.heard.filter(({ name }) => name === 'port.query');

async function ended(id: string, count = 1) {
  return eventually(() => {
    const ends = rig.bridge.endsOf(id);
    if (ends.length < count) throw new Error(`${ends.length} of ${count} ends of ${id}`);
    return ends.at(-1)!;
  });
}

describe('a delivery', () => {
  test("goes out as the worker built it, and the device's answer ends it", async () => {
    const { wireId, frame } = rig.deliver('a');
    const heard = await device.hears('port.query');
    expect(toHex(heard.frame)).toBe(frame);
    device.send(frames.queryReply(wireId));
    expect(await ended('a')).toMatchObject({
      kind: 'acked',
      result: { socket: 1 },
      frameIn: toHex(frames.queryReply(wireId)),
    });
    expect(receipts('a')).toEqual(['written', 'ended']);
  });

  test('that has to wait is lined at once and written when its turn comes', async () => {
    const { wireId } = rig.deliver('a');
    rig.deliver('b');
    expect(receipts('b')).toEqual(['lined']);
    await device.hears('port.query');
    device.send(frames.queryReply(wireId));
    await device.hears('port.query', 2);
    expect(receipts('b')).toEqual(['lined', 'written']);
  });

  test('told twice is written once and answered with what is known', async () => {
    const a = rig.deliver('a');
    const b = rig.deliver('b');
    rig.bridge.handlers.deliver({ ...a });
    rig.bridge.handlers.deliver({ ...b, workerId: 'worker-2' });
    expect(receipts('a')).toEqual(['written', 'written']);
    expect(rig.bridge.receipts.at(-1)).toMatchObject({ t: 'lined', workerId: 'worker-2' });
    await device.hears('port.query');
    device.send(frames.queryReply(a.wireId));
    const outcome = await ended('a');
    rig.bridge.handlers.deliver({ ...a, workerId: 'worker-3' });
    expect(rig.bridge.receipts.at(-1)).toMatchObject({ workerId: 'worker-3', outcome });
    await device.hears('port.query', 2);
    device.send(frames.queryReply(b.wireId));
    await ended('b');
    expect(rig.bridge.receipts.at(-1)).toMatchObject({ t: 'ended', workerId: 'worker-2' });
    expect(queries()).toHaveLength(2);
  });

  test('is forgotten once it is settled', async () => {
    const a = rig.deliver('a');
    await device.hears('port.query');
    device.send(frames.queryReply(a.wireId));
    await ended('a');
    expect(rig.gateway.load().unsettled).toBe(1);
    rig.bridge.handlers.settled({ t: 'settled', id: 'a', attempt: 1 });
    expect(rig.gateway.load().unsettled).toBe(0);
  });

  test('of another attempt is another delivery', async () => {
    const a = rig.deliver('a', { command: 'card.balance', params: balance });
    await device.hears('card.balance');
    rig.bridge.handlers.deliver({ ...a, attempt: 2 });
    await device.hears('card.balance', 2);
    expect(rig.bridge.endsOf('a')).toMatchObject([
      { kind: 'unacknowledged' },
      { kind: 'unacknowledged' },
    ]);
  });

  test('that was refused may come again under the same attempt', async () => {
    const a = rig.delivery('a');
    rig.bridge.handlers.deliver({ ...a, epoch: 1 });
    expect(rig.bridge.endsOf('a')).toEqual([{ kind: 'unwritten', reason: 'stale-epoch' }]);
    rig.bridge.handlers.deliver(a);
    await device.hears('port.query');
  });

  test.each([
    ['for a device that is not here', { deviceId: '82200520009999' }, 'unwritten', 'offline'],
    ['of another epoch', { epoch: 1 }, 'unwritten', 'stale-epoch'],
    ['after its deadline', { deadline: 1 }, 'refused', 'expired'],
    ['for another protocol', { protocol: 'ap3000' }, 'refused', 'unsupported'],
    ['of a command that every object has', { command: 'constructor' }, 'refused', 'unsupported'],
    ['with a frame over the limit', { frame: '00'.repeat(4097) }, 'refused', 'invalid'],
  ])('%s is refused', (_case, wrong, kind, reason) => {
    const made = rig.delivery('a');
    rig.bridge.handlers.deliver({ ...made, ...wrong });
    expect(rig.bridge.endsOf('a')).toMatchObject([{ kind, reason }]);
    expect(rig.gateway.load().deliveries).toBe(0);
  });

  test('without the lease is not written', () => {
    rig.bridge.leased = false;
    rig.deliver('a');
    expect(rig.bridge.endsOf('a')).toMatchObject([{ kind: 'unwritten', reason: 'offline' }]);
  });

  test('without an answer in time is ambiguous', async () => {
    rig.deliver('a', { ackTimeoutMs: 50 });
    const outcome = await ended('a');
    expect(outcome).toMatchObject({ kind: 'ambiguous', reason: 'no-ack' });
    if (outcome.kind !== 'ambiguous') throw new Error(outcome.kind);
    expect(outcome.endedAt - outcome.writtenAt!).toBeGreaterThanOrEqual(50);
  });

  test('in flight when the connection breaks is ambiguous; a waiting one surely unwritten', async () => {
    rig.deliver('in-flight');
    rig.deliver('waiting');
    await device.hears('port.query');
    device.socket.resetAndDestroy();
    expect(await ended('in-flight')).toMatchObject({
      kind: 'ambiguous',
      reason: 'connection-lost',
      writtenAt: expect.any(Number),
    });
    expect(await ended('waiting')).toEqual({ kind: 'unwritten', reason: 'socket-closed' });
  });

  test("is answered by its own device only, not by another one's frame", async () => {
    const host = await rig.device(ap3000);
    host.send(frames.heartbeat21(socketA, 1), frames.heartbeat21(socketB, 2));
    await standing(rig, socketB);
    const { wireId } = rig.deliver('locate', {
      deviceId: socketA,
      command: 'device.locate',
      params: { seconds: 5 },
    });
    const heard = await host.hears('device.locate').catch(() => host.heard.at(-1)!);
    const reply = (deviceId: string) =>
      ap3000.encode({
        direction: 'up',
        name: `${heard.name}.reply`,
        deviceId,
        msgId: wireId,
        fields: { result: 0 },
      });
    host.send(reply(socketB), frames.heartbeat21(socketB, 3));
    await host.hears('heartbeat.reply', 3);
    expect(rig.bridge.endsOf('locate')).toEqual([]);
    host.send(reply(socketA));
    expect(await ended('locate')).toMatchObject({ kind: 'acked' });
  });

  test('that found the lane full is called back when there is room', async () => {
    const first = rig.deliver('a');
    for (const id of ['b', 'c', 'd', 'e', 'f']) rig.deliver(id);
    expect(rig.bridge.endsOf('f')).toEqual([{ kind: 'unwritten', reason: 'lane-full' }]);
    await device.hears('port.query');
    device.send(frames.queryReply(first.wireId));
    await eventually(() => expect(rig.bridge.rooms).toEqual([dtu]));
  });
});

describe('a late answer', () => {
  test('is kept for any worker, once', async () => {
    const { wireId } = rig.deliver('a', { ackTimeoutMs: 50 });
    await ended('a');
    device.send(frames.queryReply(wireId), frames.queryReply(wireId));
    await eventually(() => expect(rig.bridge.kept).toHaveLength(1));
    expect(rig.bridge.kept).toMatchObject([
      { delivery: { id: 'a' }, late: true, outcome: { kind: 'acked', result: { socket: 1 } } },
    ]);
    device.send(frames.heartbeat());
    await device.hears('heartbeat.reply', 2);
    expect(rig.bridge.kept).toHaveLength(1);
  });

  test('counts on a newer session too', async () => {
    const { wireId } = rig.deliver('a');
    await device.hears('port.query');
    device.socket.destroy();
    await ended('a');
    device = await connectedDtu(rig);
    device.send(frames.queryReply(wireId));
    await eventually(() => expect(rig.bridge.kept).toHaveLength(1));
    expect(rig.bridge.kept[0]).toMatchObject({ late: true, delivery: { id: 'a' } });
  });

  test('is not seen in a report without the wire id', async () => {
    rig.deliver('a', { ackTimeoutMs: 50 });
    await ended('a');
    device.send(frames.statusReport());
    await device.hears('status.report.ack');
    expect(rig.bridge.kept).toEqual([]);
  });

  test('goes to the retry that is in flight under the same wire id', async () => {
    const first = rig.deliver('a', { ackTimeoutMs: 50 });
    await ended('a');
    rig.bridge.handlers.deliver({ ...first, attempt: 2, ackTimeoutMs: 5_000 });
    await device.hears('port.query', 2);
    device.send(frames.queryReply(first.wireId), frames.queryReply(first.wireId));
    expect(await ended('a', 2)).toMatchObject({ kind: 'acked' });
    device.send(frames.heartbeat());
    await device.hears('heartbeat.reply', 2);
    expect(rig.bridge.kept).toEqual([]);
  });

  test('to a frame that another gateway wrote is kept as that delivery', async () => {
    const written = rig.delivery('elsewhere', { epoch: 77, wireId: 4_711, attempt: 2 });
    const writtenAt = Date.now() - 20_000;
    rig.bridge.handlers.remember({ t: 'remember', delivery: written, writtenAt, forMs: 60_000 });
    device.send(frames.queryReply(4_711), frames.queryReply(4_711));
    await eventually(() => expect(rig.bridge.kept).toHaveLength(1));
    expect(rig.bridge.kept[0]).toMatchObject({
      late: true,
      delivery: { id: 'elsewhere', attempt: 2, epoch: 77, wireId: 4_711, frame: written.frame },
      outcome: { kind: 'acked', writtenAt, frameIn: toHex(frames.queryReply(4_711)) },
    });
    device.send(frames.heartbeat());
    await device.hears('heartbeat.reply', 2);
    expect(rig.bridge.kept).toHaveLength(1);
  });

  test('that came before anybody told of its frame is kept as soon as somebody does', async () => {
    const written = rig.delivery('elsewhere', { epoch: 77, wireId: 4_711 });
    const writtenAt = Date.now() - 1_000;
    device.send(frames.queryReply(4_711), frames.heartbeat());
    await device.hears('heartbeat.reply', 2);
    expect(rig.bridge.kept).toEqual([]);
    rig.bridge.handlers.remember({ t: 'remember', delivery: written, writtenAt, forMs: 60_000 });
    await eventually(() => expect(rig.bridge.kept).toHaveLength(1));
    expect(rig.bridge.kept[0]).toMatchObject({
      late: true,
      delivery: { id: 'elsewhere' },
      outcome: { kind: 'acked', writtenAt },
    });
  });

  test('is taken once, however often its frame is remembered', async () => {
    const own = rig.deliver('a', { ackTimeoutMs: 50 });
    await ended('a');
    for (const forMs of [60_000, 60_000, 0]) {
      rig.bridge.handlers.remember({ t: 'remember', delivery: own, writtenAt: 1, forMs });
    }
    device.send(frames.queryReply(own.wireId), frames.queryReply(own.wireId));
    device.send(frames.heartbeat());
    await device.hears('heartbeat.reply', 2);
    expect(rig.bridge.kept).toHaveLength(1);
  });

  test.each([
    ['whose time is over', {}, 0],
    ['of another device', { deviceId: '82200520009999' }, 60_000],
    ['of a protocol that is not spoken here', { protocol: 'mqtt' }, 60_000],
  ])('is not expected for a remembered frame %s', async (_case, part, forMs) => {
    const delivery = { ...rig.delivery('elsewhere', { wireId: 4_711 }), ...part };
    rig.bridge.handlers.remember({ t: 'remember', delivery, writtenAt: 1, forMs });
    device.send(frames.queryReply(4_711), frames.heartbeat());
    await device.hears('heartbeat.reply', 2);
    expect(rig.bridge.kept).toEqual([]);
  });

  test('that could not be kept is kept when Redis is back', async () => {
    const { wireId } = rig.deliver('a', { ackTimeoutMs: 50 });
    await ended('a');
    let tries = 0;
    rig.bridge.answerKeep = async () => {
      tries += 1;
      if (tries === 1) throw new Error('redis is away');
    };
    device.send(frames.queryReply(wireId));
    await eventually(() => expect(rig.bridge.kept).toHaveLength(1));
    expect(tries).toBe(2);
  });
});

describe('a withdrawal', () => {
  const withdraw = (id: string, workerId = 'worker-1') =>
    rig.bridge.handlers.withdraw({ t: 'withdraw', id, attempt: 1, workerId, deviceId: dtu });

  test('takes back what waits, and tells both who delivered and who withdrew', async () => {
    rig.deliver('a');
    const b = rig.deliver('b');
    withdraw('b', 'canceller');
    const told = rig.bridge.receipts.filter(({ t, id }) => t === 'ended' && id === 'b');
    expect(told).toMatchObject([
      { workerId: 'worker-1', outcome: { kind: 'refused', reason: 'withdrawn' } },
      { workerId: 'canceller', outcome: { kind: 'refused', reason: 'withdrawn' } },
    ]);
    rig.bridge.handlers.deliver(b);
    expect(rig.bridge.endsOf('b').at(-1)).toMatchObject({ reason: 'withdrawn' });
  });

  test('of what was written is answered so', async () => {
    rig.deliver('a');
    withdraw('a', 'canceller');
    expect(rig.bridge.receipts.at(-1)).toMatchObject({ t: 'written', workerId: 'canceller' });
    expect(rig.gateway.load().deliveries).toBe(1);
  });

  test('of what has ended is answered with its end', async () => {
    const { wireId } = rig.deliver('a');
    await device.hears('port.query');
    device.send(frames.queryReply(wireId));
    const outcome = await ended('a');
    withdraw('a', 'canceller');
    expect(rig.bridge.receipts.at(-1)).toMatchObject({ workerId: 'canceller', outcome });
  });

  test('of what was settled a moment ago says that it was written, not that it was taken back', async () => {
    rig.deliver('a', { ackTimeoutMs: 50 });
    const outcome = await ended('a');
    if (outcome.kind !== 'ambiguous') throw new Error(outcome.kind);
    rig.bridge.handlers.settled({ t: 'settled', id: 'a', attempt: 1 });
    withdraw('a', 'canceller');
    expect(rig.bridge.receipts.at(-1)).toEqual({
      t: 'written',
      workerId: 'canceller',
      id: 'a',
      attempt: 1,
      at: outcome.writtenAt,
    });
  });

  test('by the worker that delivered is answered by the one end it waits for', () => {
    rig.deliver('a');
    rig.deliver('b');
    withdraw('b');
    expect(receipts('b')).toEqual(['lined', 'ended']);
  });

  test('of a stranger leaves the end with the worker that delivered', async () => {
    const { wireId } = rig.deliver('a');
    await device.hears('port.query');
    device.send(frames.queryReply(wireId));
    await ended('a');
    withdraw('a', 'canceller');
    rig.bridge.handlers.deliver({ ...rig.delivery('a', { wireId }) });
    const asked = rig.bridge.receipts.filter(({ t }) => t === 'ended').map((each) => each.workerId);
    expect(asked).toEqual(['worker-1', 'canceller', 'worker-1']);
    expect(rig.gateway.load().unsettled).toBe(1);
  });

  test('that overtakes its delivery keeps it from being written', async () => {
    withdraw('a');
    expect(rig.bridge.endsOf('a')).toMatchObject([{ kind: 'refused', reason: 'withdrawn' }]);
    rig.deliver('a');
    expect(rig.bridge.endsOf('a')).toHaveLength(2);
    device.send(frames.heartbeat());
    await device.hears('heartbeat.reply', 2);
    expect(queries()).toEqual([]);
  });
});

const balance = { socket: 1, port: 0, card: '000000029835', balanceCents: 5001 };
