import { expect, test } from 'vitest';
import { createTimerWheel, Timer } from '../../src/gateway/timer-wheel.ts';

function setUp({ slots = 8 } = {}) {
  let ticks = 5_000;
  const errors: unknown[] = [];
  const wheel = createTimerWheel({
    clock: { now: () => ticks, ticks: () => ticks, after: () => () => {} },
    tickMs: 100,
    slots,
    onError: (error) => errors.push(error),
  });
  const start = ticks;
  return {
    wheel,
    errors,
    at(ms: number) {
      ticks = start + ms;
      wheel.advance();
    },
    timer: (call: () => void) => new Timer({ onTimer: call }),
  };
}

test('a timer is never early and at most one tick late', () => {
  for (const delayMs of [0, 1, 99, 100, 101, 250, 1_000]) {
    const { wheel, at, timer } = setUp();
    let firedAt = -1;
    let now = 0;
    at(37);
    wheel.schedule(
      timer(() => {
        firedAt = now;
      }),
      delayMs,
    );
    for (now = 38; now < 1_500 && firedAt < 0; now += 1) at(now);
    expect(firedAt).toBeGreaterThanOrEqual(37 + delayMs);
    expect(firedAt).toBeLessThanOrEqual(37 + Math.max(delayMs, 1) + 100);
  }
});

test('a wait longer than one round of the wheel is waited out', () => {
  const { wheel, at, timer } = setUp({ slots: 4 });
  let fired = 0;
  wheel.schedule(
    timer(() => {
      fired += 1;
    }),
    2_000,
  );
  for (let ms = 100; ms < 2_000; ms += 100) at(ms);
  expect(fired).toBe(0);
  at(2_000);
  expect(fired).toBe(1);
});

test('a cancelled timer stays silent, a moved one rings once', () => {
  const { wheel, at, timer } = setUp();
  const rung: string[] = [];
  const cancelled = timer(() => rung.push('cancelled'));
  const moved = timer(() => rung.push('moved'));
  wheel.schedule(cancelled, 300);
  wheel.schedule(moved, 300);
  wheel.schedule(moved, 700);
  wheel.cancel(cancelled);
  at(600);
  expect(rung).toEqual([]);
  at(1_200);
  expect(rung).toEqual(['moved']);
});

test('timers of one slot may cancel and move each other while they ring', () => {
  const { wheel, at, timer } = setUp();
  const rung: string[] = [];
  const others = ['a', 'b', 'c'].map((name) => timer(() => rung.push(name)));
  const first = timer(() => {
    rung.push('first');
    wheel.cancel(others[0]!);
    wheel.schedule(others[1]!, 500);
  });
  for (const each of [...others, first]) wheel.schedule(each, 100);
  at(100);
  expect(rung.toSorted()).toEqual(['c', 'first']);
  at(600);
  expect(rung.toSorted()).toEqual(['b', 'c', 'first']);
});

test('a process that slept finds everything that fell due meanwhile, once', () => {
  const { wheel, at, timer } = setUp({ slots: 4 });
  let fired = 0;
  for (let i = 1; i <= 20; i += 1) {
    wheel.schedule(
      timer(() => {
        fired += 1;
      }),
      i * 100,
    );
  }
  at(60_000);
  expect(fired).toBe(20);
});

test('a target that throws does not stop the others', () => {
  const { wheel, at, timer, errors } = setUp();
  let fired = 0;
  for (let i = 0; i < 3; i += 1) {
    wheel.schedule(
      timer(() => {
        fired += 1;
        throw new Error('broken');
      }),
      100,
    );
  }
  at(100);
  expect(fired).toBe(3);
  expect(errors).toHaveLength(3);
});
