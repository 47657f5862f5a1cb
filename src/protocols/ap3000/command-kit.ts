/** What the commands of the table have in common. */
import { type TProperties, Type } from 'typebox';
import type { Ack } from '../../outcome.ts';
import type { CommandSpec, Fields, Message } from '../protocol.ts';
import { meaningOf } from './codes.ts';
import { encodeMessage } from './message.ts';
import { orderNoPattern } from './order-number.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;

export const priorities = {
  stop: 9,
  control: 7,
  query: 5,
  restart: 5,
  raw: 5,
  other: 3,
  ota: 1,
} as const;
export const ttls = { control: minuteMs, other: hourMs } as const;

/** A schema that refuses params it does not know. */
export const params = <T extends TProperties>(properties: T) =>
  Type.Object(properties, { additionalProperties: false });

export const noParams = params({});
export const byte = (description: string) =>
  Type.Integer({ minimum: 0, maximum: 0xff, description });
export const word = (description: string) =>
  Type.Integer({ minimum: 0, maximum: 0xffff, description });
export const Port = Type.Integer({ minimum: 0, maximum: 15, description: '0 is port 1' });
export const OrderNo = Type.String({
  pattern: orderNoPattern,
  description: '1 to 16 printable ASCII characters, or exactly 32 hex digits for 16 raw bytes',
});

type Shared = Pick<
  CommandSpec,
  'priority' | 'ttlMs' | 'ack' | 'repeatable' | 'onAmbiguous' | 'orderKey' | 'supersedes'
>;

/** Reads change nothing: they repeat freely and keep to no order. */
export const query: Shared = {
  priority: priorities.query,
  ttlMs: ttls.other,
  ack: 'reply',
  repeatable: true,
  onAmbiguous: 'resend',
  orderKey: () => null,
  supersedes: [],
};

/**
 * Writing the same value twice does no harm; writes of one device keep their order. None replaces an
 * older one: the line holds restarts and raw memory writes too, and one that stands between two
 * settings may need the older.
 */
export const idempotentWrite: Shared = {
  ...query,
  priority: priorities.other,
  orderKey: () => 'device',
};

/** Doing it twice does harm: when in doubt whether it arrived, leave it there. */
export const oneShot: Shared = {
  ...idempotentWrite,
  repeatable: false,
  onAmbiguous: 'stop',
};

/** What a port is told: short-lived, in order per port. */
export const portControl: Shared = {
  ...query,
  priority: priorities.control,
  ttlMs: ttls.control,
  orderKey: ({ port }) => `port:${String(port)}`,
};

/** A stop: gone with it is what would start its port or let it charge for longer. */
export const stopControl: Shared & { preempts: true } = {
  ...portControl,
  priority: priorities.stop,
  preempts: true,
  supersedes: ['charge.start', 'charge.modify'],
};

/** The frame of a request of the message table. */
export function request(
  name: string,
  fields: Fields,
  deviceId: string,
  wireId: number,
): Uint8Array {
  return encodeMessage({ direction: 'down', name, deviceId, msgId: wireId, fields });
}

/** Whether the message answers that request: the command byte (here: its name) and the id are echoed. */
export function answers(name: string, wireId: number, message: Message): boolean {
  return message.direction === 'up' && message.name === `${name}.reply` && message.msgId === wireId;
}

type Verdict = {
  codes?: Readonly<Record<number, string>>;
  /** What the answer tells beside its code. */
  result?: (fields: Fields) => Record<string, unknown>;
};

/** The end that an answer with a result byte means; null when it is too short to hold one. */
export function ackOf(
  { fields }: Message,
  { codes = {}, result = () => ({}) }: Verdict = {},
): Ack | null {
  const { result: code } = fields;
  if (typeof code !== 'number') return null;
  if (code === 0) return { accepted: true, result: result(fields) };
  return {
    accepted: false,
    code: String(code),
    reason: meaningOf(codes, code),
    result: { code: String(code), ...result(fields) },
  };
}

type Exchange = Pick<CommandSpec, 'encode' | 'recognise'>;

/** Encode and recognise of a request that is answered by a result byte. */
export function exchange(
  name: string,
  fieldsOf: (params: Record<string, unknown>) => Fields = () => ({}),
  verdict: Verdict = {},
): Exchange {
  return {
    encode: (given, deviceId, wireId) => request(name, fieldsOf(given), deviceId, wireId),
    recognise: (_given, wireId, message) =>
      answers(name, wireId, message) ? ackOf(message, verdict) : null,
  };
}
