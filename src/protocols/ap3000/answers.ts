/** What the server owes the device for a message, and what a message is worth. */
import type { Answer, Fields, Message, ReportWeight } from '../protocol.ts';
import { encodeMessage } from './message.ts';

const ok: Fields = { result: 0 };

const weights: Readonly<Record<string, ReportWeight>> = {
  'heartbeat.legacy': 'heartbeat',
  heartbeat: 'heartbeat',
  register: 'heartbeat',
  time: 'heartbeat',
  'host.heartbeat': 'heartbeat',
  'host.time': 'heartbeat',
  iccid: 'heartbeat',
  link: 'heartbeat',
  card: 'money',
  settlement: 'money',
  'order.confirm': 'money',
  'cabinet.finished': 'money',
};

/**
 * The answer to an uplink message; it echoes the message's id.
 *
 * - 01 and 21 are each answered as they come: once a 21 was answered the device sends no more 01.
 * - 03 and 04 wait for the store, even when their payload is damaged: the stored frame keeps every
 *   byte, and an unanswered 03 would keep all later records of the device back.
 * - 02 (card) is not answered here: the account behind the card is the business's knowledge; it
 *   answers with the command `card.answer`, or with a raw frame.
 * - 15 (host asks for an upgrade) and 43 (cabinet: finished, not settled) get nothing: the one would
 *   promise packets, for the other the vendor defines no answer.
 */
export function answerTo(message: Message, nowMs: number): Answer | null {
  if (message.direction !== 'up') return null;
  switch (message.name) {
    case 'heartbeat.legacy':
    case 'heartbeat':
    case 'register':
      return { frame: reply(message, ok), after: 'receipt' };
    case 'time':
    case 'host.time':
      return { frame: reply(message, { unixTime: unixTime(nowMs) }), after: 'receipt' };
    case 'settlement':
      return { frame: reply(message, ok), after: 'storage' };
    case 'order.confirm': {
      const { port } = message.fields;
      return port === undefined
        ? null
        : { frame: reply(message, { port, result: 0 }), after: 'storage' };
    }
    default:
      return null;
  }
}

/** Events and states unless the table says otherwise. */
export function weightOf(message: Message): ReportWeight {
  return weights[message.name] ?? 'state';
}

function reply({ name, deviceId, msgId }: Message, fields: Fields): Uint8Array {
  return encodeMessage({ direction: 'down', name: `${name}.reply`, deviceId, msgId, fields });
}

/** The wire has 32 bits, enough until 2106. */
function unixTime(nowMs: number): number {
  return Math.floor(nowMs / 1000) % 2 ** 32;
}
