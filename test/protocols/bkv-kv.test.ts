import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { decodeKv, encodeKv, type KvElement, kv, kvValue } from '../../src/protocols/bkv/kv.ts';
import { toHex } from '../../src/protocols/bytes.ts';
import { bytesOf, decodeOne } from './bkv-frames.ts';

/** What was read, written again. */
function rewritten(bytes: Uint8Array): string {
  const { elements, rest } = decodeKv(bytes);
  return toHex(Uint8Array.from(encodeKv(elements))) + toHex(rest);
}

function hole(holeNo: number): KvElement {
  return kv('hole', [
    kv('holeNo', holeNo),
    kv('holeStatus', '90'),
    kv('businessNo', '0068'),
    kv('voltageDeciV', 2275),
    kv('powerDeciW', 404),
    kv('currentMilliA', 345),
    kv('energyWh', 80),
    kv('chargedMin', 45),
  ]);
}

describe('the key-value payload', () => {
  it('carries a cluster of three holes, whose length needs two bytes', () => {
    const cluster = kv('socketStatusCluster', [kv('socketNo', 1), hole(0), hole(1), hole(2)]);
    const frame = bkv.encode({
      direction: 'up',
      name: 'status.report',
      deviceId: '82231214002700',
      msgId: 0,
      fields: { kv: [cluster] },
    });
    // 2 + 4 + 3 * 41 = 129 bytes: 0x81 0x01.
    expect(toHex(frame)).toContain('81010194');
    const message = decodeOne(frame, 'up');
    expect(message.fault).toBeUndefined();
    expect((message.fields['kv'] as KvElement[]).at(-1)).toEqual(cluster);
    expect(toHex(bkv.encode(message))).toBe(toHex(frame));
  });

  it.each([
    ['an unknown key', '0401ee1234', [{ key: '0xEE', name: 'undocumented_EE', value: '1234' }]],
    [
      'a key of two bytes',
      '040201024a',
      [{ key: '0x0102', name: 'undocumented_0102', value: '4a' }],
    ],
    ['a text key', '058366656505', [{ key: 'str:fee', name: 'str:fee', value: '05' }]],
    [
      'a text key that is not printable',
      '0481000102',
      [{ key: 'strhex:00', name: 'strhex:00', value: '0102' }],
    ],
    ['an empty value', '0201ee', [{ key: '0xEE', name: 'undocumented_EE', value: '' }]],
    ['an empty key', '020001', [{ key: '0x', name: 'undocumented_', value: '01' }]],
  ])('keeps %s', (_what, hex, elements) => {
    const reading = decodeKv(bytesOf(hex));
    expect(reading.elements).toEqual(elements);
    expect(reading.fault).toBeUndefined();
    expect(rewritten(bytesOf(hex))).toBe(hex);
  });

  it.each([
    ['a value of another size', '04014a0102', /key 0x4A has 2 bytes where 1 are due/],
    ['an element that is cut short', '03014a0105014a', /no whole key-value element at byte 4/],
    ['a length of zero', '03014a0100', /at byte 4/],
    ['a length without its end', '03014a01ff', /at byte 4/],
    ['a padded length', '8003014a01', /at byte 0/],
    ['a key longer than its element', '03054a01', /at byte 0/],
    ['an element cut short inside a container', '05015b05014a', /no whole key-value element/],
    ['containers nested too deep', '0e01940b01940801940501940201ee', /nested deeper than 4/],
  ])('names the fault of %s and loses no byte', (_what, hex, fault) => {
    expect(decodeKv(bytesOf(hex)).fault).toMatch(fault);
    expect(rewritten(bytesOf(hex))).toBe(hex);
  });

  it('does not throw on bytes of any kind and writes them back', () => {
    const element = fc
      .tuple(fc.constantFrom(0x94, 0x5b, 0x4a, 0x0a, 0x83, 0xee), fc.uint8Array({ maxLength: 20 }))
      .map(([key, value]) => Uint8Array.of(value.length + 2, 1, key, ...value));
    const nested = element.map((inner) => Uint8Array.of(inner.length + 2, 1, 0x94, ...inner));
    const payload = fc
      .array(fc.oneof(element, nested, fc.uint8Array({ maxLength: 6 })), { maxLength: 12 })
      .map((parts) => new Uint8Array(Buffer.concat(parts)));
    fc.assert(
      fc.property(payload, (bytes) => {
        expect(rewritten(bytes)).toBe(toHex(bytes));
      }),
      { seed: 20_240_601, numRuns: 500 },
    );
  });

  it('writes keys whatever their name says, and refuses values that do not fit', () => {
    expect(toHex(Uint8Array.from(encodeKv([{ key: '0x59', name: 'anything', value: 600 }])))).toBe(
      '0401590258',
    );
    expect(() => encodeKv([kv('socketNo', 256)])).toThrowError(
      /0x4A must be a whole number in 1 bytes/,
    );
    expect(() => encodeKv([kv('businessNo', 5)])).toThrowError(/0x0A must be hex/);
    expect(() => encodeKv([{ key: 'socketNo', value: 1 }])).toThrowError(/key must be/);
    expect(() => encodeKv('kv')).toThrowError(/list of elements/);
    expect(() => kv('no such key', 1)).toThrowError(/no key named/);
  });

  it('finds a value by name', () => {
    expect(kvValue([kv('ack', 1), kv('socketNo', 2)], 'socketNo')).toBe(2);
    expect(kvValue([], 'socketNo')).toBeUndefined();
  });
});

it('decodes any sound frame with any payload without throwing, and writes it back', () => {
  const cmd = fc.constantFrom(0x0000, 0x0005, 0x0007, 0x0015, 0x1000, 0x0099);
  const numbers = fc.constantFrom(
    2,
    7,
    8,
    9,
    0x0a,
    0x0b,
    0x0c,
    0x0f,
    0x17,
    0x18,
    0x1a,
    0x1b,
    0x1c,
    0x1d,
  );
  const payload = fc.tuple(fc.uint8Array({ maxLength: 80 }), numbers).map(([bytes, sub]) =>
    bytes.length < 3
      ? bytes
      : bytes
          .with(0, 0)
          .with(1, bytes.length - 3)
          .with(2, sub),
  );
  fc.assert(
    fc.property(cmd, payload, fc.constantFrom('up', 'down'), (outer, bytes, direction) => {
      const raw = {
        direction,
        name: 'unknown',
        deviceId: '86004459453005',
        msgId: 1,
        cmd: outer,
      } as const;
      const frame = bkv.encode({ ...raw, fields: { payloadHex: toHex(bytes) } });
      const message = decodeOne(frame, direction);
      if (message.fault === undefined) expect(toHex(bkv.encode(message))).toBe(toHex(frame));
      bkv.answer(message, 0);
      bkv.weight(message);
      for (const spec of Object.values(bkv.commands)) {
        spec.recognise({ socket: 1, cmd: '0015', payload: '' }, 1, message);
      }
    }),
    { seed: 20_240_601, numRuns: 1000 },
  );
});
