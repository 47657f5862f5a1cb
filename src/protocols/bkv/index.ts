/**
 * BKV V1.7 (2024-06-01): a DTU speaks for up to 250 sockets of two holes each. Big endian
 * throughout.
 */
import type { Decoded, Direction, Protocol } from '../protocol.ts';
import { answerTo, weightOf } from './answers.ts';
import { commands } from './commands.ts';
import { type Cut, createFramer, maxFrameBytes } from './framing.ts';
import { decodeMessage, encodeMessage, protocolName } from './message-codec.ts';
import { sightingsOf, sightingsOfResult } from './sightings.ts';

const deviceIdPattern = /^[0-9a-f]{14}$/i;
/** No vendor document names a default; an erased memory reads as one of these. */
const erasedIds: ReadonlySet<string> = new Set(['0'.repeat(14), 'f'.repeat(14)]);

export const bkv: Protocol = {
  name: protocolName,
  title: 'BKV V1.7',
  limits: {
    frameBytes: maxFrameBytes,
    partialFrameMs: 10_000,
    inFlight: 1,
    gapMs: 10,
    ackTimeoutMs: 10_000,
    attempts: 4,
    heartbeatMs: 60_000,
    maxWireId: 0xffffffff,
  },
  commands,
  deviceId: (text) => (deviceIdPattern.test(text) ? text.toLowerCase() : null),
  isFactoryDefault: (deviceId) => erasedIds.has(deviceId.toLowerCase()),
  sniff(head) {
    if (head.length === 0) return 'more';
    if (head[0] !== 0xfc) return 'no';
    if (head.length === 1) return 'more';
    return head[1] === 0xfe ? 'match' : 'no';
  },
  decoder(direction) {
    const framer = createFramer(direction);
    const decode = (cuts: Cut[]) => cuts.map((cut) => decoded(cut, direction));
    return {
      push: (chunk) => decode(framer.push(chunk)),
      giveUp: () => decode(framer.giveUp()),
      get pending() {
        return framer.pending;
      },
    };
  },
  encode: encodeMessage,
  answer: answerTo,
  weight: weightOf,
  sightings: sightingsOf,
  sightingsOfResult,
};

function decoded(cut: Cut, direction: Direction): Decoded {
  if (cut.kind === 'garbage') return cut;
  return { kind: 'message', message: decodeMessage(cut.bytes, direction) };
}
