/** Firmware, BKV V1.7 §"OTA", and frames that a caller built. */
import { type Static, Type } from 'typebox';
import type { Ack } from '../../../outcome.ts';
import { fromHex, toHex } from '../../bytes.ts';
import type { CommandSpec, Message } from '../../protocol.ts';
import { ackOf } from '../acks.ts';
import { buildFrame } from '../framing.ts';
import { encodeMessage, payloadOf, protocolName } from '../message-codec.ts';
import { Byte, closed, hourMs, PositiveWord, priorities } from './params.ts';

const octet = '(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';
const dtu = 1;

const OtaParams = Type.Object(
  {
    host: Type.String({
      pattern: `^${octet}(?:\\.${octet}){3}$`,
      description: 'IPv4 of the FTP server',
    }),
    port: Type.Integer(PositiveWord),
    fileName: Type.String({ minLength: 1, maxLength: 13, pattern: '^[!-~]+$' }),
    target: Type.Optional(Type.Integer({ ...Byte, default: dtu, description: '1 is the DTU' })),
  },
  closed,
);
type OtaParams = Static<typeof OtaParams>;

const RawParams = Type.Object(
  {
    cmd: Type.String({ pattern: '^[0-9a-fA-F]{4}$', description: 'outer command, 4 hex digits' }),
    payload: Type.String({
      pattern: '^(?:[0-9a-fA-F]{2})*$',
      maxLength: 4000,
      description: 'all bytes between gateway id and checksum, as hex',
    }),
  },
  closed,
);
type RawParams = Static<typeof RawParams>;

export const deviceCommands = {
  'ota.start': {
    title: 'Let the device fetch firmware by FTP',
    params: OtaParams,
    priority: priorities.ota,
    ttlMs: hourMs,
    // The vendor documents neither an answer nor progress.
    ack: 'none',
    repeatable: false,
    onAmbiguous: 'stop',
    supersedes: [],
    orderKey: () => 'ota',
    encode(params, deviceId, wireId) {
      const { host, port, fileName, target = dtu } = params as OtaParams;
      const fields = { target, ftpIp: host, ftpPort: port, fileName };
      return encodeMessage({ direction: 'down', name: 'ota', deviceId, msgId: wireId, fields });
    },
    recognise: () => null,
  },
  raw: {
    title: 'Send any payload under any outer command',
    params: RawParams,
    priority: priorities.raw,
    ttlMs: hourMs,
    ack: 'reply',
    repeatable: false,
    onAmbiguous: 'stop',
    supersedes: [],
    orderKey: () => null,
    encode(params, deviceId, wireId) {
      const { cmd, payload } = params as RawParams;
      return buildFrame({
        direction: 'down',
        cmd: Number.parseInt(cmd, 16),
        msgId: wireId,
        deviceId,
        data: fromHex(payload) ?? [],
      });
    },
    recognise: (params, wireId, message) => rawAck(params as RawParams, wireId, message),
  },
} satisfies Record<string, CommandSpec>;

/**
 * Any uplink frame with the command and message id of the request; one that says "failed" is a
 * refusal.
 */
function rawAck({ cmd }: RawParams, wireId: number, message: Message): Ack | null {
  const isAnswer =
    message.protocol === protocolName &&
    message.direction === 'up' &&
    message.msgId === wireId &&
    message.cmd === Number.parseInt(cmd, 16);
  if (!isAnswer) return null;
  const result = { message: message.name, payload: toHex(payloadOf(message.frame)) };
  const ack = ackOf(message) ?? { accepted: true, result: {} };
  return { ...ack, result: { ...ack.result, ...result } };
}
