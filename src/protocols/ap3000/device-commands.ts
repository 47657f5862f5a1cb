/** Everything a device or host can be told that is neither a charge nor a parameter. */
import { type Static, Type } from 'typebox';
import type { Params } from '../../command.ts';
import type { CommandSpec } from '../protocol.ts';
import { firmwareResults, meaningOf, portStatuses } from './codes.ts';
import {
  ackOf,
  byte,
  exchange,
  idempotentWrite,
  noParams,
  oneShot,
  params,
  priorities,
  query,
  request,
  ttls,
} from './command-kit.ts';
import { maxPayloadBytes } from './frame.ts';
import { encodeMessage } from './message.ts';

/** RS-485 and LoRa hosts carry at most so many. */
const maxSubDevices = 50;
const maxMemoryBytes = 32;
const modemKinds = { wifi: 1, '2g': 2, '4g': 3 } as const;

const hexOf = (bytes: number) => Type.String({ pattern: `^[0-9a-fA-F]{${2 * bytes}}$` });
const ascii = (maxLength: number) => Type.String({ pattern: `^[\\x20-\\x7e]{1,${maxLength}}$` });
const Msg = Type.Integer({ minimum: 0, maximum: 0xffff });
const Address = Type.Integer({ minimum: 0, maximum: 0xffff });

const ServerParams = params({
  host: ascii(46),
  port: Type.Integer({ minimum: 1, maximum: 0xffff }),
  modem: Type.Union([Type.Literal('wifi'), Type.Literal('2g'), Type.Literal('4g')]),
  socketB: Type.Optional(Type.Boolean({ description: 'for the second connection' })),
});
type ServerParams = Static<typeof ServerParams>;

const VoiceParams = params({
  ids: Type.Array(byte('voice number'), { minItems: 1, maxItems: 64 }),
  interrupt: Type.Optional(Type.Boolean({ description: 'break off what is being played' })),
});
type VoiceParams = Static<typeof VoiceParams>;

const RawParams = params({
  cmd: hexOf(1),
  payload: Type.String({ pattern: `^(?:[0-9a-fA-F]{2}){0,${maxPayloadBytes}}$` }),
});
type RawParams = Static<typeof RawParams>;

/** A command whose fields have the names of its params. */
const plain = (name: string, defaults: Params = {}) =>
  exchange(name, (given) => ({ ...defaults, ...given }));

const restart = { ...oneShot, priority: priorities.restart };

export const deviceCommands: Readonly<Record<string, CommandSpec>> = {
  'port.query': {
    ...query,
    title: 'Ask for the state of all ports',
    params: noParams,
    encode: (_given, deviceId, wireId) => request('port.query', {}, deviceId, wireId),
    // The vendor defines no answer to 81; it makes the device send 20 and then 01 or 21, under ids of
    // its own. The next port states after the query therefore count as its answer, though a heartbeat
    // that was due anyway cannot be told from it: either way the states are as fresh as the query.
    recognise(_given, _wireId, { direction, name, fields, fault }) {
      if (direction !== 'up' || fault !== undefined) return null;
      if (name !== 'heartbeat' && name !== 'heartbeat.legacy') return null;
      const statuses = fields['portStatus'] as number[];
      const ports = statuses.map((status, port) => ({
        port,
        status,
        state: meaningOf(portStatuses, status),
      }));
      return { accepted: true, result: { voltageDeciV: fields['voltageDeciV'], ports } };
    },
  },
  'device.locate': {
    ...query,
    ttlMs: ttls.control,
    title: 'Make the device flash and sound',
    params: params({ seconds: Type.Integer({ minimum: 1, maximum: 255 }) }),
    ...plain('device.locate'),
  },
  'memory.read': {
    ...query,
    title: 'Read bytes of the memory',
    params: params({
      address: Address,
      length: Type.Integer({ minimum: 1, maximum: maxMemoryBytes }),
    }),
    ...exchange('memory.read', (given) => given, {
      result: ({ data }) => (typeof data === 'string' && data !== '' ? { data } : {}),
    }),
  },
  'memory.write': {
    ...idempotentWrite,
    title: 'Write bytes of the memory',
    params: params({
      address: Address,
      data: Type.String({ pattern: `^(?:[0-9a-fA-F]{2}){1,${maxMemoryBytes}}$` }),
    }),
    ...plain('memory.write'),
  },
  'card.keys': {
    ...idempotentWrite,
    title: 'Set the keys of user cards',
    params: params({
      sector: Type.Optional(byte('0 unless given')),
      userKey: hexOf(6),
      newKey: hexOf(6),
    }),
    ...plain('card.keys', { sector: 0 }),
  },
  'card.mode': {
    ...idempotentWrite,
    title: 'Set the mode of the card reader',
    params: params({ mode: byte('card mode') }),
    ...exchange('card.mode', ({ mode }) => ({ cardMode: mode })),
  },
  'card.answer': {
    ...oneShot,
    title: 'Answer a card swipe; to charge, send charge.start afterwards',
    priority: priorities.control,
    // the device waits 15 s and asks once more
    ttlMs: 30_000,
    ack: 'none',
    orderKey: () => null,
    params: params({
      msgId: Msg,
      cardId: hexOf(4),
      accountState: byte('0 is in order'),
      rateMode: byte('0 time, 1 monthly, 2 energy, 3 count'),
      balanceOrExpiry: Type.Integer({ minimum: 0, maximum: 0xffff_ffff }),
      port: byte('the port of the swipe'),
    }),
    // an answer echoes the id of the swipe, so the wire id stays unused
    encode(given, deviceId) {
      const { msgId, ...fields } = given;
      return request('card.reply', fields, deviceId, msgId as number);
    },
    recognise: () => null,
  },
  'workmode.set': {
    ...idempotentWrite,
    title: 'Set the work mode',
    params: params({ mode: byte('work mode') }),
    ...exchange('workmode.set', ({ mode }) => ({ workMode: mode })),
  },
  'qr.set': {
    ...idempotentWrite,
    title: 'Set the address in the QR code',
    params: params({ screen: byte('screen number'), text: ascii(72) }),
    ...plain('qr.set', { reserved: '000000' }),
  },
  'qr.show': {
    ...idempotentWrite,
    title: 'Show a QR code for a while',
    params: params({ text: ascii(200) }),
    ...plain('qr.show'),
  },
  'voice.play': {
    ...oneShot,
    title: 'Play voice announcements',
    params: VoiceParams,
    ...exchange('voice.play', (given) => {
      const { ids, interrupt = false } = given as VoiceParams;
      return { interrupt: Number(interrupt), ids: Buffer.from(ids).toString('hex') };
    }),
  },
  'device.mute': {
    ...idempotentWrite,
    title: 'Mute the device or let it speak',
    params: params({ mute: Type.Boolean() }),
    ...exchange('device.mute', ({ mute }) => ({ mute: Number(mute) })),
  },
  'device.function': {
    ...oneShot,
    title: 'Run a special function; 0 forces the door open',
    params: params({ function: byte('function number'), port: byte('0 is port 1') }),
    ...plain('device.function'),
  },
  'device.restart': {
    ...restart,
    // the answer may be lost in the restart, which is no reason to restart again
    title: 'Restart the device',
    params: noParams,
    ...plain('device.restart'),
  },
  'device.clear': {
    ...oneShot,
    title: 'Clear the memory of the device',
    params: noParams,
    ...plain('device.clear'),
  },
  'host.restart': {
    ...restart,
    title: 'Restart the host',
    params: noParams,
    ...plain('host.restart'),
  },
  'modem.restart': {
    ...restart,
    title: 'Restart the modem',
    params: noParams,
    ...plain('modem.restart'),
  },
  'host.clearUpgrade': {
    ...oneShot,
    title: 'Clear the upgrade data that the host holds for its sub-devices',
    params: noParams,
    ...plain('host.clear-upgrade'),
  },
  'host.fsk': {
    ...idempotentWrite,
    title: 'Set the radio parameters of a host',
    params: params({
      frequencyMhz: Type.Integer({ minimum: 0, maximum: 0xffff }),
      deviceIds: Type.Array(hexOf(4), { maxItems: maxSubDevices }),
    }),
    ...exchange('host.fsk', ({ frequencyMhz, deviceIds }) => ({
      freq: frequencyMhz,
      reserved: '000000',
      deviceIds,
    })),
  },
  'server.set': {
    ...idempotentWrite,
    title: 'Point the modem at another server',
    params: ServerParams,
    ...exchange('server.set', (given) => {
      const { host, port, modem, socketB = false } = given as ServerParams;
      return { port, moduleType: modemKinds[modem], socketB: Number(socketB), host };
    }),
  },
  'ota.start': {
    ...oneShot,
    title: 'Ask a host to begin a firmware transfer',
    priority: priorities.ota,
    params: params({ target: Type.Literal('host') }),
    ...exchange('firmware.host-packet', () => ({}), { codes: firmwareResults }),
  },
  'ota.auto': {
    ...oneShot,
    title: 'Tell a device to upgrade by itself',
    priority: priorities.ota,
    // E4 is shown by the vendor without any answer
    ack: 'none',
    params: noParams,
    encode: (_given, deviceId, wireId) => request('upgrade.auto', {}, deviceId, wireId),
    recognise: () => null,
  },
  raw: {
    ...oneShot,
    title: 'Send any command byte and payload',
    priority: priorities.raw,
    params: RawParams,
    orderKey: () => null,
    encode(given, deviceId, wireId) {
      const { cmd, payload } = given as RawParams;
      return encodeMessage({
        direction: 'down',
        name: 'unknown',
        deviceId,
        msgId: wireId,
        cmd: Number.parseInt(cmd, 16),
        fields: { payloadHex: payload },
      });
    },
    recognise(given, wireId, message) {
      const { cmd } = given as RawParams;
      if (message.direction !== 'up') return null;
      if (message.cmd !== Number.parseInt(cmd, 16) || message.msgId !== wireId) return null;
      const known = { result: () => ({ ...message.fields }) };
      return ackOf(message, known) ?? { accepted: true, result: { ...message.fields } };
    },
  },
};
