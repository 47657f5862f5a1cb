/** Answers to a card: the order after a swipe, and its balance, BKV V1.7 §"card". */
import { type Static, Type } from 'typebox';
import type { CommandSpec } from '../../protocol.ts';
import { ackOf, isReply } from '../acks.ts';
import { encodeMessage } from '../message-codec.ts';
import { cardOrderProbe } from '../start-probe.ts';
import {
  AmountCents,
  chargeTtlMs,
  checkMode,
  closed,
  EnergyWh,
  type ModeRules,
  Port,
  PositiveWord,
  portKey,
  priorities,
  Socket,
  starts,
  Tiers,
  tierFields,
  Word,
} from './params.ts';

const OrderParams = Type.Object(
  {
    socket: Socket,
    port: Port,
    businessNo: Type.Integer({ ...Word, description: 'the number that came with the swipe' }),
    mode: Type.Enum(['time', 'tiers']),
    time: Type.Optional(
      Type.Integer({
        ...PositiveWord,
        description: 'the limit as the device counts it; its sample is 48000',
      }),
    ),
    energyWh: Type.Optional(EnergyWh),
    amountCents: Type.Optional(AmountCents),
    tiers: Type.Optional(Tiers),
  },
  closed,
);
type OrderParams = Static<typeof OrderParams>;

const BalanceParams = Type.Object(
  {
    socket: Socket,
    port: Port,
    card: Type.String({ pattern: '^[0-9a-fA-F]{12}$', description: '12 hex digits' }),
    balanceCents: Type.Integer({ minimum: 0, maximum: 0xffffffff }),
  },
  closed,
);
type BalanceParams = Static<typeof BalanceParams>;

const orderModes: ModeRules = {
  time: { needs: ['time'], takes: ['energyWh'] },
  tiers: { needs: ['amountCents', 'tiers'], takes: [] },
};
/** The wire value by energy is not known: the vendor shows these two only. */
const wireModes = { time: 1, tiers: 3 } as const;

export const cardCommands = {
  'card.order': {
    title: 'Start the charge that a card swipe asked for',
    params: OrderParams,
    priority: priorities.start,
    ttlMs: chargeTtlMs,
    ack: 'reply',
    repeatable: false,
    onAmbiguous: 'probe',
    probe: cardOrderProbe,
    supersedes: [],
    excludes: starts,
    orderKey: (params) => portKey(params as OrderParams),
    check: (params) => checkMode(params, orderModes),
    encode: (params, deviceId, wireId) => encodeOrder(params as OrderParams, deviceId, wireId),
    recognise: (_params, wireId, message) =>
      isReply(message, wireId, 'card.order.reply') ? ackOf(message) : null,
  },
  'card.balance': {
    title: "Answer a card's question for its balance",
    params: BalanceParams,
    priority: priorities.start,
    ttlMs: chargeTtlMs,
    // It is itself the answer to the device's question.
    ack: 'none',
    repeatable: true,
    onAmbiguous: 'resend',
    supersedes: [],
    orderKey: () => null,
    encode(params, deviceId, wireId) {
      const { socket, port, card, balanceCents } = params as BalanceParams;
      return encodeMessage({
        direction: 'down',
        name: 'card.balance',
        deviceId,
        msgId: wireId,
        fields: { socketNo: socket, holeNo: port, cardNo: card, balanceCent: balanceCents },
      });
    },
    recognise: () => null,
  },
} satisfies Record<string, CommandSpec>;

function encodeOrder(params: OrderParams, deviceId: string, msgId: number): Uint8Array {
  const { socket, port, businessNo, mode, time = 0, energyWh = 0, amountCents = 0, tiers } = params;
  const fields = {
    socketNo: socket,
    holeNo: port,
    businessNo: businessNo.toString(16).padStart(4, '0'),
    switch: 1,
    mode: wireModes[mode],
    minutes: time,
    energyWh,
    ...(tiers === undefined ? {} : tierFields(amountCents, tiers)),
  };
  return encodeMessage({ direction: 'down', name: 'card.order', deviceId, msgId, fields });
}
