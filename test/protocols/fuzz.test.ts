/**
 * Whatever comes off the wire: no decoder throws, holds more than one frame or loses a byte, and what it
 * makes of the bytes can be answered, weighed and compared with every command.
 */
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import type { Params } from '../../src/command.ts';
import { protocols } from '../../src/protocols/index.ts';
import type {
  CommandSpec,
  Decoded,
  Direction,
  Message,
  Protocol,
} from '../../src/protocols/protocol.ts';
import { framesOf, type Mutation, mutated, mutations, sealed } from './mutated-frames.ts';

const casesEach = 26_000;
const casesInAll = 100_000;
const now = 1_700_000_000_000;
const params: readonly Params[] = [
  { socket: 3, port: 1 },
  { port: 1, orderNo: 'A', group: 'basic' },
];

let cases = 0;
let messages = 0;
let mute = 0;

afterAll(() => {
  expect(cases).toBeGreaterThanOrEqual(casesInAll);
  // Most cases must get past the checksum, or else only the framing was tried.
  expect(messages).toBeGreaterThan(cases / 4);
  expect(mute).toBeGreaterThan(0);
});

/** Frames that were tampered with, some of them sealed again, between random bytes, in chunks. */
const streams = fc.record({
  pieces: fc.array(
    fc.oneof(
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 48 }) },
      {
        weight: 4,
        arbitrary: fc.record({
          frame: fc.nat(),
          other: fc.nat(),
          seal: fc.boolean(),
          mutations: fc.array(
            fc.tuple(fc.constantFrom(...mutations), fc.nat(), fc.integer({ min: 0, max: 255 })),
            { maxLength: 3 },
          ),
        }),
      },
    ),
    { minLength: 1, maxLength: 3 },
  ),
  cuts: fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 4 }),
});

type Piece =
  | Uint8Array
  | { frame: number; other: number; seal: boolean; mutations: [Mutation, number, number][] };

for (const protocol of protocols) {
  for (const direction of ['up', 'down'] as const) {
    test(`${casesEach} broken streams do not break ${protocol.name} ${direction}`, {
      timeout: 120_000,
    }, () => {
      const frames = framesOf(protocol.name, direction);
      fc.assert(
        fc.property(streams, ({ pieces, cuts }) => {
          cases += 1;
          const bytes = Buffer.concat(
            pieces.map((piece: Piece) => bytesOf(protocol, direction, frames, piece)),
          );
          survives(protocol, direction, bytes, cuts);
        }),
        { numRuns: casesEach },
      );
    });
  }
}

function bytesOf(
  protocol: Protocol,
  direction: Direction,
  frames: readonly Uint8Array[],
  piece: Piece,
): Uint8Array {
  if (piece instanceof Uint8Array) return piece;
  const other = frames[piece.other % frames.length]!;
  let frame = frames[piece.frame % frames.length]!;
  for (const [mutation, at, value] of piece.mutations) {
    frame = mutated(frame, other, mutation, at, value);
  }
  return piece.seal ? sealed(protocol.name, direction, frame) : frame;
}

function survives(
  protocol: Protocol,
  direction: Direction,
  stream: Uint8Array,
  cuts: readonly number[],
): void {
  const decoder = protocol.decoder(direction);
  const decoded: Decoded[] = [];
  let at = 0;
  for (let i = 0; at < stream.length; i += 1) {
    const end = Math.min(stream.length, at + cuts[i % cuts.length]!);
    decoded.push(...decoder.push(stream.subarray(at, end)));
    at = end;
    if (decoder.pending > protocol.limits.frameBytes) throw new Error('holds more than a frame');
  }
  accounted(decoded, stream, decoder.pending);
  while (decoder.pending > 0) {
    const before = decoder.pending;
    const given = decoder.giveUp();
    if (decoder.pending >= before) throw new Error(`gave nothing up of ${before} bytes`);
    decoded.push(...given);
  }
  if (decoder.giveUp().length > 0) throw new Error('gave up what it did not hold');
  accounted(decoded, stream, 0);
  for (const item of decoded) if (item.kind === 'message') judged(protocol, item.message);
}

/** Every byte came out once and in its place, or is still pending. */
function accounted(decoded: readonly Decoded[], stream: Uint8Array, pending: number): void {
  const out = decoded.map((item) => (item.kind === 'message' ? item.message.frame : item.bytes));
  const got = Buffer.concat(out);
  if (!got.equals(stream.subarray(0, stream.length - pending))) {
    throw new Error(`${stream.length} bytes went in, ${pending} pend, ${got.length} came out`);
  }
}

/** All that the gateway and the worker do with a message. */
function judged(protocol: Protocol, message: Message): void {
  messages += 1;
  if (typeof message.name !== 'string' || typeof message.fields !== 'object') {
    throw new Error('a message without name or fields');
  }
  if (!['heartbeat', 'state', 'money'].includes(protocol.weight(message))) {
    throw new Error(`${message.name} weighs ${protocol.weight(message)}`);
  }
  const answer = protocol.answer(message, now);
  if (answer) {
    const decoder = protocol.decoder('down');
    const [told, ...more] = decoder.push(answer.frame);
    // What an answer echoes of a faulty report is as faulty.
    const sound =
      told?.kind === 'message' && (told.message.fault ?? message.fault) === message.fault;
    if (!sound || more.length > 0 || decoder.pending > 0) {
      throw new Error(`the answer to ${message.name} is no sound frame`);
    }
  } else {
    mute += 1;
  }
  for (const spec of Object.values(protocol.commands)) recognised(spec, message);
}

function recognised(spec: CommandSpec, message: Message): void {
  for (const each of params) spec.recognise(each, message.msgId, message);
}
