import { expect, test } from 'vitest';
import { createPacer } from '../src/pacer.ts';
import { createManualClock } from './gateway/manual-clock.ts';

type Offer = { at?: number; key: string; urgency?: number };
type Drop = { at: number; drop: string };
type Case = {
  says: string;
  perSecond?: number;
  burst?: number;
  steps: (Offer | Drop)[];
  /** What went, and when. */
  gone: string[];
};

const many = (prefix: string, count: number, rest: Omit<Offer, 'key'> = {}): Offer[] =>
  Array.from({ length: count }, (_, n) => ({ key: `${prefix}${n + 1}`, ...rest }));

const cases: Case[] = [
  { says: 'who comes alone goes at once', steps: [{ key: 'a' }], gone: ['a@0'] },
  {
    says: 'beyond the burst each waits for its slot, first come first',
    steps: many('d', 5),
    gone: ['d1@0', 'd2@0', 'd3@100', 'd4@200', 'd5@300'],
  },
  {
    says: 'without a burst even the second waits',
    burst: 1,
    steps: many('d', 3),
    gone: ['d1@0', 'd2@100', 'd3@200'],
  },
  {
    says: 'the most urgent goes first, equals in the order of their coming',
    steps: [
      ...many('d', 2),
      { key: 'low', urgency: 7 },
      { key: 'mid', urgency: 4 },
      { key: 'mid too', urgency: 4 },
      { key: 'stop', urgency: 0 },
    ],
    gone: ['d1@0', 'd2@0', 'stop@100', 'mid@200', 'mid too@300', 'low@400'],
  },
  {
    says: 'a late comer that is more urgent takes the next slot, no slot of its own',
    steps: [...many('d', 4, { urgency: 4 }), { at: 150, key: 'stop', urgency: 0 }],
    gone: ['d1@0', 'd2@0', 'd3@100', 'stop@200', 'd4@300'],
  },
  {
    says: 'who drops out leaves its slot to the next',
    steps: [...many('d', 5), { at: 50, drop: 'd3' }],
    gone: ['d1@0', 'd2@0', 'd4@100', 'd5@200'],
  },
  {
    says: 'who comes twice keeps its place and goes once',
    steps: [...many('d', 4), { at: 20, key: 'd3', urgency: 9 }],
    gone: ['d1@0', 'd2@0', 'd3@100', 'd4@200'],
  },
  {
    says: 'who comes again with something urgent gets a better place',
    steps: [...many('d', 5, { urgency: 4 }), { at: 20, key: 'd5', urgency: 0 }],
    gone: ['d1@0', 'd2@0', 'd5@100', 'd3@200', 'd4@300'],
  },
  {
    says: 'after a quiet time the burst is whole again, and no more than the burst',
    steps: [...many('d', 3), ...many('e', 3, { at: 5_000 })],
    gone: ['d1@0', 'd2@0', 'd3@100', 'e1@5000', 'e2@5000', 'e3@5100'],
  },
  {
    says: 'a rate above one a millisecond is held by the burst',
    perSecond: 2_000,
    burst: 4,
    steps: many('d', 8),
    gone: ['d1@0', 'd2@0', 'd3@0', 'd4@0', 'd5@1', 'd6@1', 'd7@2', 'd8@2'],
  },
];

test.each(cases)('$says', ({ perSecond = 10, burst = 2, steps, gone }) => {
  const clock = createManualClock();
  const pacer = createPacer({ perSecond, burst, clock });
  const went: string[] = [];
  const last = Math.max(...steps.map(({ at = 0 }) => at)) + 2_000;
  for (let now = 0; now <= last; now += 1) {
    for (const step of steps) {
      if ((step.at ?? 0) !== now) continue;
      if ('drop' in step) pacer.drop(step.drop);
      else
        pacer.offer(step.key, step.urgency ?? 4, () => went.push(`${step.key}@${clock.ticks()}`));
    }
    clock.pass(1);
  }
  expect(went).toEqual(gone);
  expect(pacer.size()).toBe(0);
});

test('it tells how many wait, and forgets them when told to', () => {
  const clock = createManualClock();
  const pacer = createPacer({ perSecond: 10, burst: 1, clock });
  let went = 0;
  for (const { key } of many('d', 4)) pacer.offer(key, 0, () => (went += 1));
  pacer.offer('d4', 3, () => (went += 1));
  expect(pacer.size()).toBe(3);
  pacer.clear();
  expect(pacer.size()).toBe(0);
  clock.pass(1_000);
  expect(went).toBe(1);
});

test('a timer that came late makes up for what it missed, as far as the burst reaches', () => {
  let ticks = 0;
  let ring = () => {};
  const after = (_delayMs: number, call: () => void) => {
    ring = call;
    return () => {};
  };
  const pacer = createPacer({ perSecond: 10, burst: 3, clock: { ticks: () => ticks, after } });
  const went: string[] = [];
  for (const { key } of many('d', 12)) pacer.offer(key, 0, () => went.push(key));
  expect(went).toHaveLength(3);
  ticks = 250;
  ring();
  expect(went).toHaveLength(5);
  ticks = 10_000;
  ring();
  expect(went).toHaveLength(8);
});
