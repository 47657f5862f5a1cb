import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import type { Decoded, Decoder, Direction } from '../../src/protocols/protocol.ts';
import {
  bytes,
  bytesOf,
  fixture,
  fixtures,
  handmade,
  hexOf,
  iccidText,
  messagesOf,
} from './ap3000-samples.ts';

const cap = ap3000.limits.frameBytes;
const heartbeat = bytes(fixture('heartbeat_21.up').hex);
const time = bytes(fixture('time_22.up').hex);
const power = bytes(fixture('power_06.up').hex);
const link = Buffer.from('link');
const iccid = Buffer.from(iccidText);

const framesOf = (items: readonly Decoded[]): string[] =>
  messagesOf(items).map(({ frame }) => hexOf(frame));

/** Feeds the bytes in pieces that end at the given offsets. */
function feed(decoder: Decoder, input: Buffer, ends: readonly number[]): Decoded[] {
  const out: Decoded[] = [];
  let from = 0;
  for (const end of [...ends, input.length]) {
    out.push(...decoder.push(input.subarray(from, end)));
    from = end;
  }
  return out;
}

/** Fires the partial-frame timer until nothing is held back. */
function drain(decoder: Decoder): Decoded[] {
  const out: Decoded[] = [];
  for (let i = 0; i < cap && decoder.pending > 0; i += 1) out.push(...decoder.giveUp());
  return out;
}

describe('cutting', () => {
  it('gives the same messages wherever the stream is split', () => {
    for (const { hex, direction } of fixtures) {
      const frame = bytes(hex);
      for (let at = 1; at < frame.length; at += 1) {
        const decoder = ap3000.decoder(direction);
        expect(decoder.push(frame.subarray(0, at))).toEqual([]);
        expect(decoder.pending).toBe(at);
        expect(framesOf(decoder.push(frame.subarray(at)))).toEqual([hex]);
        expect(decoder.pending).toBe(0);
      }
    }
  });

  it.each(['up', 'down'] as const)('cuts all %s frames glued into one chunk', (direction) => {
    const wanted = fixtures.filter((item) => item.direction === direction).map(({ hex }) => hex);
    const items = ap3000.decoder(direction).push(bytes(wanted.join('')));
    expect(framesOf(items)).toEqual(wanted);
    expect(items.every(({ kind }) => kind === 'message')).toBe(true);
  });

  it('reads ICCID, link and frames of one segment, split anywhere or byte by byte', () => {
    const parts = [iccid, heartbeat, link, time, link, iccid, link, heartbeat];
    const input = Buffer.concat(parts);
    const wanted = parts.map(hexOf);
    for (let a = 0; a <= input.length; a += 1) {
      for (const b of [a, Math.min(input.length, a + 1), Math.min(input.length, a + 17)]) {
        const items = feed(ap3000.decoder('up'), input, [a, b]);
        expect(framesOf(items)).toEqual(wanted);
        expect(items).toHaveLength(wanted.length);
      }
    }
    const everyByte = feed(ap3000.decoder('up'), input, [...input.keys()]);
    expect(framesOf(everyByte)).toEqual(wanted);
  });

  it('names plain text, without a device', () => {
    const [first, second] = messagesOf(ap3000.decoder('up').push(Buffer.concat([iccid, link])));
    expect(first).toMatchObject({ name: 'iccid', deviceId: '', fields: { iccid: iccidText } });
    expect(second).toMatchObject({ name: 'link', deviceId: '', fields: {}, checksum: null });
  });

  it('looks for no plain text in what the server sends', () => {
    const decoder = ap3000.decoder('down');
    const items = decoder.push(Buffer.concat([link, iccid]));
    expect(items).toEqual([
      { kind: 'garbage', bytes: new Uint8Array(Buffer.concat([link, iccid])), reason: 'noise' },
    ]);
    expect(decoder.pending).toBe(0);
  });

  it('cuts the frames of several devices on one stream', () => {
    const ids = ['3b37ab04', 'cd28a204', 'f36ca204'];
    const input = Buffer.concat([0, 1, 2, 0, 1, 2].map((i) => handmade(ids[i]!, i, 0x22, '')));
    const seen = messagesOf(feed(ap3000.decoder('up'), input, [7, 20, 44]));
    expect(seen.map((message) => message.deviceId)).toEqual([
      '04ab373b',
      '04a228cd',
      '04a26cf3',
      '04ab373b',
      '04a228cd',
      '04a26cf3',
    ]);
  });

  it('keeps its messages when the chunk they came in is overwritten', () => {
    const chunk = Buffer.concat([heartbeat, time.subarray(0, 5)]);
    const decoder = ap3000.decoder('up');
    const [message] = messagesOf(decoder.push(chunk));
    chunk.fill(0);
    expect(hexOf(message!.frame)).toBe(hexOf(heartbeat));
    expect(framesOf(decoder.push(time.subarray(5)))).toEqual([hexOf(time)]);
  });

  it('takes the largest and the smallest frame and no length beyond', () => {
    const largest = handmade('3b37ab04', 1, 0x7f, '00'.repeat(cap - 14));
    expect(framesOf(ap3000.decoder('up').push(largest))).toEqual([hexOf(largest)]);
    expect(framesOf(ap3000.decoder('up').push(time))).toEqual([hexOf(time)]);
    for (const length of [0, 8, cap - 4, 0xffff]) {
      const bad = Buffer.from(time);
      bad.writeUInt16LE(length, 3);
      const decoder = ap3000.decoder('up');
      const [first] = decoder.push(bad);
      expect(first).toMatchObject({
        kind: 'garbage',
        reason: 'length',
        bytes: Uint8Array.of(0x44),
      });
      expect(decoder.pending).toBe(0);
    }
  });
});

describe('damage', () => {
  it('reports garbage once per push and finds the frame behind it', () => {
    const garbage = bytes('00ff444e00d26c696e38388944');
    const items = ap3000.decoder('up').push(Buffer.concat([garbage, heartbeat]));
    expect(items).toHaveLength(2);
    expect(items[0]).toEqual({
      kind: 'garbage',
      bytes: new Uint8Array(garbage),
      reason: 'noise',
    });
    expect(framesOf(items)).toEqual([hexOf(heartbeat)]);
  });

  it('never reads a frame with any one bit turned, and recovers', () => {
    for (const { hex, direction } of fixtures) {
      const good = bytes(hex);
      const after = handmade('3b37ab04', 0x77, 0x7e, '0102');
      for (let bit = 0; bit < good.length * 8; bit += 1) {
        const bad = Buffer.from(good);
        bad[bit >> 3]! ^= 1 << (bit & 7);
        const decoder = ap3000.decoder(direction);
        const items = [...decoder.push(Buffer.concat([bad, after, after])), ...drain(decoder)];
        const frames = framesOf(items);
        expect(frames).not.toContain(hex);
        expect(frames.slice(-2)).toEqual([hexOf(after), hexOf(after)]);
        expect(bytesOf(items)).toBe(hexOf(bad) + hexOf(after).repeat(2));
      }
    }
  }, 30_000);

  it('recovers without the timer once the announced bytes are there', () => {
    const bad = Buffer.from(heartbeat);
    bad.writeUInt16LE(100, 3);
    const decoder = ap3000.decoder('up');
    let seen = messagesOf(decoder.push(bad)).length;
    for (let i = 0; i < 6; i += 1) seen += messagesOf(decoder.push(time)).length;
    expect(seen).toBe(6);
  });

  it('gives up the awaited frame when the timer fires, and says so', () => {
    const decoder = ap3000.decoder('up');
    expect(decoder.giveUp()).toEqual([]);
    decoder.push(Buffer.concat([power.subarray(0, 20), time]));
    const items = decoder.giveUp();
    expect(items[0]).toMatchObject({ kind: 'garbage', reason: 'partial-timeout' });
    expect(framesOf(items)).toEqual([hexOf(time)]);
    expect(decoder.pending).toBe(0);
  });

  it('reads frames within the bytes that a damaged length swallowed', () => {
    const bad = Buffer.from(heartbeat);
    bad.writeUInt16LE(400, 3);
    const decoder = ap3000.decoder('up');
    expect(decoder.push(Buffer.concat([bad, time, power]))).toEqual([]);
    expect(framesOf(decoder.giveUp())).toEqual([hexOf(time), hexOf(power)]);
  });

  it('tells a beginning of an ICCID from noise as soon as it can', () => {
    const decoder = ap3000.decoder('up');
    decoder.push(Buffer.from('8986044816'));
    expect(decoder.pending).toBe(10);
    const items = decoder.push(Buffer.from('x'));
    expect(decoder.pending).toBe(0);
    expect(bytesOf(items)).toBe(hexOf(Buffer.from('8986044816x')));
  });
});

describe('any bytes at all', () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 40 }).map((value) => Buffer.from(value)),
    fc.constantFrom(...fixtures.map(({ hex }) => bytes(hex)), link, iccid, Buffer.from('DNY')),
    fc.constantFrom(...fixtures.map(({ hex }) => bytes(hex).subarray(0, 9))),
  );
  const stream = fc.array(piece, { maxLength: 12 }).chain((parts) =>
    fc.record({
      input: fc.constant(Buffer.concat(parts)),
      cuts: fc.array(fc.nat(Buffer.concat(parts).length), { maxLength: 12 }),
      direction: fc.constantFrom<Direction>('up', 'down'),
    }),
  );

  it('never throws, loses no byte, holds less than a frame, and ignores chunk borders', () => {
    fc.assert(
      fc.property(stream, ({ input, cuts, direction }) => {
        const ends = [...cuts].sort((a, b) => a - b);
        const split = ap3000.decoder(direction);
        const whole = ap3000.decoder(direction);
        const items = feed(split, input, ends);
        const wholeItems = whole.push(input);
        expect(framesOf(items)).toEqual(framesOf(wholeItems));
        expect(split.pending).toBe(whole.pending);
        expect(split.pending).toBeLessThan(cap);
        const rest = drain(split);
        expect(split.pending).toBe(0);
        expect(bytesOf([...items, ...rest])).toBe(hexOf(input));
      }),
      { seed: 3000, numRuns: 400 },
    );
  });

  it('does a bounded amount of work for each byte', () => {
    // every five bytes begin a frame that only its last byte could refute
    const claim = bytes('444e59fb01');
    const input = Buffer.concat(Array.from({ length: 20_000 }, () => claim));
    const startedAt = performance.now();
    const decoder = ap3000.decoder('up');
    const items = decoder.push(input);
    expect(messagesOf(items)).toEqual([]);
    expect(decoder.pending).toBeLessThan(cap);
    // the square of it would take minutes
    expect(performance.now() - startedAt).toBeLessThan(5000);
  });
});

describe('sniffing', () => {
  it.each([
    ['', 'more'],
    ['44', 'more'],
    ['444e', 'more'],
    ['444e59', 'match'],
    ['444e590900', 'match'],
    ['6c69', 'more'],
    ['6c696e6b', 'match'],
    ['6c696e6b444e', 'match'],
    ['38', 'more'],
    ['3839', 'more'],
    [Buffer.from(iccidText).toString('hex'), 'match'],
    [Buffer.from(`${iccidText}DNY`).toString('hex'), 'match'],
    [Buffer.from('898604x').toString('hex'), 'no'],
    ['fcfe', 'no'],
    ['444f', 'no'],
    ['3838', 'no'],
    ['16030100', 'no'],
  ] as const)('judges %s as %s', (head, verdict) => {
    expect(ap3000.sniff(bytes(head))).toBe(verdict);
  });
});
