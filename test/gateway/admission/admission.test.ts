import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type AdmissionOptions,
  createAdmission,
  type Pending,
  type Ticket,
} from '../../../src/gateway/admission/admission.ts';
import { createLog } from '../../../src/log/log.ts';
import { createManualClock } from '../manual-clock.ts';

const A = '192.0.2.1';
const B = '192.0.2.2';

const wide: AdmissionOptions = {
  maxConnections: 10,
  waitMs: 100,
  waitingRoom: 10,
  rateLimit: 1_000,
  rateBurst: 1_000,
  breaker: { threshold: 2, timeoutMs: 200, halfOpenMax: 1 },
  address: { maxConnections: 0, rateLimit: 0 },
  ban: { threshold: 0, windowMs: 1_000, durationMs: 500 },
};

function setUp(options: Partial<AdmissionOptions> = {}) {
  const clock = createManualClock();
  const lines: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
  const changes: string[] = [];
  const admission = createAdmission({
    options: { ...wide, ...options },
    clock,
    log: createLog({ level: 'info', role: 'gateway', destination }),
    onBreakerChange: ({ from, to }) => changes.push(`${from} to ${to}`),
  });
  /** Says how it went, and hands out what it got. */
  function enter(address = A) {
    const seen = { ticket: null as Ticket | null, said: [] as string[], pending: null as unknown };
    const pending = admission.enter(address, {
      admitted(ticket) {
        seen.ticket = ticket;
        seen.said.push('admitted');
      },
      refused: (reason) => void seen.said.push(reason),
    });
    return Object.assign(seen, { pending });
  }
  return { clock, admission, enter, lines, changes };
}

describe('admission', () => {
  it('lets a peer in and takes back what it held', () => {
    const { admission, enter } = setUp({ maxConnections: 1 });
    const { said, ticket } = enter();
    expect(said).toEqual(['admitted']);
    expect(admission.snapshot()).toEqual({
      active: 1,
      available: 0,
      waiting: 0,
      breakerState: 'closed',
      breakerFailures: 0,
      breakerTrips: 0,
      banned: 0,
      allowed: 1,
    });
    ticket?.release();
    ticket?.release();
    expect(admission.snapshot()).toMatchObject({ active: 0, available: 1 });
  });

  it('refuses what is over the rate before it could wait for a place', () => {
    const { admission, enter } = setUp({ maxConnections: 1, rateLimit: 1, rateBurst: 2 });
    enter();
    expect(enter().said).toEqual([]);
    expect(enter().said).toEqual(['rate']);
    expect(admission.snapshot().waiting).toBe(1);
    expect(admission.snapshot().allowed).toBe(2);
  });

  it('makes a peer wait for a place, and lets it in when one is given back', () => {
    const { enter, admission } = setUp({ maxConnections: 1 });
    const first = enter();
    const second = enter();
    expect(second.said).toEqual([]);
    first.ticket?.release();
    expect(second.said).toEqual(['admitted']);
    second.ticket?.release();
    expect(admission.snapshot().active).toBe(0);
  });

  it('refuses a peer that waited long enough, and one for which there is no room', () => {
    const { enter, clock, admission } = setUp({ maxConnections: 1, waitingRoom: 1 });
    enter();
    const waiting = enter();
    expect(enter().said).toEqual(['room-full']);
    clock.pass(100);
    expect(waiting.said).toEqual(['wait-timeout']);
    expect(admission.snapshot()).toMatchObject({ active: 1, waiting: 0 });
  });

  it('forgets a waiting peer that went away', () => {
    const { enter, clock, admission } = setUp({
      maxConnections: 1,
      address: { maxConnections: 2, rateLimit: 0 },
    });
    const first = enter();
    const waiting = enter();
    expect(enter().said).toEqual(['address-limit']);
    waiting.pending.cancel();
    waiting.pending.cancel();
    first.ticket?.release();
    clock.pass(200);
    expect(waiting.said).toEqual([]);
    expect(admission.snapshot()).toMatchObject({ active: 0, waiting: 0 });
    enter();
    enter();
    expect(enter().said).toEqual(['address-limit']);
  });

  it('lets the peer that was moved to the front in first', () => {
    const { enter } = setUp({ maxConnections: 1 });
    const first = enter();
    const second = enter();
    const third = enter();
    third.pending.first();
    first.ticket?.release();
    expect([second.said, third.said]).toEqual([[], ['admitted']]);
  });

  it('refuses while the breaker is open, and keeps no place for those it refuses', () => {
    const { enter, clock, admission, changes } = setUp();
    enter().ticket?.failed();
    enter().ticket?.failed();
    expect(enter().said).toEqual(['breaker']);
    expect(admission.snapshot()).toMatchObject({
      active: 2,
      breakerState: 'open',
      breakerTrips: 1,
    });
    clock.pass(200);
    const trial = enter();
    expect(enter().said).toEqual(['breaker']);
    trial.ticket?.loggedIn();
    expect(enter().said).toEqual(['admitted']);
    expect(changes).toEqual(['closed to open', 'open to half-open', 'half-open to closed']);
  });

  it('gives the place back when the breaker opened during the wait', () => {
    const { enter, admission } = setUp({ maxConnections: 2 });
    const [first, second, third, fourth] = [enter(), enter(), enter(), enter()];
    first.ticket?.failed();
    second.ticket?.failed();
    first.ticket?.release();
    expect([third.said, fourth.said]).toEqual([['breaker'], ['breaker']]);
    expect(admission.snapshot()).toMatchObject({ active: 1, waiting: 0 });
  });

  it('gives the slot of a trial back whose peer went away', () => {
    const { enter, clock } = setUp();
    enter().ticket?.failed();
    enter().ticket?.failed();
    clock.pass(200);
    const trial = enter();
    trial.ticket?.strike();
    expect(enter().said).toEqual(['breaker']);
    trial.ticket?.release();
    expect(enter().said).toEqual(['admitted']);
  });

  it('opens for no amount of garbage', () => {
    const { enter, admission } = setUp();
    for (let i = 0; i < 100; i += 1) {
      const { ticket } = enter();
      ticket?.strike();
      ticket?.release();
    }
    expect(admission.snapshot()).toMatchObject({
      breakerState: 'closed',
      breakerFailures: 0,
      active: 0,
    });
  });

  it('bans an address for its garbage, tells so once, and refuses it before it uses up rate', () => {
    const { enter, admission, lines, clock } = setUp({
      ban: { threshold: 2, windowMs: 1_000, durationMs: 500 },
    });
    for (let i = 0; i < 2; i += 1) {
      const { ticket } = enter(`::ffff:${A}`);
      ticket?.strike();
      ticket?.strike();
      ticket?.release();
    }
    expect([enter().said, enter(B).said]).toEqual([['banned'], ['admitted']]);
    expect(admission.snapshot().banned).toBe(1);
    expect(admission.snapshot().allowed).toBe(3);
    expect(lines).toMatchObject([{ level: 'warn', address: A, strikes: 2, msg: 'address banned' }]);
    clock.pass(500);
    expect([admission.snapshot().banned, enter().said]).toEqual([0, ['admitted']]);
  });

  it('counts a strike and a login of a connection once', () => {
    const { enter } = setUp({ ban: { threshold: 2, windowMs: 1_000, durationMs: 500 } });
    const { ticket } = enter();
    ticket?.strike();
    ticket?.strike();
    ticket?.release();
    ticket?.loggedIn();
    expect(enter().said).toEqual(['admitted']);
    const other = enter().ticket;
    other?.strike();
    expect(enter().said).toEqual(['banned']);
  });

  it('spares an address while a device behind it is logged in', () => {
    const { enter, clock } = setUp({ ban: { threshold: 1, windowMs: 1_000, durationMs: 500 } });
    const device = enter();
    device.ticket?.loggedIn();
    device.ticket?.loggedIn();
    enter().ticket?.strike();
    expect(enter().said).toEqual(['admitted']);
    device.ticket?.release();
    clock.pass(1_000);
    enter().ticket?.strike();
    expect(enter().said).toEqual(['banned']);
  });

  it('limits what one address has in the waiting room too', () => {
    const { enter, clock } = setUp({
      maxConnections: 1,
      address: { maxConnections: 2, rateLimit: 0 },
    });
    enter(B);
    enter();
    enter();
    expect(enter().said).toEqual(['address-limit']);
    clock.pass(100);
    expect(enter().said).toEqual([]);
  });

  it('refuses all who come and all who wait while it drains', () => {
    const { enter, admission } = setUp({ maxConnections: 1 });
    const first = enter();
    const waiting = enter();
    admission.close();
    expect([waiting.said, enter().said]).toEqual([['draining'], ['draining']]);
    first.ticket?.release();
    expect(admission.snapshot()).toMatchObject({ active: 0, waiting: 0 });
  });

  it('takes the place of a peer whose handler throws, and counts that as our failure', () => {
    const { admission, enter, lines } = setUp({ maxConnections: 1 });
    const crashed: unknown[] = [];
    const boom = new Error('boom');
    const throwing = {
      admitted() {
        throw boom;
      },
      refused: () => undefined,
      crashed: (error: unknown) => void crashed.push(error),
    };
    admission.enter(A, throwing);
    expect(crashed).toEqual([boom]);
    expect(admission.snapshot()).toMatchObject({ active: 0, breakerFailures: 1 });
    // One that throws after a wait does not disturb the one whose place it got.
    const first = enter();
    admission.enter(A, throwing);
    const behind = enter();
    first.ticket?.loggedIn();
    first.ticket?.release();
    expect(behind.said).toEqual(['admitted']);
    expect(lines[0]).toMatchObject({ level: 'error', msg: 'a connection could not be handled' });
  });

  it('returns every place, whatever ends the connections', () => {
    const act = fc.constantFrom(
      'loggedIn' as const,
      'failed' as const,
      'strike' as const,
      'release' as const,
    );
    const step = fc.oneof(
      fc.record({ do: fc.constant('enter' as const), address: fc.constantFrom(A, B, 'c') }),
      fc.record({ do: act, which: fc.nat(30) }),
      fc.record({ do: fc.constantFrom('cancel' as const, 'first' as const), which: fc.nat(30) }),
      fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 150 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const { admission, clock } = setUp({
          maxConnections: 3,
          waitingRoom: 3,
          address: { maxConnections: 4, rateLimit: 50 },
          ban: { threshold: 3, windowMs: 300, durationMs: 200 },
        });
        const tickets: Ticket[] = [];
        const pendings: Pending[] = [];
        let told = 0;
        const peer = {
          admitted(ticket: Ticket) {
            told += 1;
            tickets.push(ticket);
          },
          refused: () => {
            told += 1;
          },
        };
        for (const each of steps) {
          if (each.do === 'enter') pendings.push(admission.enter(each.address, peer));
          else if (each.do === 'pass') clock.pass(each.ms);
          else if (each.do === 'cancel' || each.do === 'first') pendings[each.which]?.[each.do]();
          else tickets[each.which]?.[each.do]();
          const { active, available } = admission.snapshot();
          expect(active + available).toBe(3);
          expect(told).toBeLessThanOrEqual(pendings.length);
        }
        for (let i = 0; i < tickets.length; i += 1) tickets[i]?.release();
        clock.pass(600);
        for (const ticket of tickets) ticket.release();
        expect(admission.snapshot()).toMatchObject({ active: 0, waiting: 0, banned: 0 });
        // No address count is left over: each may have all of its connections again.
        for (const address of [A, B, 'c']) {
          const reasons: string[] = [];
          const count = {
            admitted: () => undefined,
            refused: (reason: string) => void reasons.push(reason),
          };
          const mine = [1, 2, 3, 4].map(() => admission.enter(address, count));
          expect(reasons).not.toContain('address-limit');
          for (const pending of mine) pending.cancel();
        }
      }),
      { numRuns: 150 },
    );
  });

  it('counts a failure of ours after the login too, once a connection', () => {
    const { admission, enter, changes } = setUp({ breaker: { ...wide.breaker, threshold: 2 } });
    const [first, second] = [enter(), enter()];
    for (const { ticket } of [first, second]) ticket?.loggedIn();
    first.ticket?.failed();
    first.ticket?.failed();
    expect(admission.snapshot().breakerFailures).toBe(1);
    second.ticket?.failed();
    expect(changes).toEqual(['closed to open']);
  });
});
