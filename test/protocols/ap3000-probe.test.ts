import { describe, expect, it } from 'vitest';
import type { Ack } from '../../src/outcome.ts';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import { orderNoToWire } from '../../src/protocols/ap3000/order-number.ts';
import type { Observation } from '../../src/protocols/protocol.ts';

const writtenAt = 1_700_000_000_000;
const start = { port: 1, mode: 'time', seconds: 60, orderNo: 'order-1' };
const refused = (code: string): Ack => ({ accepted: false, code, reason: 'no', result: {} });
const sameState = refused('2');

function observed(name: string, afterS: number, port: number, orderNo: string): Observation {
  const fields = { port, portStatus: 1, orderNo: orderNoToWire(orderNo) };
  return { name, at: writtenAt + afterS * 1000, fields };
}

const power = (afterS: number, port: number, orderNo: string) =>
  observed('power', afterS, port, orderNo);

function judge(
  answer: Ack,
  since: readonly Observation[] = [],
  before: readonly Observation[] = [],
  params: Record<string, unknown> = start,
) {
  const { probe } = ap3000.commands['charge.start']!;
  return probe!.judge(params, { answer, writtenAt, before, since, rivals: [] });
}

const tookEffect = { kind: 'took-effect', result: { orderNo: 'order-1', port: 1 } };
const unclear = (reason: RegExp) => ({ kind: 'unclear', reason: expect.stringMatching(reason) });

describe('the probe of a start', () => {
  it('is the same frame again', () => {
    expect(ap3000.commands['charge.start']!.probe).toMatchObject({ kind: 'repeat' });
  });

  it('finds in "same state" that it took effect, once a power report shows its order', () => {
    expect(judge(sameState, [power(9, 1, 'order-1')])).toEqual(tookEffect);
    expect(judge(sameState, [power(12, 0, 'order-2'), power(9, 1, 'order-1')])).toEqual(tookEffect);
  });

  it('compares orders as the wire has them', () => {
    const hex = 'AB'.repeat(16);
    const params = { ...start, orderNo: hex };
    expect(judge(sameState, [power(9, 1, hex.toLowerCase())], [], params)).toEqual({
      kind: 'took-effect',
      result: { orderNo: hex, port: 1 },
    });
  });

  it('cannot tell from "same state" alone', () => {
    expect(judge(sameState)).toEqual(unclear(/no power report has named order order-1/));
    expect(judge(sameState, [power(9, 0, 'order-1')])).toEqual(unclear(/no power report/));
    // a report from before the write tells of an earlier start of that order
    expect(judge(sameState, [], [power(-9, 1, 'order-1')])).toEqual(unclear(/no power report/));
    expect(judge(sameState, [power(9, 1, 'order-2')])).toEqual(
      unclear(/reports order order-2 there, not order-1/),
    );
  });

  it('learns the port that the device chose', () => {
    const params = { ...start, port: 'auto' };
    expect(judge(sameState, [power(9, 4, 'order-1')], [], params)).toEqual({
      kind: 'took-effect',
      result: { orderNo: 'order-1', port: 4 },
    });
  });

  it.each(['1', '3', '6', '14'])('lets refusal %s stand', (code) => {
    expect(judge(refused(code))).toEqual({ kind: 'no-effect' });
  });

  it('finds its effect behind a refusal when its charge is over already', () => {
    const settled = observed('settlement', 12, 1, 'order-1');
    expect(judge(refused('1'), [settled])).toEqual(tookEffect);
    expect(judge(refused('1'), [power(9, 1, 'order-1')])).toEqual(tookEffect);
  });

  it('does not take the settlement of an order that ran before for its own', () => {
    const settled = observed('settlement', 12, 1, 'order-1');
    const ran = power(-600, 1, 'order-1');
    expect(judge(sameState, [settled], [ran])).toEqual(unclear(/no power report/));
    expect(judge(refused('1'), [settled], [ran])).toEqual({ kind: 'no-effect' });
  });

  it('passes over reports that are not what their names say', () => {
    const { reports } = ap3000.commands['charge.start']!.probe!;
    const odd = reports.flatMap((name) =>
      [{}, { port: 1 }, { port: 1, orderNo: 7 }].map((fields) => ({ name, at: writtenAt, fields })),
    );
    expect(judge(sameState, odd, odd)).toEqual(unclear(/no power report/));
  });
});
