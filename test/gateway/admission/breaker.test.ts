import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type BreakerChange,
  createBreaker,
  type Trial,
} from '../../../src/gateway/admission/breaker.ts';
import { createManualClock } from '../manual-clock.ts';

const TIMEOUT_MS = 100;

function setUp({ threshold = 3, halfOpenMax = 5 } = {}) {
  const clock = createManualClock();
  const changes: BreakerChange[] = [];
  const onChange = (change: BreakerChange) => void changes.push(change);
  const breaker = createBreaker({
    threshold,
    timeoutMs: TIMEOUT_MS,
    halfOpenMax,
    clock,
    onChange,
  });
  return { clock, breaker, changes };
}

/** `a` is admitted, `a!` failed, `a+` logged in, `a-` went away, `-` somebody is refused, `100` milliseconds pass. */
function run(script: string) {
  const world = setUp();
  const trials = new Map<string, Trial>();
  for (const word of script.split(' ')) {
    const [name = '', sign] = word;
    const trial = trials.get(name);
    if (/^\d+$/.test(word)) world.clock.pass(Number(word));
    else if (word === '-') expect(world.breaker.admit(), script).toBeNull();
    else if (sign === '!') trial?.failed();
    else if (sign === '+') trial?.succeeded();
    else if (sign === '-') trial?.abandoned();
    else {
      const admitted = world.breaker.admit();
      expect(admitted, `${script}: ${name} is admitted`).not.toBeNull();
      trials.set(name, admitted!);
    }
  }
  const { state, failures, trips } = world.breaker;
  return { state, failures, trips, path: world.changes.map(({ to }) => to) };
}

const OPEN = 'a b c a! b! c!';
const HALF = `${OPEN} 100`;

const table: [string, string, string, number, number][] = [
  // what happens · script · state · failures · trips
  ['nothing', 'a', 'closed', 0, 0],
  ['failures below the threshold', 'a b a! b!', 'closed', 2, 0],
  ['a success takes one failure off', 'a b c a! b! c+', 'closed', 1, 0],
  ['a success takes none off none', 'a b a+ b!', 'closed', 1, 0],
  ['successes keep it closed', 'a b c d e a! b! c+ d! e+', 'closed', 1, 0],
  ['failures in spite of successes open it', 'a b c d e a! b! c+ d! e!', 'open', 3, 1],
  ['peers that go away change nothing', 'a b c a! b! c-', 'closed', 2, 0],
  ['the threshold opens it', OPEN, 'open', 3, 1],
  ['a connection fails only once', 'a a! a! a!', 'closed', 1, 0],
  ['a connection that succeeded does not fail', 'a b a! b+ b! b!', 'closed', 0, 0],
  ['a connection that went away does not fail', 'a a- a!', 'closed', 0, 0],
  ['an open one refuses', `${OPEN} - 99 -`, 'open', 3, 1],
  ['an open one hears nothing', `d ${OPEN} d!`, 'open', 3, 1],
  ['its time opens it half', HALF, 'half-open', 0, 1],
  [
    'a half-open one admits its trials and refuses the next',
    `${HALF} d e f g h -`,
    'half-open',
    0,
    1,
  ],
  ['one failure reopens it', `${HALF} d e d+ e!`, 'open', 1, 2],
  ['a reopened one refuses for the whole time', `${HALF} 50 d d! 99 -`, 'open', 1, 2],
  ['a reopened one opens half again', `${HALF} d d! 100 e`, 'half-open', 0, 2],
  ['fewer than half of the trials do not close it', `${HALF} d e d+ e+`, 'half-open', 0, 1],
  ['half of the trials close it', `${HALF} d e f d+ e+ f+`, 'closed', 0, 1],
  ['successes count one after the other too', `${HALF} d d+ e e+ f f+`, 'closed', 0, 1],
  ['a trial counts once', `${HALF} d d+ d+ d+`, 'half-open', 0, 1],
  ['a success keeps its slot', `${HALF} d e f g h d+ -`, 'half-open', 0, 1],
  ['one who goes away gives its slot back', `${HALF} d e f g h d- i -`, 'half-open', 0, 1],
  ['and gives back one slot only', `${HALF} d e f g h d- d- i -`, 'half-open', 0, 1],
  ['failures from before do not reopen it', `d ${HALF} d!`, 'half-open', 0, 1],
  ['successes from before do not close it', `d e f ${HALF} d+ e+ f+`, 'half-open', 0, 1],
  ['those who go away from before free no slot', `d ${HALF} e f g h i d- -`, 'half-open', 0, 1],
  [
    'trials from the half-open state before do not count',
    `${HALF} d e e! 100 d!`,
    'half-open',
    0,
    2,
  ],
  [
    'trials left over do not count in the closed state',
    `${HALF} d e f g d+ e+ f+ g!`,
    'closed',
    0,
    1,
  ],
  [
    'silent trials lose their slot in time',
    `${HALF} d e f g h 99 - 1 i j k l m -`,
    'half-open',
    0,
    1,
  ],
  ['a late failure reopens it all the same', `${HALF} d e f g h 100 i d!`, 'open', 1, 2],
  ['late successes close it all the same', `${HALF} d e f g h 100 i d+ e+ f+`, 'closed', 0, 1],
  ['a closed one counts anew', `${HALF} d e f d+ e+ f+ g h g! h!`, 'closed', 2, 1],
];

describe('the circuit breaker', () => {
  it.each(table)('%s', (_says, script, state, failures, trips) => {
    const world = run(script);
    expect({ state: world.state, failures: world.failures, trips: world.trips }).toEqual({
      state,
      failures,
      trips,
    });
  });

  it('tells every change with its failures and its time', () => {
    const { breaker, clock, changes } = setUp({ threshold: 2 });
    const start = clock.now();
    breaker.admit()?.failed();
    breaker.admit()?.failed();
    clock.pass(TIMEOUT_MS);
    breaker.admit()?.failed();
    clock.pass(TIMEOUT_MS);
    for (let i = 0; i < 3; i += 1) breaker.admit()?.succeeded();
    expect(changes).toEqual([
      { from: 'closed', to: 'open', failures: 2, at: start },
      { from: 'open', to: 'half-open', failures: 2, at: start + 100 },
      { from: 'half-open', to: 'open', failures: 1, at: start + 100 },
      { from: 'open', to: 'half-open', failures: 1, at: start + 200 },
      { from: 'half-open', to: 'closed', failures: 0, at: start + 200 },
    ]);
  });

  it.each([
    [1, 1],
    [2, 1],
    [3, 2],
    [4, 2],
    [5, 3],
  ])('with %i trials needs %i of them to succeed', (halfOpenMax, needed) => {
    const { breaker, clock } = setUp({ threshold: 1, halfOpenMax });
    breaker.admit()?.failed();
    clock.pass(TIMEOUT_MS);
    for (let i = 0; i < needed; i += 1) {
      expect(breaker.state).toBe('half-open');
      breaker.admit()?.succeeded();
    }
    expect(breaker.state).toBe('closed');
  });

  it('opens half without its timer too, once it is closed down', () => {
    const { breaker, clock } = setUp({ threshold: 1 });
    breaker.admit()?.failed();
    breaker.close();
    clock.pass(TIMEOUT_MS);
    expect(breaker.state).toBe('open');
    expect(breaker.admit()).not.toBeNull();
    expect(breaker.state).toBe('half-open');
  });

  it('is never stuck and leaks no slot, whatever its connections do', () => {
    const step = fc.oneof(
      fc.constant({ do: 'admit' as const, which: 0 }),
      fc.record({
        do: fc.constantFrom('succeeded' as const, 'failed' as const, 'abandoned' as const),
        which: fc.nat(30),
      }),
      fc.record({ do: fc.constant('pass' as const), which: fc.integer({ min: 1, max: 120 }) }),
    );
    const limits = fc.record({
      threshold: fc.integer({ min: 1, max: 4 }),
      halfOpenMax: fc.integer({ min: 1, max: 6 }),
    });
    fc.assert(
      fc.property(limits, fc.array(step, { maxLength: 60 }), (bounds, steps) => {
        const { breaker, clock, changes } = setUp(bounds);
        const admitted: { trial: Trial; at: number; era: number; over: boolean }[] = [];
        for (const each of steps) {
          if (each.do === 'admit') {
            const trial = breaker.admit();
            const at = clock.ticks();
            if (trial) admitted.push({ trial, at, era: changes.length, over: false });
          } else if (each.do === 'pass') clock.pass(each.which);
          else {
            const one = admitted[each.which];
            one?.trial[each.do]();
            if (one) one.over = true;
          }
          const isTrying = ({ over, at, era }: (typeof admitted)[number]) =>
            !over && era === changes.length && clock.ticks() - at < TIMEOUT_MS;
          if (breaker.state === 'half-open') {
            expect(admitted.filter(isTrying).length).toBeLessThanOrEqual(bounds.halfOpenMax);
          }
          if (breaker.state === 'closed') expect(breaker.failures).toBeLessThan(bounds.threshold);
        }
        // However it got here: all others go away, and a few logins close it.
        clock.pass(TIMEOUT_MS);
        for (const { trial } of admitted) trial.abandoned();
        const needed = Math.ceil(bounds.halfOpenMax / 2);
        for (let i = 0; i < needed && breaker.state !== 'closed'; i += 1) {
          const trial = breaker.admit();
          expect(trial).not.toBeNull();
          trial?.succeeded();
        }
        expect(breaker.state).toBe('closed');
        // And from closed through open, all slots are there.
        while (breaker.state === 'closed') breaker.admit()?.failed();
        clock.pass(TIMEOUT_MS);
        for (let i = 0; i < bounds.halfOpenMax; i += 1) expect(breaker.admit()).not.toBeNull();
        expect(breaker.admit()).toBeNull();
      }),
      { numRuns: 300 },
    );
  });
});
