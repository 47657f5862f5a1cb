import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { toHex } from '../../src/protocols/bytes.ts';
import type { Decoded, Direction } from '../../src/protocols/protocol.ts';
import { bytesOf, fixtures, garbageOf, messagesOf, transcript } from './bkv-frames.ts';

const directions: readonly Direction[] = ['up', 'down'];
const seed = 20_240_601;
const maxFrame = bkv.limits.frameBytes;

function framesOf(direction: Direction): Uint8Array[] {
  return fixtures.filter((frame) => frame.direction === direction).map(({ hex }) => bytesOf(hex));
}

function decodeAll(direction: Direction, chunks: Iterable<Uint8Array>): Decoded[] {
  const decoder = bkv.decoder(direction);
  const decoded: Decoded[] = [];
  for (const chunk of chunks) decoded.push(...decoder.push(chunk));
  return decoded;
}

function* pieces(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function concat(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

describe.each(directions)('a stream %s', (direction) => {
  const frames = framesOf(direction);
  const all = concat(...frames);

  it('gives every frame when all are glued together', () => {
    const decoded = decodeAll(direction, [all]);
    expect(transcript(decoded)).toEqual(frames.map((frame) => `frame ${toHex(frame)}`));
  });

  it('gives each frame when it is split in two at every byte', () => {
    for (const frame of frames) {
      for (let at = 0; at <= frame.length; at += 1) {
        const decoded = decodeAll(direction, [frame.subarray(0, at), frame.subarray(at)]);
        expect(transcript(decoded)).toEqual([`frame ${toHex(frame)}`]);
      }
    }
  });

  it('gives the same however it is cut, garbage and damage included', () => {
    const damaged = frames[0]!.slice();
    damaged[20] = damaged[20]! ^ 0x10;
    const noise = bytesOf('00fcfcfe0000fcffffffeefcfcee');
    const stream = concat(noise, frames[1]!, damaged, noise, ...frames, noise, all);
    const whole = transcript(decodeAll(direction, [stream]));
    expect(whole.length).toBeGreaterThan(2 * frames.length);
    for (const size of [1, 2, 3, 5, 7, 17, 64, 1000]) {
      expect(transcript(decodeAll(direction, pieces(stream, size)))).toEqual(whole);
    }
  });

  it('drops garbage between frames and nothing else', () => {
    const noise = bytesOf('68656c6c6ffcfcfc0dfc');
    const decoded = decodeAll(
      direction,
      frames.map((frame) => concat(noise, frame)),
    );
    expect(messagesOf(decoded).map(({ frame }) => toHex(frame))).toEqual(frames.map(toHex));
    expect(garbageOf(decoded)).toBe(toHex(noise).repeat(frames.length));
  });

  it('reports garbage of one push as one item', () => {
    const decoder = bkv.decoder(direction);
    const noise = new Uint8Array(10_000).fill(0x55);
    expect(decoder.push(concat(noise, frames[0]!)).map(({ kind }) => kind)).toEqual([
      'garbage',
      'message',
    ]);
  });

  it('never takes a frame with one flipped bit for that frame, and recovers', () => {
    for (const frame of frames) {
      const good = frames[0]!;
      for (let at = 0; at < frame.length; at += 1) {
        const bits = frame.length <= 64 ? [0, 1, 2, 3, 4, 5, 6, 7] : [at % 8];
        for (const bit of bits) {
          const bent = frame.slice();
          bent[at] = bent[at]! ^ (1 << bit);
          const decoder = bkv.decoder(direction);
          const decoded = decoder.push(concat(bent, good, good));
          while (decoder.pending > 0) decoded.push(...decoder.giveUp());
          const seen = messagesOf(decoded).map((message) => toHex(message.frame));
          expect(seen).toEqual([toHex(good), toHex(good)]);
        }
      }
    }
  });

  it('recovers without a timer once the bytes that a damaged length announced have arrived', () => {
    const bent = frames[0]!.slice();
    bent[2] = 0x03; // announces at least 768 bytes
    const announced = 4 + ((bent[2] << 8) | bent[3]!);
    const decoder = bkv.decoder(direction);
    const good = frames[1]!;
    const seen: string[] = [];
    let fed = bent.length;
    seen.push(...messagesOf(decoder.push(bent)).map(({ frame }) => toHex(frame)));
    while (fed < announced) {
      expect(seen).toEqual([]);
      seen.push(...messagesOf(decoder.push(good)).map(({ frame }) => toHex(frame)));
      fed += good.length;
    }
    const sent = (fed - bent.length) / good.length;
    expect(seen).toEqual(Array.from({ length: sent }, () => toHex(good)));
    expect(decoder.pending).toBe(0);
  });

  it('gives the frames held behind a damaged length when the timer fires', () => {
    const bent = frames[0]!.slice();
    bent[2] = 0x0f;
    const decoder = bkv.decoder(direction);
    expect(decoder.push(concat(bent, frames[1]!))).toEqual([]);
    expect(decoder.pending).toBe(bent.length + frames[1]!.length);
    const decoded = decoder.giveUp();
    expect(messagesOf(decoded).map(({ frame }) => toHex(frame))).toEqual([toHex(frames[1]!)]);
    expect(decoded[0]).toMatchObject({ kind: 'garbage', reason: 'partial-timeout' });
    expect(garbageOf(decoded)).toBe(toHex(bent));
    expect(decoder.pending).toBe(0);
    expect(decoder.giveUp()).toEqual([]);
  });

  it('finds a whole frame inside the data of a broken one', () => {
    const inner = frames[0]!;
    const header = concat(frames[1]!.subarray(0, 18), inner, bytesOf('0000fcee'));
    header[2] = 0;
    header[3] = header.length - 4;
    const decoded = decodeAll(direction, [header]);
    expect(messagesOf(decoded).map(({ frame }) => toHex(frame))).toEqual([toHex(inner)]);
  });

  it('never throws, never holds more than the cap and loses no byte, whatever comes', () => {
    const magic = frames[0]!.subarray(0, 2);
    const length = fc.integer({ min: 0, max: 4200 });
    const chunk = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.constantFrom(...frames),
      length.map((n) => concat(magic, Uint8Array.of(n >> 8, n & 0xff))),
      fc
        .tuple(fc.constantFrom(...frames), fc.nat(), fc.nat(255))
        .map(([frame, at, byte]) => frame.with(at % frame.length, byte)),
    );
    const chunks = fc.array(fc.tuple(chunk, fc.boolean()), { maxLength: 40 });
    fc.assert(
      fc.property(chunks, (fed) => {
        const decoder = bkv.decoder(direction);
        const decoded: Decoded[] = [];
        for (const [bytes, timesOut] of fed) {
          decoded.push(...decoder.push(bytes));
          expect(decoder.pending).toBeLessThan(maxFrame);
          if (timesOut) decoded.push(...decoder.giveUp());
        }
        while (decoder.pending > 0) decoded.push(...decoder.giveUp());
        const out = decoded.map((item) =>
          toHex(item.kind === 'message' ? item.message.frame : item.bytes),
        );
        expect(out.join('')).toBe(fed.map(([bytes]) => toHex(bytes)).join(''));
      }),
      { seed, numRuns: 200 },
    );
  });

  it('gives the same for any split of any stream', () => {
    const part = fc.oneof(fc.uint8Array({ maxLength: 60 }), fc.constantFrom(...frames));
    const stream = fc.array(part, { maxLength: 12 }).map((parts) => concat(...parts));
    fc.assert(
      fc.property(
        stream,
        fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1 }),
        (bytes, sizes) => {
          const chunks: Uint8Array[] = [];
          for (let at = 0, i = 0; at < bytes.length; i += 1) {
            const size = sizes[i % sizes.length]!;
            chunks.push(bytes.subarray(at, at + size));
            at += size;
          }
          const whole = transcript(decodeAll(direction, [bytes]));
          expect(transcript(decodeAll(direction, chunks))).toEqual(whole);
        },
      ),
      { seed, numRuns: 200 },
    );
  });
});

describe('framing', () => {
  const heartbeat = framesOf('up')[0]!;

  function reasonsOf(bytes: Uint8Array): string[] {
    const decoded = decodeAll('up', [bytes]);
    return decoded.map((item) => (item.kind === 'garbage' ? item.reason : item.kind));
  }

  it.each([
    ['length', 'too short a length', () => heartbeat.with(3, 0x10)],
    ['length', 'too long a length', () => heartbeat.with(2, 0x10)],
    ['direction', 'the other direction', () => heartbeat.with(10, 0)],
    ['tail', 'a wrong tail', () => heartbeat.with(heartbeat.length - 1, 0xef)],
    ['checksum', 'a wrong checksum', () => heartbeat.with(heartbeat.length - 3, 0)],
    ['noise', 'the magic of a downlink', () => heartbeat.with(1, 0xff)],
  ])('says %s for %s', (reason, _what, bend) => {
    expect(reasonsOf(bend())[0]).toBe(reason);
  });

  it('takes the largest frame and refuses one byte more', () => {
    const payload = 'ab'.repeat(maxFrame - 21);
    const largest = {
      direction: 'up',
      name: 'unknown',
      deviceId: '86004459453005',
      msgId: 1,
      cmd: 0x99,
    } as const;
    const frame = bkv.encode({ ...largest, fields: { payloadHex: payload } });
    expect(frame.length).toBe(maxFrame);
    const decoder = bkv.decoder('up');
    for (const byte of frame.subarray(0, -1)) expect(decoder.push(Uint8Array.of(byte))).toEqual([]);
    expect(decoder.pending).toBe(maxFrame - 1);
    expect(messagesOf(decoder.push(frame.subarray(-1)))).toHaveLength(1);
    expect(() => bkv.encode({ ...largest, fields: { payloadHex: `${payload}ab` } })).toThrowError(
      /4096/,
    );
  });

  it('does not end a frame at a tail inside its data', () => {
    const frame = bkv.encode({
      direction: 'up',
      name: 'unknown',
      deviceId: 'fceefcfefceefc',
      msgId: 0xfceefcfe,
      cmd: 0x99,
      fields: { payloadHex: 'fceefcfe0011fceefcee' },
    });
    expect(transcript(decodeAll('up', pieces(frame, 1)))).toEqual([`frame ${toHex(frame)}`]);
  });

  it('copies what it gives, so that the caller may use its buffer again', () => {
    const chunk = concat(bytesOf('00'), heartbeat);
    const decoded = bkv.decoder('up').push(chunk);
    chunk.fill(0xaa);
    expect(transcript(decoded)).toEqual(['noise 00', `frame ${toHex(heartbeat)}`]);
  });

  // A quadratic decoder needs minutes for these; ours needs a fraction of a second.
  const oneMegabyte = 1 << 20;
  const overlapping = new Uint8Array(oneMegabyte);
  // Each 4 bytes begin a frame of 4096 bytes by magic and length; none has a tail.
  for (let at = 0; at < oneMegabyte; at += 4) overlapping.set([0xfc, 0xfe, 0x0f, 0xfc], at);
  // The same with direction and tail in place, so that every candidate comes to its checksum.
  const plausible = new Uint8Array(oneMegabyte);
  const period = [
    0xfc, 0xfe, 0x0f, 0xfc, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x02, 0xfc, 0xee,
  ];
  for (let at = 0; at < oneMegabyte; at += 16) plausible.set(period, at);

  it.each([
    ['noise', new Uint8Array(oneMegabyte).fill(0x41), 'noise'],
    ['first bytes of the magic', new Uint8Array(oneMegabyte).fill(0xfc), 'noise'],
    ['overlapping false frames', overlapping, 'direction'],
    ['overlapping false frames up to the checksum', plausible, 'checksum'],
  ])(
    'digests a megabyte of %s in linear time, whole or dripping',
    { timeout: 20_000 },
    (_what, bytes, reason) => {
      for (const size of [oneMegabyte, 1460, 7]) {
        const decoder = bkv.decoder('up');
        let garbage = 0;
        const reasons = new Set<string>();
        for (const chunk of pieces(bytes, size)) {
          for (const item of decoder.push(chunk)) {
            if (item.kind !== 'garbage') continue;
            garbage += item.bytes.length;
            reasons.add(item.reason);
          }
        }
        expect(garbage + decoder.pending).toBe(oneMegabyte);
        expect(decoder.pending).toBeLessThan(maxFrame);
        expect(reasons).toContain(reason);
      }
    },
  );
});
