import { beforeEach, describe, expect, test } from 'vitest';
import type { Delivery } from '../../src/bridge/messages.ts';
import { Lane } from '../../src/gateway/lane.ts';
import type { LaneEntry } from '../../src/gateway/lane-entry.ts';
import type { AckOutcome, Outcome } from '../../src/outcome.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import type { CommandSpec, Message, Protocol } from '../../src/protocols/protocol.ts';
import { createManualClock, type ManualClock } from './manual-clock.ts';

const GAP_MS = 500;
const EPOCH = 42;

let clock: ManualClock;
let ends: Map<string, Outcome>;
let written: string[];
let leased: boolean;
let socketOpen: boolean;
let roomCalls: number;

beforeEach(() => {
  clock = createManualClock();
  ends = new Map();
  written = [];
  leased = true;
  socketOpen = true;
  roomCalls = 0;
});

function openLane({ inFlight = 1, epoch = EPOCH } = {}) {
  const protocol: Protocol = { ...bkv, limits: { ...bkv.limits, gapMs: GAP_MS, inFlight } };
  return new Lane(
    {
      clock,
      wheel: clock.wheel,
      holdsLease: () => leased,
      written: () => {},
      ended: ({ delivery }, outcome) => ends.set(delivery.id, outcome),
      hasRoom: () => {
        roomCalls += 1;
      },
    },
    {
      deviceId: '82200520004869',
      epoch,
      protocol,
      write(frame) {
        if (!socketOpen) return false;
        written.push(Buffer.from(frame).toString());
        return true;
      },
      broke(error) {
        throw error;
      },
    },
  );
}

/** Recognises an answer by its wire id; `any` also takes reports without one. */
function specOf(given: Partial<CommandSpec> & { any?: boolean } = {}): CommandSpec {
  const { any = false, ...spec } = given;
  return {
    ...bkv.commands['port.query']!,
    priority: 5,
    ack: 'reply',
    recognise: (_params, wireId, message) =>
      message.msgId === wireId || (any && message.msgId === 0)
        ? { accepted: true, result: { wireId } }
        : null,
    ...spec,
  };
}

const stopSpec = specOf({ priority: 9, preempts: true });

let wireIds = 0;

function entryOf(id: string, given: Partial<Delivery> & { spec?: CommandSpec } = {}): LaneEntry {
  const { spec = specOf(), ...rest } = given;
  const delivery: Delivery = {
    t: 'deliver',
    id,
    attempt: 1,
    workerId: 'w1',
    deviceId: '82200520004869',
    epoch: EPOCH,
    protocol: 'bkv',
    command: 'port.query',
    params: {},
    wireId: ++wireIds,
    frame: '00',
    priority: 5,
    deadline: clock.now() + 60_000,
    ackTimeoutMs: 10_000,
    ...rest,
  };
  return {
    delivery,
    spec,
    frame: Buffer.from(id),
    lane: null,
    writtenAt: null,
    arrivedAt: 0,
    ackDueAt: 0,
  };
}

function answerTo({ delivery }: LaneEntry): Message {
  return reportWith(delivery.wireId);
}

function reportWith(msgId: number): Message {
  return {
    protocol: 'bkv',
    direction: 'up',
    name: 'port.query.reply',
    deviceId: '82200520004869',
    cmd: 0,
    subCmd: null,
    msgId,
    fields: {},
    frame: Buffer.from('aa', 'hex'),
    checksum: null,
  };
}

const offer = (lane: Lane, ...entries: LaneEntry[]) => entries.map((entry) => lane.offer(entry));

describe('turns', () => {
  test('a frame is written at once when the lane is idle, and its answer ends it', () => {
    const lane = openLane();
    const a = entryOf('a');
    lane.offer(a);
    expect(written).toEqual(['a']);
    clock.pass(1_500);
    expect(lane.acknowledge(answerTo(a))).toBe(true);
    expect(ends.get('a')).toEqual({
      kind: 'acked',
      result: { wireId: a.delivery.wireId },
      writtenAt: clock.now() - 1_500,
      endedAt: clock.now(),
      frameIn: 'aa',
    });
  });

  test('the next frame waits for the answer and for the gap, whichever is later', () => {
    const lane = openLane();
    const [a, b, c] = [entryOf('a'), entryOf('b'), entryOf('c')];
    offer(lane, a, b, c);
    clock.pass(100);
    lane.acknowledge(answerTo(a));
    expect(written).toEqual(['a']);
    clock.pass(GAP_MS - 101);
    expect(written).toEqual(['a']);
    clock.pass(1);
    expect(written).toEqual(['a', 'b']);
    clock.pass(2_000);
    expect(written).toEqual(['a', 'b']);
    lane.acknowledge(answerTo(b));
    expect(written).toEqual(['a', 'b', 'c']);
  });

  test('waiting ones go by priority, equals in the order of their arrival', () => {
    const lane = openLane();
    const first = entryOf('first');
    const rest = [
      entryOf('low', { priority: 3 }),
      entryOf('mid-1', { priority: 5 }),
      entryOf('mid-2', { priority: 5 }),
      entryOf('high', { priority: 7 }),
    ];
    offer(lane, first, ...rest);
    for (const entry of [first, rest[3]!, rest[1]!, rest[2]!]) {
      clock.pass(GAP_MS);
      expect(lane.acknowledge(answerTo(entry))).toBe(true);
    }
    clock.pass(GAP_MS);
    expect(written).toEqual(['first', 'high', 'mid-1', 'mid-2', 'low']);
  });

  test('as many frames are in flight as the protocol allows, a gap apart', () => {
    const lane = openLane({ inFlight: 2 });
    offer(lane, entryOf('a'), entryOf('b'), entryOf('c'));
    expect(written).toEqual(['a']);
    clock.pass(GAP_MS);
    expect(written).toEqual(['a', 'b']);
    clock.pass(5_000);
    expect(written).toEqual(['a', 'b']);
  });

  test('a stop waits only for the gap, not for the answer to another frame', () => {
    const lane = openLane();
    offer(lane, entryOf('query'), entryOf('next'), entryOf('stop', { spec: stopSpec }));
    expect(written).toEqual(['query']);
    clock.pass(GAP_MS);
    expect(written).toEqual(['query', 'stop']);
    clock.pass(3_000);
    expect(written).toEqual(['query', 'stop']);
  });

  test('a stop is the next frame whatever priority its client gave it', () => {
    const lane = openLane();
    const stop = entryOf('stop', { priority: 0, spec: stopSpec });
    offer(lane, entryOf('a'), entryOf('b', { priority: 9 }), stop);
    clock.pass(GAP_MS);
    expect(written).toEqual(['a', 'stop']);
  });

  test('a command of priority 9 that is no stop is the next frame, after the answer', () => {
    const lane = openLane();
    const a = entryOf('a');
    offer(lane, a, entryOf('b', { priority: 8 }), entryOf('urgent', { priority: 9 }));
    clock.pass(3_000);
    expect(written).toEqual(['a']);
    lane.acknowledge(answerTo(a));
    expect(written).toEqual(['a', 'urgent']);
  });

  test.each([1, 2, 3])(
    'frames in flight beside a stop are at most the %i of the table',
    (inFlight) => {
      const lane = openLane({ inFlight });
      const stop = entryOf('stop', { spec: stopSpec });
      offer(lane, stop, ...['a', 'b', 'c', 'd'].map((id) => entryOf(id)));
      clock.pass(5 * GAP_MS);
      expect(written).toEqual(['stop', 'a', 'b', 'c'].slice(0, inFlight + 1));
      lane.acknowledge(answerTo(stop));
      clock.pass(GAP_MS);
      expect(lane.inFlight).toBe(inFlight);
    },
  );

  test('a stop in flight is no reason for another frame to wait for it, nor one more to go', () => {
    const lane = openLane({ inFlight: 1 });
    const a = entryOf('a');
    offer(lane, a, entryOf('stop-1', { spec: stopSpec }), entryOf('stop-2', { spec: stopSpec }));
    lane.offer(entryOf('b'));
    clock.pass(4 * GAP_MS);
    expect(written).toEqual(['a', 'stop-1', 'stop-2']);
    lane.acknowledge(answerTo(a));
    clock.pass(GAP_MS);
    expect(written).toEqual(['a', 'stop-1', 'stop-2', 'b']);
  });

  test('a command without an answer ends as unacknowledged with its write and holds nobody up', () => {
    const lane = openLane();
    offer(lane, entryOf('ota', { spec: specOf({ ack: 'none' }) }), entryOf('next'));
    expect(ends.get('ota')).toMatchObject({ kind: 'unacknowledged', writtenAt: clock.now() });
    clock.pass(GAP_MS);
    expect(written).toEqual(['ota', 'next']);
  });
});

describe('room', () => {
  test('four wait; a fifth of no higher priority is sent back as lane full', () => {
    const lane = openLane();
    offer(lane, ...['a', 'b', 'c', 'd', 'e', 'f'].map((id) => entryOf(id)));
    expect([...ends]).toEqual([['f', { kind: 'unwritten', reason: 'lane-full' }]]);
    expect(lane.waiting).toBe(4);
  });

  test('a more urgent newcomer sends the least urgent back', () => {
    const lane = openLane();
    offer(lane, ...['a', 'b', 'c', 'd'].map((id) => entryOf(id)));
    offer(lane, entryOf('low', { priority: 1 }), entryOf('high', { priority: 7 }));
    expect([...ends]).toEqual([['low', { kind: 'unwritten', reason: 'lane-full' }]]);
  });

  test('room is announced when a lane that turned somebody away takes some again, and only then', () => {
    const lane = openLane();
    const entries = ['a', 'b', 'c', 'd', 'e'].map((id) => entryOf(id));
    offer(lane, ...entries);
    clock.pass(GAP_MS);
    lane.acknowledge(answerTo(entries[0]!));
    expect(roomCalls).toBe(0);
    offer(lane, entryOf('g'), entryOf('turned-away'));
    expect(roomCalls).toBe(0);
    clock.pass(GAP_MS);
    lane.acknowledge(answerTo(entries[1]!));
    expect(roomCalls).toBe(1);
  });

  test('after an unanswered frame a session takes one delivery at a time, until it answers', () => {
    const lane = openLane();
    lane.offer(entryOf('silent'));
    clock.pass(10_100);
    expect(ends.get('silent')).toMatchObject({ kind: 'ambiguous', reason: 'no-ack' });
    const one = entryOf('one');
    offer(lane, one, entryOf('two'));
    expect(written).toEqual(['silent', 'one']);
    expect(ends.get('two')).toEqual({ kind: 'unwritten', reason: 'lane-full' });
    lane.acknowledge(answerTo(one));
    expect(roomCalls).toBe(1);
    clock.pass(GAP_MS);
    offer(lane, entryOf('three'), entryOf('four'));
    expect(lane.waiting).toBe(1);
  });

  test('a stop passes a session that does not answer', () => {
    const lane = openLane();
    lane.offer(entryOf('silent'));
    clock.pass(10_100);
    offer(lane, entryOf('one'), entryOf('stop', { spec: stopSpec }));
    clock.pass(GAP_MS);
    expect(written).toEqual(['silent', 'one', 'stop']);
  });

  test('a stop finds the lane full only of other stops', () => {
    const lane = openLane();
    const stops = ['s1', 's2', 's3', 's4', 's5', 's6'].map((id) => entryOf(id, { spec: stopSpec }));
    offer(lane, entryOf('a'), entryOf('b', { priority: 9 }), ...stops);
    expect([...ends.keys()]).toEqual(['b', 's5', 's6']);
    clock.pass(GAP_MS);
    expect(written).toEqual(['a', 's1']);
    expect(roomCalls).toBe(1);
  });
});

describe('the moment of writing', () => {
  test('what expired while it waited is not written', () => {
    const lane = openLane();
    const a = entryOf('a');
    offer(lane, a, entryOf('b', { deadline: clock.now() + 2_000 }), entryOf('c'));
    clock.pass(2_000);
    lane.acknowledge(answerTo(a));
    expect(ends.get('b')).toMatchObject({ kind: 'refused', reason: 'expired' });
    expect(written).toEqual(['a', 'c']);
  });

  test('what expires while it waits behind an answer ends at its deadline', () => {
    const lane = openLane();
    offer(
      lane,
      entryOf('a', { ackTimeoutMs: 60_000 }),
      entryOf('b', { deadline: clock.now() + 2_000 }),
    );
    clock.pass(1_999);
    expect(ends.has('b')).toBe(false);
    clock.pass(1);
    expect(ends.get('b')).toMatchObject({ kind: 'refused', reason: 'expired' });
    expect(lane.waiting).toBe(0);
  });

  test('a delivery of another epoch is not written', () => {
    const lane = openLane({ epoch: EPOCH + 1 });
    lane.offer(entryOf('a'));
    expect(ends.get('a')).toEqual({ kind: 'unwritten', reason: 'stale-epoch' });
    expect(written).toEqual([]);
  });

  test('nothing is written without the lease', () => {
    const lane = openLane();
    const a = entryOf('a');
    offer(lane, a, entryOf('b'));
    leased = false;
    clock.pass(GAP_MS);
    lane.acknowledge(answerTo(a));
    expect(ends.get('b')).toMatchObject({ kind: 'unwritten', reason: 'offline' });
    expect(written).toEqual(['a']);
  });

  test('nothing is written to a socket that is closing', () => {
    const lane = openLane();
    socketOpen = false;
    lane.offer(entryOf('a'));
    expect(ends.get('a')).toEqual({ kind: 'unwritten', reason: 'socket-closed' });
  });

  test('what was withdrawn is not written; what was written is not withdrawn', () => {
    const lane = openLane();
    const [a, b] = [entryOf('a'), entryOf('b')];
    offer(lane, a, b);
    expect(lane.withdraw(b)).toBe(true);
    expect(lane.withdraw(a)).toBe(false);
    clock.pass(GAP_MS);
    lane.acknowledge(answerTo(a));
    expect(ends.get('b')).toMatchObject({ kind: 'refused', reason: 'withdrawn' });
    expect(written).toEqual(['a']);
  });
});

describe('the order of a line', () => {
  const at = (seq: number, line = 't:1/0') => ({ place: { line, seq } });
  const keyBlocked = { kind: 'unwritten', reason: 'key-blocked' };

  test('no smaller place of a line is written after a greater one', () => {
    const lane = openLane();
    const later = entryOf('later', at(7));
    offer(lane, later, entryOf('older', at(6)));
    expect(ends.get('older')).toEqual({
      ...keyBlocked,
      detail: 'place 7 of its line was written before its own, 6',
    });
    lane.acknowledge(answerTo(later));
    offer(lane, entryOf('older still', at(5)));
    expect(ends.get('older still')).toMatchObject(keyBlocked);
    expect(written).toEqual(['later']);
  });

  test('one that a stop has overtaken in the lane is not written at its turn', () => {
    const lane = openLane();
    const busy = entryOf('busy');
    offer(lane, busy, entryOf('start', at(6)), entryOf('stop', { ...at(7), spec: stopSpec }));
    clock.pass(GAP_MS);
    expect(written).toEqual(['busy', 'stop']);
    expect(ends.size).toBe(0);
    clock.pass(GAP_MS);
    lane.acknowledge(answerTo(busy));
    expect(ends.get('start')).toMatchObject(keyBlocked);
    expect(written).toEqual(['busy', 'stop']);
  });

  test('an overtaken one sends nobody out of a full lane', () => {
    const lane = openLane();
    const first = entryOf('first', at(7));
    offer(lane, first, ...['b', 'c', 'd', 'e'].map((id) => entryOf(id, { priority: 1 })));
    lane.offer(entryOf('older', { ...at(6), priority: 9 }));
    expect([...ends.keys()]).toEqual(['older']);
  });

  test('a further attempt has the same place and goes', () => {
    const lane = openLane();
    const start = entryOf('start', at(7));
    lane.offer(start);
    clock.pass(10_100);
    lane.offer(entryOf('start', { ...at(7), attempt: 2, wireId: start.delivery.wireId }));
    expect(written).toEqual(['start', 'start']);
  });

  test('places of different lines are not compared, nor is one without a place', () => {
    const lane = openLane({ inFlight: 9 });
    const rest = [entryOf('b', at(6, 't:1/1')), entryOf('c', at(5, 'o:1/0')), entryOf('d')];
    offer(lane, entryOf('a', at(7)), ...rest);
    clock.pass(3 * GAP_MS);
    expect(written).toEqual(['a', 'b', 'c', 'd']);
  });

  test('what was not written holds no place against an older one', () => {
    const lane = openLane();
    const expired = entryOf('expired', { ...at(7), deadline: clock.now() });
    offer(lane, expired, entryOf('older', at(6)));
    expect(ends.get('expired')).toMatchObject({ kind: 'refused', reason: 'expired' });
    expect(written).toEqual(['older']);
  });

  test('of a few hundred lines the one that was written longest ago is forgotten', () => {
    const lane = openLane({ inFlight: 2_000 });
    const write = (line: string) => {
      lane.offer(entryOf(line, { ...at(7, line), spec: specOf({ ack: 'none' }) }));
      clock.pass(GAP_MS);
    };
    for (let n = 0; n < 512; n += 1) write(`line ${n}`);
    write('line 0');
    write('one more');
    offer(lane, entryOf('kept', at(6, 'line 0')), entryOf('forgotten', at(6, 'line 1')));
    expect(ends.get('kept')).toMatchObject(keyBlocked);
    expect(written.at(-1)).toBe('forgotten');
  });
});

describe('answers', () => {
  test('the ack timeout runs from the write, not from the arrival', () => {
    const lane = openLane();
    const a = entryOf('a');
    offer(lane, a, entryOf('b', { ackTimeoutMs: 1_000 }));
    clock.pass(5_000);
    lane.acknowledge(answerTo(a));
    clock.pass(999);
    expect(ends.has('b')).toBe(false);
    clock.pass(101);
    expect(ends.get('b')).toMatchObject({ kind: 'ambiguous', reason: 'no-ack' });
  });

  test('an answer that carries a wire id goes to its own frame, whatever else it fits', () => {
    const lane = openLane({ inFlight: 2 });
    const takesAll = specOf({ any: true, recognise: () => ({ accepted: true, result: {} }) });
    const [a, b] = [entryOf('a', { spec: takesAll }), entryOf('b')];
    offer(lane, a, b);
    clock.pass(GAP_MS);
    lane.acknowledge(answerTo(b));
    expect([...ends.keys()]).toEqual(['b']);
    lane.acknowledge(reportWith(0));
    expect([...ends.keys()]).toEqual(['b', 'a']);
  });

  test('a message that answers nothing in flight changes nothing', () => {
    const lane = openLane();
    lane.offer(entryOf('a'));
    expect(lane.acknowledge(reportWith(999_999))).toBe(false);
    expect(lane.inFlight).toBe(1);
  });

  test('a refusal of the device keeps its code', () => {
    const lane = openLane();
    const no = { accepted: false, code: '3', reason: 'port fault', result: {} } as const;
    const a = entryOf('a', { spec: specOf({ recognise: () => no }) });
    lane.offer(a);
    lane.acknowledge(answerTo(a));
    expect(ends.get('a')).toMatchObject({ kind: 'rejected', code: '3', reason: 'port fault' });
  });

  test('a late answer ends the retry that has not been written yet', () => {
    const lane = openLane();
    offer(lane, entryOf('busy'), entryOf('retried'));
    const outcome: AckOutcome = {
      kind: 'acked',
      result: {},
      writtenAt: clock.now() - 12_000,
      endedAt: clock.now(),
      frameIn: 'aa',
    };
    lane.sawAnswer('retried', outcome);
    expect(ends.get('retried')).toEqual({ ...outcome, earlier: true });
    expect(lane.waiting).toBe(0);
  });
});

describe('the end of a session', () => {
  test('frames in flight are ambiguous, waiting ones surely unwritten, and no timer is left', () => {
    const lane = openLane();
    offer(lane, entryOf('a'), entryOf('b'));
    const writtenAt = clock.now();
    clock.pass(50);
    lane.close('socket-closed', 'connection-lost');
    expect(ends.get('a')).toEqual({
      kind: 'ambiguous',
      reason: 'connection-lost',
      writtenAt,
      endedAt: clock.now(),
    });
    expect(ends.get('b')).toEqual({ kind: 'unwritten', reason: 'socket-closed' });
    ends.clear();
    clock.pass(20_000);
    expect(ends.size).toBe(0);
    expect(written).toEqual(['a']);
  });
});
