import { describe, expect, it } from 'vitest';
import { createTokenBucket } from '../../../src/gateway/admission/token-bucket.ts';
import { createManualClock } from '../manual-clock.ts';

function setUp(perSecond: number, burst: number) {
  const clock = createManualClock();
  const bucket = createTokenBucket({ perSecond, burst, clock });
  const takeAll = () => {
    let taken = 0;
    while (bucket.take()) taken += 1;
    return taken;
  };
  return { clock, bucket, takeAll };
}

describe('the accept rate', () => {
  it('lets a burst pass at once, and nothing after it', () => {
    const { bucket, takeAll } = setUp(100, 200);
    expect(bucket.available).toBe(200);
    expect(takeAll()).toBe(200);
    expect(bucket.available).toBe(0);
  });

  it('lets as many pass a second as its rate says', () => {
    const { clock, takeAll } = setUp(100, 200);
    takeAll();
    clock.pass(9);
    expect(takeAll()).toBe(0);
    clock.pass(1);
    expect(takeAll()).toBe(1);
    clock.pass(1_000);
    expect(takeAll()).toBe(100);
  });

  it('never holds more than the burst, however long it was quiet', () => {
    const { clock, takeAll } = setUp(100, 200);
    clock.pass(60_000);
    expect(takeAll()).toBe(200);
  });

  it('does not lose the part of a token that a look finds', () => {
    const { clock, bucket, takeAll } = setUp(1, 1);
    takeAll();
    for (let i = 0; i < 999; i += 1) {
      clock.pass(1);
      expect(bucket.take()).toBe(false);
    }
    clock.pass(2);
    expect(bucket.take()).toBe(true);
  });
});
