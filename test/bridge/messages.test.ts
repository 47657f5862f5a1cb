import { describe, expect, it } from 'vitest';
import { encodeBatch, maxBatchBytes, parseBatch, splitBatch } from '../../src/bridge/messages.ts';

const settled = { t: 'settled', id: 'c1', attempt: 1 };

describe('bridge messages', () => {
  it('come back as they were sent', () => {
    const text = encodeBatch('w1', [JSON.stringify(settled)]);
    expect(parseBatch('toGateway', text)).toEqual({ messages: [settled], faults: [] });
  });

  it('are split into batches within the bound, in order', () => {
    const many = Array.from({ length: 1_200 }, (_, n) => ({ ...settled, attempt: n + 1 }));
    const groups = splitBatch(many, (message) => JSON.stringify(message));
    const texts = groups.map((group) =>
      encodeBatch(
        'w1',
        group.map((one) => JSON.stringify(one)),
      ),
    );
    expect(texts.length).toBeGreaterThan(1);
    expect(texts.every((text) => text.length <= maxBatchBytes)).toBe(true);
    expect(texts.flatMap((text) => parseBatch('toGateway', text).messages)).toEqual(many);
  });

  it.each([
    ['text that is no JSON', '{'],
    ['null', 'null'],
    ['another version', '{"v":2,"m":[]}'],
    ['no list', '{"v":1,"m":{}}'],
    ['too many bytes', `{"v":1,"m":[${' '.repeat(maxBatchBytes)}]}`],
  ])('are refused with a reason when they are %s', (_, text) => {
    const { messages, faults } = parseBatch('toGateway', text);
    expect(messages).toEqual([]);
    expect(faults).toHaveLength(1);
  });

  it.each([
    { t: 'deliver', id: 'x' },
    { t: 'settled', id: 'x', attempt: 0 },
    { t: 'settled', id: 'x'.repeat(100), attempt: 1 },
    { t: 'evict', deviceId: 1, epoch: 1 },
    { t: 'nonsense' },
    null,
    'text',
  ])('are refused one by one: %j does not take its batch down', (bad) => {
    const text = JSON.stringify({ v: 1, from: 'x', m: [bad, settled] });
    const { messages, faults } = parseBatch('toGateway', text);
    expect(messages).toEqual([settled]);
    expect(faults).toHaveLength(1);
  });

  it('leave prototypes alone', () => {
    const text =
      '{"v":1,"from":"x","m":[{"t":"settled","id":"x","attempt":1,"__proto__":{"bad":1}}]}';
    parseBatch('toGateway', text);
    expect(({} as { bad?: number }).bad).toBeUndefined();
  });
});
