/** What the server owes a device for its reports, and what those reports are worth. */
import type { Answer, Fields, Message, ReportWeight } from '../protocol.ts';
import { toDeviceTime } from './device-time.ts';
import { type KvElement, kv } from './kv.ts';
import { elementsOf, encodeMessage } from './message-codec.ts';

const done = 1;

/** What a message deserves: the weight of what it reports, and how it is answered. */
const reports: Readonly<Record<string, { weight: ReportWeight; answer: AnswerOf | null }>> = {
  heartbeat: { weight: 'heartbeat', answer: timeOfDay },
  'status.report': {
    weight: 'state',
    answer: (message) => keyValueAck(message, [kv('ack', done)]),
  },
  'exception.report': {
    weight: 'state',
    answer: (message) => keyValueAck(message, [...echoed(message, 'socketNo'), kv('ack', done)]),
  },
  'node.event': { weight: 'state', answer: null },
  'fee.end': {
    weight: 'money',
    answer: (message) =>
      keyValueAck(message, [kv('ack', done), ...echoed(message, 'socketNo', 'holeNo')]),
  },
  // The vendor leaves out the ack of 02 and of 18. A device that got the ack of the card end
  // stopped repeating its 02, and the one thing known otherwise is that without an ack it repeats
  // and reconnects; `02` and `18` as sub-command would be the natural form, but nobody has seen a
  // device take it.
  'charge.end': { weight: 'money', answer: endAck },
  'tiers.end': { weight: 'money', answer: endAck },
  'card.end': { weight: 'money', answer: endAck },
  // They number a charge: without them it could not be told later which charge a start began.
  'control.reply': { weight: 'money', answer: null },
  'tiers.start.reply': { weight: 'money', answer: null },
  'fee.start.reply': { weight: 'money', answer: null },
  // These two are answered by commands: card.order and card.balance.
  'card.swipe': { weight: 'money', answer: null },
  'card.balance.query': { weight: 'money', answer: null },
};

type AnswerOf = (message: Message, nowMs: number) => Answer | null;

/** The frame that the server owes for an uplink message; null for nothing. */
export function answerTo(message: Message, nowMs: number): Answer | null {
  if (message.direction !== 'up' || !Object.hasOwn(reports, message.name)) return null;
  return reports[message.name]?.answer?.(message, nowMs) ?? null;
}

/** What a report is worth. Most answers to commands and what we do not know count as state. */
export function weightOf(message: Message): ReportWeight {
  return Object.hasOwn(reports, message.name) ? reports[message.name]!.weight : 'state';
}

function timeOfDay(message: Message, nowMs: number): Answer {
  const timeBcdLocal = toDeviceTime(nowMs);
  return { frame: reply(message, 'heartbeat.reply', { timeBcdLocal }), after: 'receipt' };
}

function endAck(message: Message): Answer | null {
  const { socketNo } = message.fields;
  if (typeof socketNo !== 'number') return null;
  return { frame: reply(message, 'charge.end.ack', { socketNo, result: done }), after: 'storage' };
}

function keyValueAck(message: Message, elements: readonly KvElement[]): Answer {
  return { frame: reply(message, `${message.name}.ack`, { kv: elements }), after: 'storage' };
}

/** Device-initiated exchanges run under msgId 0 on both sides. */
function reply({ deviceId }: Message, name: string, fields: Fields): Uint8Array {
  return encodeMessage({ direction: 'down', name, deviceId, msgId: 0, fields });
}

function echoed(message: Message, ...names: string[]): KvElement[] {
  return names.flatMap(
    (name) => elementsOf(message).find((element) => element.name === name) ?? [],
  );
}
