/** State, parameters and voice of a socket, BKV V1.7 §"query", §"parameters" and §"voice". */
import { type Static, Type } from 'typebox';
import type { Ack } from '../../../outcome.ts';
import type { CommandSpec, Message } from '../../protocol.ts';
import { ackOf, isReply, socketState } from '../acks.ts';
import { known } from '../hole-state.ts';
import { kv, kvValue } from '../kv.ts';
import { elementsOf, encodeMessage } from '../message-codec.ts';
import { Byte, closed, hourMs, Port, priorities, Socket, TimeOfDay, Word } from './params.ts';

const maxSocket = 250;
const allSockets = 254;

const SocketParams = Type.Object({ socket: Socket }, closed);
type SocketParams = Static<typeof SocketParams>;

const SetParams = Type.Object(
  {
    socket: Socket,
    fullChargeDelayS: Type.Optional(Type.Integer(Word)),
    noLoadDelayS: Type.Optional(Type.Integer(Word)),
    fullPowerDeciW: Type.Optional(Type.Integer(Word)),
    noLoadPowerDeciW: Type.Optional(Type.Integer(Word)),
    highTemperatureC: Type.Optional(Type.Integer(Byte)),
    maxPowerDeciW: Type.Optional(Type.Integer(Word)),
    maxMinutes: Type.Optional(Type.Integer(Word)),
  },
  closed,
);
type SetParams = Static<typeof SetParams>;

/** Our names and the vendor's, in the order of its sample. */
const settable: readonly (readonly [Exclude<keyof SetParams, 'socket'>, string])[] = [
  ['fullChargeDelayS', 'fullChargeDelayS'],
  ['noLoadDelayS', 'nullChargeDelayS'],
  ['fullPowerDeciW', 'fullPowerThresholdDeciW'],
  ['noLoadPowerDeciW', 'nullPowerThresholdDeciW'],
  ['highTemperatureC', 'highTempThresholdC'],
  ['maxPowerDeciW', 'powerLimitDeciW'],
  ['maxMinutes', 'maxChargeMin'],
];
const readable: readonly (readonly [string, string])[] = [
  ...settable,
  ['tricklePercent', 'tricklePercent'],
  ['maxCurrentMilliA', 'overCurrentLimitMilliA'],
  ['buttonBaseAmount', 'buttonBaseAmount'],
  ['antiPulseTime', 'antiPulseTime'],
];

const VoiceParams = Type.Object(
  {
    socket: Type.Integer({ minimum: 0, maximum: allSockets, description: '254 means all sockets' }),
    port: Port,
    buzzer: Type.Boolean(),
    voice: Type.Boolean(),
    windows: Type.Array(Type.Object({ from: TimeOfDay, to: TimeOfDay }, closed), { maxItems: 2 }),
  },
  closed,
);
type VoiceParams = Static<typeof VoiceParams>;

const query = {
  params: SocketParams,
  priority: priorities.query,
  ttlMs: hourMs,
  ack: 'reply',
  repeatable: true,
  onAmbiguous: 'resend',
  supersedes: [],
  orderKey: () => null,
} as const;

const setting = {
  priority: priorities.settings,
  ttlMs: hourMs,
  ack: 'reply',
  repeatable: true,
  onAmbiguous: 'resend',
} as const;

export const socketCommands = {
  'port.query': {
    ...query,
    title: 'Ask a socket for the state of its ports',
    encode(params, deviceId, wireId) {
      const fields = { socketNo: (params as SocketParams).socket };
      return encodeMessage({
        direction: 'down',
        name: 'port.query',
        deviceId,
        msgId: wireId,
        fields,
      });
    },
    recognise: (params, wireId, message) =>
      socketState((params as SocketParams).socket, wireId, message),
  },
  'params.set': {
    ...setting,
    title: 'Set parameters of a socket',
    params: SetParams,
    supersedes: ['params.set'],
    covers: (params) => settable.map(([name]) => name).filter((name) => params[name] !== undefined),
    orderKey: (params) => `socket:${(params as SetParams).socket}`,
    check: (params) =>
      settable.some(([name]) => params[name] !== undefined)
        ? null
        : `params.set needs something to set; add at least one of ${settable.map(([name]) => name).join(', ')}`,
    encode(params, deviceId, wireId) {
      const { socket, ...values } = params as SetParams;
      const elements = settable.flatMap(([name, key]) => {
        const value = values[name];
        return value === undefined ? [] : [kv(key, value)];
      });
      const fields = { kv: [kv('socketNo', socket), ...elements] };
      return encodeMessage({
        direction: 'down',
        name: 'params.set',
        deviceId,
        msgId: wireId,
        fields,
      });
    },
    recognise: (_params, wireId, message) =>
      isReply(message, wireId, 'params.set.reply') ? ackOf(message) : null,
  },
  'params.read': {
    ...query,
    title: 'Read the parameters of a socket',
    encode(params, deviceId, wireId) {
      const fields = { kv: [kv('socketNo', (params as SocketParams).socket)] };
      return encodeMessage({
        direction: 'down',
        name: 'params.read',
        deviceId,
        msgId: wireId,
        fields,
      });
    },
    recognise: (_params, wireId, message) =>
      isReply(message, wireId, 'params.read.reply') ? readAck(message) : null,
  },
  'voice.window': {
    ...setting,
    title: 'Set when buzzer and voice may sound',
    params: VoiceParams,
    supersedes: ['voice.window'],
    // 254 is a window of its own here: that it reaches every hole of every socket is nowhere said.
    covers: (params) => [`${(params as VoiceParams).socket}:${(params as VoiceParams).port}`],
    // One line for all sockets, since 254 speaks to each of them.
    orderKey: () => 'voice',
    check(params) {
      const { socket } = params as VoiceParams;
      if (socket <= maxSocket || socket === allSockets) return null;
      return `socket must be 0 to ${maxSocket}, or ${allSockets} for all sockets, not ${socket}`;
    },
    encode(params, deviceId, wireId) {
      const { socket, port, buzzer, voice, windows } = params as VoiceParams;
      const fields = {
        socketNo: socket,
        holeNo: port,
        buzzer: Number(buzzer),
        voice: Number(voice),
        periods: windows.map(({ from, to }) => ({ start: from, end: to })),
      };
      return encodeMessage({
        direction: 'down',
        name: 'voice.window',
        deviceId,
        msgId: wireId,
        fields,
      });
    },
    recognise: (_params, wireId, message) =>
      isReply(message, wireId, 'voice.window.reply') ? ackOf(message) : null,
  },
} satisfies Record<string, CommandSpec>;

/**
 * The values that were read; a reply that leaves the ack out still answers when it carries some.
 */
function readAck(message: Message): Ack | null {
  const elements = elementsOf(message);
  const values = known(
    Object.fromEntries(readable.map(([name, key]) => [name, kvValue(elements, key)])),
  );
  const ack = ackOf(message);
  if (ack !== null) return { ...ack, result: { ...ack.result, ...values } };
  if (Object.keys(values).length === 0) return null;
  return { accepted: true, result: known({ socket: kvValue(elements, 'socketNo'), ...values }) };
}
