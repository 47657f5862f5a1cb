import { describe, expect, it } from 'vitest';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { type KvElement, kv } from '../../src/protocols/bkv/kv.ts';
import type { Evidence, Fields, Observation } from '../../src/protocols/protocol.ts';
import { decodeOne } from './bkv-frames.ts';

const deviceId = '86004459453005';
const writtenAt = 1_700_000_000_000;
const secondMs = 1000;
const start = { socket: 3, port: 1, mode: 'time', minutes: 60 };
const order = { socket: 3, port: 1, businessNo: 26, mode: 'time', time: 60 };

const idle = '80';
const charging = '90';

/** The fields of a report as the gateway stores them: read from the bytes of a device. */
function fieldsOf(name: string, fields: Fields): Fields {
  const frame = bkv.encode({ direction: 'up', name, deviceId, msgId: 0, fields });
  const message = decodeOne(frame, 'up');
  expect(message.fault).toBeUndefined();
  return JSON.parse(JSON.stringify(message.fields)) as Fields;
}

type Hole = { socket?: number; port?: number; status?: string; number?: number; minutes?: number };

function observed(name: string, afterS: number, fields: Fields): Observation {
  return { name, at: writtenAt + afterS * secondMs, fields: fieldsOf(name, fields) };
}

function hex16(number: number): string {
  return number.toString(16).padStart(4, '0');
}

function holeElement({ port = 1, status = idle, number = 0, minutes = 0 }: Hole): KvElement {
  return kv('hole', [
    kv('holeNo', port),
    kv('holeStatus', status),
    kv('businessNo', hex16(number)),
    kv('chargedMin', minutes),
  ]);
}

function report(afterS: number, hole: Hole): Observation {
  const { socket = 3, port = 1 } = hole;
  const cluster = [
    kv('socketNo', socket),
    holeElement({ port: 1 - port, status: charging, number: 999 }),
    holeElement(hole),
  ];
  return observed('status.report', afterS, { kv: [kv('socketStatusCluster', cluster)] });
}

function ended(afterS: number, hole: Hole, name = 'charge.end'): Observation {
  const { socket = 3, port = 1, status = 'b0', number = 0, minutes = 0 } = hole;
  const tiers = { amountCent: 0, settlePowerDeciW: 0, tierMinutes: [] };
  return observed(name, afterS, {
    socketNo: socket,
    socketFwVersion: 'ffff',
    tempC: 30,
    rssi: 30,
    holeNo: port,
    holeStatus: `0x${status}`,
    businessNo: hex16(number),
    powerDeciW: 1000,
    currentMilliA: 500,
    energyWh: 1,
    chargedMin: minutes,
    ...(name === 'tiers.end' && { endTime: '2024-01-01 00:00:00', endReason: 2, ...tiers }),
    ...(name === 'card.end' && { cardNo: '000000298352', cardType: 0, billingMode: 1, ...tiers }),
  });
}

function feeEnded(afterS: number, number: number): Observation {
  return observed('fee.end', afterS, {
    kv: [
      kv('socketNo', 3),
      kv('holeNo', 1),
      kv('holeStatus', '98'),
      kv('businessNo', hex16(number)),
      kv('chargedMin', 0),
    ],
  });
}

function swiped(afterS: number, number: number, status = idle): Observation {
  return observed('card.swipe', afterS, {
    socketNo: 3,
    holeNo: 1,
    businessNo: hex16(number),
    holeStatus: `0x${status}`,
    cardNo: '000000298352',
    offlineParams: '00'.repeat(20),
  });
}

/** What the device answers to the probe, as the command table reads it. */
function answer({ socket = 3, port = 1, status = idle, number = 0, minutes = 0 }: Hole) {
  const state = (holeNo: number, holeStatus: string, businessNo: number) => ({
    holeNo,
    holeStatus: `0x${holeStatus}`,
    businessNo: hex16(businessNo),
    voltageDeciV: 2280,
    powerDeciW: 0,
    currentMilliA: 0,
    energyWh: 0,
    chargedMin: minutes,
  });
  const holes = [state(1 - port, charging, 999), state(port, status, number)];
  const fields = { socketNo: socket, socketFwVersion: 'ffff', tempC: 30, rssi: 30, holes };
  const frame = bkv.encode({
    direction: 'up',
    name: 'port.query.reply',
    deviceId,
    msgId: 7,
    fields,
  });
  const ack = bkv.commands['port.query']!.recognise({ socket }, 7, decodeOne(frame, 'up'));
  if (ack === null) throw new Error('the reply is not recognised');
  return ack;
}

function judge(
  command: 'charge.start' | 'card.order',
  told: Evidence['answer'],
  before: readonly Observation[],
  since: readonly Observation[] = [],
  rivals: readonly number[] = [],
) {
  const newestFirst = (list: readonly Observation[]) => list.toSorted((a, b) => b.at - a.at);
  return bkv.commands[command]!.probe!.judge(command === 'card.order' ? order : start, {
    answer: told,
    writtenAt,
    before: newestFirst(before),
    since: newestFirst(since),
    rivals,
  });
}

const tookEffect = (businessNo: number) => ({
  kind: 'took-effect',
  result: { businessNo, socket: 3, port: 1 },
});
const unclear = (reason: RegExp) => ({ kind: 'unclear', reason: expect.stringMatching(reason) });
const noEffect = { kind: 'no-effect' };
/** The charge before: number 5, long over. */
const earlier = ended(-3600, { number: 5, minutes: 30 });

describe('the probe of a start', () => {
  it('asks for the state of the socket', () => {
    const { probe } = bkv.commands['charge.start']!;
    expect(probe).toMatchObject({ kind: 'ask', command: 'port.query' });
    expect(probe?.kind === 'ask' && probe.params(start)).toEqual({ socket: 3 });
  });

  it('finds that it took effect in a charge under a number that was not there before', () => {
    const told = answer({ status: charging, number: 6 });
    expect(judge('charge.start', told, [earlier])).toEqual(tookEffect(6));
    expect(judge('charge.start', told, [report(-60, {})])).toEqual(tookEffect(6));
    expect(judge('charge.start', told, [report(-60, { number: 0 }), earlier])).toEqual(
      tookEffect(6),
    );
  });

  it('takes no charge for its own that an earlier unanswered start may have begun', () => {
    const told = answer({ status: charging, number: 6 });
    const since = writtenAt - 30_000;
    expect(judge('charge.start', told, [earlier], [], [since])).toEqual(unclear(/earlier/));
    // What tells no number tells nothing of that start either.
    expect(judge('charge.start', told, [report(-10, { number: 0 }), earlier], [], [since])).toEqual(
      unclear(/earlier/),
    );
    // What the port showed after that start is the number that this one must differ from.
    expect(judge('charge.start', told, [report(-10, { number: 5 })], [], [since])).toEqual(
      tookEffect(6),
    );
  });

  it('finds it in a charge that was over before anybody asked', () => {
    const told = answer({});
    for (const name of ['charge.end', 'tiers.end']) {
      expect(judge('charge.start', told, [earlier], [ended(20, { number: 6 }, name)])).toEqual(
        tookEffect(6),
      );
    }
    expect(judge('charge.start', told, [earlier], [feeEnded(20, 6)])).toEqual(tookEffect(6));
    const seen = report(5, { status: charging, number: 6 });
    expect(judge('charge.start', told, [earlier], [seen])).toEqual(tookEffect(6));
  });

  it('finds no effect at a port that is plainly idle', () => {
    expect(judge('charge.start', answer({}), [])).toEqual(noEffect);
    expect(judge('charge.start', answer({}), [earlier])).toEqual(noEffect);
    expect(judge('charge.start', answer({ number: 5 }), [earlier])).toEqual(noEffect);
    // the end of the charge before, reported again
    const again = ended(5, { number: 5, minutes: 30 });
    expect(judge('charge.start', answer({}), [earlier], [again])).toEqual(noEffect);
  });

  it('cannot tell where no report gives the number before the write', () => {
    const told = answer({ status: charging, number: 6 });
    const elsewhere = [
      ended(-60, { socket: 4, number: 5 }),
      ended(-60, { port: 0, number: 5 }),
      report(-60, { socket: 4 }),
    ];
    expect(judge('charge.start', told, [])).toEqual(unclear(/no report tells/));
    expect(judge('charge.start', told, elsewhere)).toEqual(unclear(/no report tells/));
    const over = [ended(20, { number: 6 })];
    expect(judge('charge.start', answer({}), [], over)).toEqual(unclear(/no report tells/));
  });

  it('knows the charge before from the answers to its start and its stop', () => {
    const acked = observed('control.reply', -30, {
      result: 1,
      socketNo: 3,
      holeNo: 1,
      businessNo: hex16(6),
    });
    const byFee = observed('fee.start.reply', -30, {
      kv: [kv('socketNo', 3), kv('holeNo', 1), kv('businessNo', hex16(6)), kv('ack', 1)],
    });
    for (const reply of [acked, byFee]) {
      // its end is reported only now
      const over = ended(1, { number: 6 });
      expect(judge('charge.start', answer({}), [earlier, reply], [over])).toEqual(noEffect);
      const told = answer({ status: charging, number: 6 });
      expect(judge('charge.start', told, [earlier, reply])).toEqual(unclear(/under number 6/));
    }
  });

  it('cannot tell from the answer to nobody knows which start', () => {
    const reply = { result: 1, socketNo: 3, holeNo: 1, businessNo: hex16(6) };
    const since = [observed('control.reply', 5, reply)];
    expect(judge('charge.start', answer({}), [earlier], since)).toEqual(unclear(/number 6/));
    // what a stop answers while nothing is charging is the number from before
    const known = [observed('control.reply', 5, { ...reply, businessNo: hex16(5) })];
    expect(judge('charge.start', answer({}), [earlier], known)).toEqual(noEffect);
  });

  it('cannot tell where the number is the one from before', () => {
    const told = answer({ status: charging, number: 5 });
    const running = report(-60, { status: charging, number: 5 });
    expect(judge('charge.start', told, [running])).toEqual(unclear(/under number 5/));
    expect(judge('charge.start', answer({ status: charging }), [earlier])).toEqual(
      unclear(/without a number/),
    );
  });

  it.each(['00', '88', 'a0', 'c0'])('cannot tell from status %s', (status) => {
    expect(judge('charge.start', answer({ status }), [earlier])).toEqual(
      unclear(new RegExp(`0x${status}`)),
    );
  });

  it('cannot tell from an idle port whose number changed', () => {
    expect(judge('charge.start', answer({ number: 6 }), [earlier])).toEqual(unclear(/number 6/));
    expect(judge('charge.start', answer({ number: 6 }), [])).toEqual(unclear(/number 6/));
  });

  it('does not take the charge of a card for its own', () => {
    const told = answer({ status: charging, number: 6 });
    expect(judge('charge.start', told, [earlier], [swiped(3, 6)])).toEqual(unclear(/card/));
    const over = ended(30, { number: 6 }, 'card.end');
    expect(judge('charge.start', answer({}), [earlier], [over])).toEqual(unclear(/card/));
    expect(judge('charge.start', told, [swiped(-3, 6)])).toEqual(unclear(/under number 6/));
  });

  it('does not take a charge from before the write for its own', () => {
    const old = ended(20, { number: 6, minutes: 15 });
    expect(judge('charge.start', answer({}), [earlier], [old])).toEqual(unclear(/began before/));
    // whole minutes: one that took 20 s may be counted as a minute
    const rounded = ended(20, { number: 6, minutes: 1 });
    expect(judge('charge.start', answer({}), [earlier], [rounded])).toEqual(tookEffect(6));
  });

  it('cannot tell one charge of several', () => {
    const told = answer({ status: charging, number: 7 });
    const over = ended(20, { number: 6 });
    expect(judge('charge.start', told, [earlier], [over])).toEqual(unclear(/7, 6/));
    const back = answer({ status: charging, number: 5 });
    expect(judge('charge.start', back, [earlier], [over])).toEqual(unclear(/not under number 6/));
  });

  it('cannot tell from an answer that says nothing of the port', () => {
    const other = { accepted: true as const, result: { socket: 3, holes: [{ port: 0 }] } };
    expect(judge('charge.start', other, [earlier])).toEqual(unclear(/does not tell/));
    expect(judge('charge.start', answer({ socket: 4 }), [earlier])).toEqual(
      unclear(/does not tell/),
    );
    for (const holes of [null, 'none', [null], [{ port: 1 }]]) {
      const odd = { accepted: true as const, result: { socket: 3, holes } };
      expect(judge('charge.start', odd, [earlier])).toEqual(unclear(/does not tell/));
    }
    const refused = { accepted: false as const, code: '0', reason: 'it failed', result: {} };
    expect(judge('charge.start', refused, [earlier])).toEqual(unclear(/it failed/));
  });

  it('passes over reports that are not what their names say', () => {
    const names = bkv.commands['charge.start']!.probe!.reports;
    const odd: Fields[] = [{}, { kv: 'x' }, { kv: [] }, { socketNo: 3, holeNo: 1 }];
    const told = answer({ status: charging, number: 6 });
    for (const name of names) {
      for (const fields of odd) {
        const observation = { name, at: writtenAt, fields };
        expect(judge('charge.start', told, [observation], [observation])).toEqual(
          unclear(/no report tells/),
        );
      }
    }
  });
});

describe('the probe of a card order', () => {
  it('finds that it took effect in a charge under the number of the swipe', () => {
    const told = answer({ status: charging, number: 26 });
    expect(judge('card.order', told, [swiped(-5, 26)])).toEqual(tookEffect(26));
    expect(judge('card.order', told, [])).toEqual(tookEffect(26));
    const over = ended(20, { number: 26 }, 'card.end');
    expect(judge('card.order', answer({}), [swiped(-5, 26)], [over])).toEqual(tookEffect(26));
  });

  it('finds no effect at a port that is plainly idle, under the number of the swipe or none', () => {
    expect(judge('card.order', answer({}), [swiped(-5, 26)])).toEqual(noEffect);
    expect(judge('card.order', answer({ number: 26 }), [swiped(-5, 26)])).toEqual(noEffect);
  });

  it('cannot tell where the port charged under that number before, or charges under another', () => {
    const told = answer({ status: charging, number: 26 });
    expect(judge('card.order', told, [swiped(-5, 26, charging)])).toEqual(unclear(/before/));
    const running = report(-60, { status: charging, number: 26 });
    expect(judge('card.order', told, [running])).toEqual(unclear(/before/));
    const other = answer({ status: charging, number: 27 });
    expect(judge('card.order', other, [swiped(-5, 26)])).toEqual(unclear(/under number 27/));
  });
});
