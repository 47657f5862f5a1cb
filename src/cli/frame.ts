/** `downlink frame decode` and `frame encode`: bytes to values and back, without any process running. */
import { Compile } from 'typebox/compile';
import type { Params } from '../command.ts';
import { DownlinkError } from '../errors.ts';
import { fromHex, toHex } from '../protocols/bytes.ts';
import { protocolNamed, protocols } from '../protocols/index.ts';
import type {
  CommandSpec,
  Decoded,
  Direction,
  Fields,
  GarbageReason,
  Message,
  Protocol,
} from '../protocols/protocol.ts';

type Reading = { direction: Direction; name: string; fields: Fields };

export type DecodedFrame = Reading & {
  protocol: string;
  /** Null for the plain text of a modem. */
  cmd: string | null;
  subCmd: string | null;
  msgId: number;
  deviceId: string;
  checksum: string | null;
  fault?: string;
  /** Where the bytes do not tell who speaks: what they would say the other way. */
  alsoReads?: Reading[];
};

export type SkippedBytes = { garbage: string; reason: GarbageReason };

/** Digits of a command and of a checksum as the vendors print them. */
const digits: Readonly<Record<string, { cmd: number; checksum: number }>> = {
  ap3000: { cmd: 2, checksum: 4 },
  bkv: { cmd: 4, checksum: 2 },
};
const defaultDigits = { cmd: 2, checksum: 2 };

/** The most telling first: where one decoder sees noise, another may see its own broken frame. */
const reasonRank: readonly GarbageReason[] = [
  'checksum',
  'tail',
  'length',
  'partial-timeout',
  'direction',
  'noise',
];

const directions = ['up', 'down'] as const;

/** What stands at each offset, by every decoder there is. */
type Survey = { messages: Map<number, Message[]>; reasons: Map<number, GarbageReason> };

/** The frames of the given hex, in order, and the bytes that belong to none. */
export function decodeFrames(hexTexts: readonly string[]): (DecodedFrame | SkippedBytes)[] {
  const bytes = bytesOf(hexTexts);
  const survey = surveyOf(bytes);
  const out: (DecodedFrame | SkippedBytes)[] = [];
  let skippedFrom = 0;
  let at = 0;
  const flush = () => {
    if (at > skippedFrom) out.push(skipped(bytes, survey, skippedFrom, at));
  };
  while (at < bytes.length) {
    const readings = survey.messages.get(at);
    if (readings === undefined) {
      at += 1;
      continue;
    }
    flush();
    out.push(decodedFrame(readings));
    at += readings[0]!.frame.length;
    skippedFrom = at;
  }
  flush();
  return out;
}

/** Hex of the frame that the command would send. */
export function encodeFrame(request: {
  protocol: string;
  deviceId: string;
  command: string;
  /** JSON of the params. */
  params: string;
  msgId: number;
}): string {
  const protocol = knownProtocol(request.protocol);
  const deviceId = protocol.deviceId(request.deviceId);
  if (deviceId === null) {
    const text = `"${request.deviceId}" is no device id of protocol ${protocol.name}`;
    throw new DownlinkError('INVALID_DEVICE_ID', text);
  }
  const spec = knownCommand(protocol, request.command);
  const params = validParams(request.command, spec, request.params);
  const { maxWireId } = protocol.limits;
  if (!Number.isInteger(request.msgId) || request.msgId < 1 || request.msgId > maxWireId) {
    const text = `message id ${request.msgId} must be an integer from 1 to ${maxWireId}`;
    throw new DownlinkError('INVALID_PARAMS', text);
  }
  return toHex(spec.encode(params, deviceId, request.msgId));
}

function bytesOf(hexTexts: readonly string[]): Uint8Array {
  const text = hexTexts.join('').replace(/\s+/g, '');
  const stranger = /[^0-9a-f]/i.exec(text);
  if (stranger !== null) {
    const where = `character "${stranger[0]}" at position ${stranger.index + 1}`;
    throw new DownlinkError('INVALID_PAYLOAD', `the frame is not hex: ${where} is no hex digit`);
  }
  const bytes = fromHex(text);
  if (bytes === null || bytes.length === 0) {
    const what = text === '' ? 'is empty' : `has ${text.length} hex digits, half a byte too many`;
    throw new DownlinkError('INVALID_PAYLOAD', `the frame ${what}; give two hex digits a byte`);
  }
  return bytes;
}

function surveyOf(bytes: Uint8Array): Survey {
  const survey: Survey = { messages: new Map(), reasons: new Map() };
  for (const protocol of protocols) {
    for (const direction of directions) {
      let at = 0;
      for (const item of decodeAll(protocol, direction, bytes)) {
        if (item.kind === 'message') {
          const others = survey.messages.get(at) ?? [];
          survey.messages.set(at, [...others, item.message].sort(byTrust));
          at += item.message.frame.length;
          continue;
        }
        for (let i = 0; i < item.bytes.length; i += 1) note(survey, at + i, item.reason);
        at += item.bytes.length;
      }
    }
  }
  return survey;
}

/** Everything the decoder finds, the unfinished end given up byte by byte. */
function decodeAll(protocol: Protocol, direction: Direction, bytes: Uint8Array): Decoded[] {
  const decoder = protocol.decoder(direction);
  const items = decoder.push(bytes);
  while (decoder.pending > 0) items.push(...decoder.giveUp());
  return items;
}

function note({ reasons }: Survey, at: number, reason: GarbageReason): void {
  const known = reasons.get(at) ?? 'noise';
  reasons.set(at, reasonRank.indexOf(reason) < reasonRank.indexOf(known) ? reason : known);
}

function skipped(bytes: Uint8Array, { reasons }: Survey, from: number, to: number): SkippedBytes {
  let rank = reasonRank.length - 1;
  for (let at = from; at < to; at += 1) {
    rank = Math.min(rank, reasonRank.indexOf(reasons.get(at) ?? 'noise'));
  }
  return { garbage: toHex(bytes.subarray(from, to)), reason: reasonRank[rank]! };
}

/** AP3000 frames do not say who speaks: the side whose tables explain more of the payload is believed. */
function byTrust(a: Message, b: Message): number {
  return (
    distrust(a) - distrust(b) || directions.indexOf(a.direction) - directions.indexOf(b.direction)
  );
}

function distrust({ fault, name, fields }: Message): number {
  const { undocumentedTail: tail } = fields;
  const tailBytes = typeof tail === 'string' ? tail.length / 2 : 0;
  const worst = 1_000_000;
  return (name === 'unknown' ? 2 * worst : 0) + (fault === undefined ? 0 : worst) + tailBytes;
}

function decodedFrame(readings: readonly Message[]): DecodedFrame {
  const message = readings[0]!;
  const { protocol, direction, subCmd, msgId, deviceId, name, fields, checksum, fault } = message;
  const width = digits[protocol] ?? defaultDigits;
  const also = readings
    .slice(1)
    .filter((other) => other.fault === undefined && distrust(other) === distrust(message))
    .map((other) => ({ direction: other.direction, name: other.name, fields: other.fields }));
  return {
    protocol,
    direction,
    // only plain text has no checksum, and no command either
    cmd: checksum === null ? null : hexNumber(message.cmd, width.cmd),
    subCmd: subCmd === null ? null : hexNumber(subCmd, subCmd > 0xff ? 4 : 2),
    msgId,
    deviceId,
    name,
    fields,
    checksum: checksum === null ? null : hexNumber(checksum, width.checksum),
    ...(fault === undefined ? {} : { fault }),
    ...(also.length === 0 ? {} : { alsoReads: also }),
  };
}

function hexNumber(value: number, width: number): string {
  return `0x${value.toString(16).padStart(width, '0')}`;
}

function knownProtocol(name: string): Protocol {
  const protocol = protocolNamed(name);
  if (protocol !== undefined) return protocol;
  const known = protocols.map((item) => item.name).join(', ');
  throw new DownlinkError('BAD_REQUEST', `protocol "${name}" is not one of ${known}`);
}

function knownCommand(protocol: Protocol, name: string): CommandSpec {
  if (Object.hasOwn(protocol.commands, name)) return protocol.commands[name]!;
  const known = Object.keys(protocol.commands).join(', ');
  const text = `command "${name}" is not one of protocol ${protocol.name}: ${known}`;
  throw new DownlinkError('COMMAND_UNKNOWN', text);
}

function validParams(command: string, spec: CommandSpec, json: string): Params {
  const params = parsed(json);
  const validator = Compile(spec.params);
  const sound = validator.Check(params);
  const faults = sound
    ? []
    : faultsOf(validator.Errors(params), Object.keys(spec.params.properties));
  const fault = sound ? spec.check?.(params as Params) : null;
  if (fault) faults.push(fault);
  if (faults.length === 0) return params as Params;
  const text = `params of ${command} are not valid: ${faults.join('; ')}`;
  throw new DownlinkError('INVALID_PARAMS', text, { details: { faults } });
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (cause) {
    const text = 'params are not JSON; give an object such as {"port":0}';
    throw new DownlinkError('INVALID_JSON', text, { cause });
  }
}

type SchemaError = { keyword: string; instancePath: string; message: string; params: object };

/** One sentence for each place at which something is wrong; alternatives stand in one sentence. */
function faultsOf(errors: readonly SchemaError[], known: readonly string[]): string[] {
  const places = new Map<string, string[]>();
  for (const { keyword, instancePath, message, params } of errors) {
    // said twice: here as a schema that is false, and by its parent as an additional property
    if (keyword === 'boolean' || keyword === 'anyOf') continue;
    const texts = places.get(instancePath) ?? [];
    places.set(instancePath, [...texts, faultText(keyword, message, params, known)]);
  }
  return [...places].map(([place, texts]) => {
    const subject = place === '' ? 'they' : place.slice(1).replaceAll('/', '.');
    return `${subject} ${[...new Set(texts)].join(place === '' ? ', ' : ' or ')}`;
  });
}

function faultText(
  keyword: string,
  message: string,
  params: object,
  known: readonly string[],
): string {
  const { additionalProperties, requiredProperties, allowedValue } = params as {
    additionalProperties?: string[];
    requiredProperties?: string[];
    allowedValue?: unknown;
  };
  if (keyword === 'additionalProperties' && additionalProperties !== undefined) {
    const names = known.length === 0 ? 'there are none' : `the known ones are ${known.join(', ')}`;
    return `have unknown ${additionalProperties.join(', ')} (${names})`;
  }
  if (keyword === 'required' && requiredProperties !== undefined) {
    return `need ${requiredProperties.join(', ')}`;
  }
  return keyword === 'const' ? `must be ${JSON.stringify(allowedValue)}` : message;
}
