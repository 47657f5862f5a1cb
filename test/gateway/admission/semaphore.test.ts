import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  createSemaphore,
  type Place,
  type Waiter,
} from '../../../src/gateway/admission/semaphore.ts';
import { createManualClock } from '../manual-clock.ts';

type Limits = { places?: number; waitMs?: number; room?: number };

function setUp({ places = 1, waitMs = 100, room = 3 }: Limits = {}) {
  const clock = createManualClock();
  let timers = 0;
  const counting = {
    ...clock,
    after(delayMs: number, call: () => void) {
      timers += 1;
      const cancel = clock.after(delayMs, () => {
        timers -= 1;
        call();
      });
      let isOver = false;
      return () => {
        if (!isOver) timers -= 1;
        isOver = true;
        cancel();
      };
    },
  };
  const semaphore = createSemaphore({ places, waitMs, room, clock: counting });
  const events: string[] = [];
  const got = new Map<string, Place>();
  const wait = (name: string) =>
    semaphore.wait(
      (place) => {
        events.push(`${name} got a place`);
        got.set(name, place);
      },
      () => events.push(`${name} timed out`),
    );
  return { clock, semaphore, events, got, wait, timers: () => timers };
}

describe('the places', () => {
  it('are as many as configured, and come back', () => {
    const { semaphore } = setUp({ places: 2 });
    const first = semaphore.take();
    semaphore.take();
    expect(semaphore.take()).toBeNull();
    expect([semaphore.inUse, semaphore.available]).toEqual([2, 0]);
    first?.release();
    expect([semaphore.inUse, semaphore.available]).toEqual([1, 1]);
    expect(semaphore.take()).not.toBeNull();
  });

  it('are given back once, however often that is said', () => {
    const { semaphore } = setUp({ places: 2 });
    const place = semaphore.take();
    semaphore.take();
    place?.release();
    place?.release();
    expect(semaphore.available).toBe(1);
  });
});

describe('the waiting room', () => {
  it('is served in the order in which they came', () => {
    const { semaphore, wait, events, got } = setUp();
    const place = semaphore.take();
    wait('a');
    wait('b');
    expect(events).toEqual([]);
    place?.release();
    got.get('a')?.release();
    expect(events).toEqual(['a got a place', 'b got a place']);
    expect([semaphore.inUse, semaphore.waiting]).toEqual([1, 0]);
  });

  it('takes no more than it holds', () => {
    const { semaphore, wait } = setUp({ room: 2 });
    semaphore.take();
    expect(wait('a')).not.toBeNull();
    expect(wait('b')).not.toBeNull();
    expect(wait('c')).toBeNull();
    expect(semaphore.waiting).toBe(2);
  });

  it('takes nobody when nobody may wait', () => {
    const { semaphore, wait, events, clock } = setUp({ waitMs: 0 });
    semaphore.take();
    expect(wait('a')).toBeNull();
    clock.pass(10);
    expect(events).toEqual([]);
  });

  it('sends away each whose own time is over, not before and not after', () => {
    const { semaphore, wait, events, clock } = setUp();
    semaphore.take();
    wait('a');
    clock.pass(40);
    wait('b');
    clock.pass(59);
    expect(events).toEqual([]);
    clock.pass(1);
    expect(events).toEqual(['a timed out']);
    clock.pass(39);
    expect(events).toHaveLength(1);
    clock.pass(1);
    expect(events).toEqual(['a timed out', 'b timed out']);
    expect(semaphore.waiting).toBe(0);
  });

  it('lets one who was moved to the front go first, and still only wait for their own time', () => {
    const { semaphore, wait, events, clock, got } = setUp();
    const place = semaphore.take();
    wait('a');
    clock.pass(50);
    const b = wait('b');
    const c = wait('c');
    b?.first();
    c?.first();
    place?.release();
    expect(events).toEqual(['c got a place']);
    clock.pass(50);
    expect(events.at(-1)).toBe('a timed out');
    got.get('c')?.release();
    expect(events.at(-1)).toBe('b got a place');
  });

  it('forgets one who went away, whose place and time go to nobody', () => {
    const { semaphore, wait, events, clock } = setUp({ room: 1 });
    const place = semaphore.take();
    const a = wait('a');
    a?.cancel();
    a?.cancel();
    a?.first();
    expect(semaphore.waiting).toBe(0);
    expect(wait('b')).not.toBeNull();
    place?.release();
    clock.pass(200);
    expect(events).toEqual(['b got a place']);
  });

  it('has one timer however many wait, and none when nobody does', () => {
    const { semaphore, wait, clock, timers } = setUp({ room: 1_000 });
    semaphore.take();
    const waiters: (Waiter | null)[] = [];
    for (let i = 0; i < 500; i += 1) waiters.push(wait(`${i}`));
    clock.pass(1);
    wait('later');
    expect(timers()).toBe(1);
    for (const waiter of waiters) waiter?.cancel();
    clock.pass(100);
    expect([semaphore.waiting, timers()]).toEqual([0, 0]);
    wait('last')?.cancel();
    expect(timers()).toBe(0);
  });

  it('survives that thousands give their place back as soon as they get it', () => {
    const { semaphore } = setUp({ room: 100_000 });
    const place = semaphore.take();
    let served = 0;
    for (let i = 0; i < 50_000; i += 1) {
      semaphore.wait(
        (own) => {
          served += 1;
          own.release();
        },
        () => undefined,
      );
    }
    place?.release();
    expect([served, semaphore.available]).toEqual([50_000, 1]);
  });

  it('is passed by nobody who comes while its head is being served', () => {
    const { semaphore, wait, events } = setUp();
    const place = semaphore.take();
    let taken: Place | null | undefined;
    semaphore.wait(
      (own) => {
        own.release();
        taken = semaphore.take();
      },
      () => undefined,
    );
    wait('b');
    place?.release();
    expect(taken).toBeNull();
    expect(events).toEqual(['b got a place']);
  });

  it('serves the next when a handler throws, and keeps no place for it', () => {
    const { semaphore, wait, events } = setUp();
    const place = semaphore.take();
    const boom = () => {
      throw new Error('boom');
    };
    semaphore.wait(boom, () => undefined);
    wait('b');
    expect(() => place?.release()).toThrow('boom');
    expect(events).toEqual(['b got a place']);
    expect(semaphore.inUse).toBe(1);
  });

  it('tells all who wait that it is over', () => {
    const { semaphore, wait, events, clock } = setUp();
    semaphore.take();
    wait('a');
    wait('b');
    semaphore.dismiss();
    clock.pass(200);
    expect(events).toEqual(['a timed out', 'b timed out']);
  });

  it('loses and invents no place, whatever happens in whatever order', () => {
    const step = fc.oneof(
      fc.constant({ do: 'enter' as const, which: 0 }),
      fc.record({
        do: fc.constantFrom('release' as const, 'cancel' as const, 'first' as const),
        which: fc.nat(20),
      }),
      fc.record({ do: fc.constant('pass' as const), which: fc.integer({ min: 1, max: 60 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const { semaphore, clock } = setUp({ places: 3, waitMs: 100, room: 4 });
        const holders = new Set<Place>();
        const waiters: Waiter[] = [];
        const all: Place[] = [];
        const hold = (place: Place) => {
          holders.add(place);
          all.push(place);
        };
        for (const each of steps) {
          if (each.do === 'enter') {
            const place = semaphore.take();
            if (place) hold(place);
            else {
              const waiter = semaphore.wait(hold, () => undefined);
              if (waiter) waiters.push(waiter);
            }
          } else if (each.do === 'release') {
            const place = all[each.which];
            if (place) holders.delete(place);
            place?.release();
          } else if (each.do === 'pass') clock.pass(each.which);
          else waiters[each.which]?.[each.do]();
          expect(semaphore.inUse).toBe(holders.size);
          expect(semaphore.inUse + semaphore.available).toBe(3);
          expect(semaphore.waiting).toBeLessThanOrEqual(4);
          // Nobody waits while a place is free.
          expect(semaphore.waiting === 0 || semaphore.available === 0).toBe(true);
        }
        clock.pass(100);
        expect(semaphore.waiting).toBe(0);
      }),
      { numRuns: 300 },
    );
  });
});
