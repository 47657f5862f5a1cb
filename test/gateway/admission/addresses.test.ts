import { describe, expect, it } from 'vitest';
import { createAddresses, normalAddress } from '../../../src/gateway/admission/addresses.ts';
import { createManualClock } from '../manual-clock.ts';

const A = '192.0.2.1';
const B = '192.0.2.2';
const off = { threshold: 0, windowMs: 1_000, durationMs: 500 };
const ban = { ...off, threshold: 3 };

function setUp({
  maxConnections = 0,
  ratePerSecond = 0,
  ban: limits = off,
  maxAddresses = 100,
} = {}) {
  const clock = createManualClock();
  const events: string[] = [];
  const addresses = createAddresses({
    maxConnections,
    ratePerSecond,
    ban: limits,
    clock,
    maxAddresses,
    onBan: (address, { strikes, durationMs }) =>
      events.push(`${address} banned for ${durationMs} ms after ${strikes}`),
    onRelease: (address) => events.push(`${address} released`),
  });
  const strike = (address: string, times: number) => {
    for (let i = 0; i < times; i += 1) addresses.strike(address);
  };
  return { clock, addresses, events, strike };
}

describe('an address', () => {
  it('is not even remembered when all limits are off', () => {
    const { addresses, strike } = setUp();
    expect(addresses.admit(A)).toBe('ok');
    addresses.opened(A);
    addresses.loggedIn(A);
    strike(A, 100);
    addresses.closed(A, true);
    expect([addresses.known, addresses.banned]).toEqual([0, 0]);
  });

  it('is not remembered for coming and going either when only bans are on', () => {
    const { addresses } = setUp({ ban });
    addresses.admit(A);
    addresses.opened(A);
    addresses.closed(A, false);
    expect(addresses.known).toBe(0);
  });

  it('has so many connections at a time', () => {
    const { addresses } = setUp({ maxConnections: 2 });
    for (let i = 0; i < 2; i += 1) {
      expect(addresses.admit(A)).toBe('ok');
      addresses.opened(A);
    }
    expect(addresses.admit(A)).toBe('address-limit');
    expect(addresses.admit(B)).toBe('ok');
    addresses.closed(A, false);
    expect(addresses.admit(A)).toBe('ok');
  });

  it('has so many new connections a second', () => {
    const { addresses, clock } = setUp({ ratePerSecond: 2 });
    expect([1, 2, 3].map(() => addresses.admit(A))).toEqual(['ok', 'ok', 'address-rate']);
    expect(addresses.admit(B)).toBe('ok');
    clock.pass(499);
    expect(addresses.admit(A)).toBe('address-rate');
    clock.pass(1);
    expect([1, 2].map(() => addresses.admit(A))).toEqual(['ok', 'address-rate']);
  });

  it('is the same one to an IPv4 and to an IPv6 socket', () => {
    const { addresses } = setUp({ maxConnections: 1 });
    addresses.opened(`::ffff:${A}`);
    expect(addresses.admit(A)).toBe('address-limit');
    addresses.closed(A, false);
    expect(addresses.admit(`::ffff:${A}`)).toBe('ok');
    expect(normalAddress('2001:db8::1')).toBe('2001:db8::1');
    expect(normalAddress('::ffff:0:1')).toBe('::ffff:0:1');
  });
});

describe('a ban', () => {
  it('follows enough strikes, and ends by itself', () => {
    const { addresses, events, strike, clock } = setUp({ ban });
    strike(A, 2);
    expect(addresses.admit(A)).toBe('ok');
    strike(`::ffff:${A}`, 1);
    expect([addresses.admit(A), addresses.admit(B), addresses.banned]).toEqual(['banned', 'ok', 1]);
    clock.pass(499);
    expect(addresses.admit(A)).toBe('banned');
    clock.pass(1);
    expect([addresses.banned, addresses.admit(A)]).toEqual([0, 'ok']);
    expect(events).toEqual([`${A} banned for 500 ms after 3`, `${A} released`]);
  });

  it('begins anew after it: the old strikes are served', () => {
    const { addresses, strike, clock } = setUp({ ban });
    strike(A, 3);
    clock.pass(500);
    strike(A, 2);
    expect(addresses.admit(A)).toBe('ok');
    strike(A, 1);
    expect(addresses.admit(A)).toBe('banned');
  });

  it('is not made longer by connections that still end', () => {
    const { addresses, strike, clock, events } = setUp({ ban });
    strike(A, 3);
    clock.pass(400);
    strike(A, 10);
    clock.pass(100);
    expect(addresses.admit(A)).toBe('ok');
    strike(A, 2);
    expect(addresses.admit(A)).toBe('ok');
    expect(events).toHaveLength(2);
  });

  it('takes strikes within the window only', () => {
    const { addresses, strike, clock } = setUp({ ban });
    strike(A, 2);
    clock.pass(1_000);
    strike(A, 2);
    expect(addresses.admit(A)).toBe('ok');
  });

  it('spares an address behind which a device is logged in, or was within the window', () => {
    const { addresses, strike, clock } = setUp({ ban });
    addresses.loggedIn(A);
    clock.pass(5_000);
    strike(A, 10);
    expect(addresses.admit(A)).toBe('ok');
    addresses.closed(A, true);
    clock.pass(999);
    strike(A, 10);
    expect(addresses.admit(A)).toBe('ok');
    clock.pass(1_001);
    strike(A, 3);
    expect(addresses.admit(A)).toBe('banned');
  });

  it('ends when a device behind the address logs in after all', () => {
    const { addresses, strike, events } = setUp({ ban });
    strike(A, 3);
    addresses.loggedIn(A);
    expect([addresses.banned, addresses.admit(A)]).toEqual([0, 'ok']);
    expect(events.at(-1)).toBe(`${A} released`);
  });

  it('ends without its timer too', () => {
    const { addresses, strike, clock } = setUp({ ban });
    strike(A, 3);
    addresses.close();
    clock.pass(500);
    expect(addresses.banned).toBe(1);
    expect([addresses.admit(A), addresses.banned]).toEqual(['ok', 0]);
  });

  it('ends for each address at its own time', () => {
    const { addresses, strike, clock, events } = setUp({ ban });
    strike(A, 3);
    clock.pass(200);
    strike(B, 3);
    expect(addresses.banned).toBe(2);
    clock.pass(300);
    expect([addresses.admit(A), addresses.admit(B)]).toEqual(['ok', 'banned']);
    clock.pass(200);
    expect(events.slice(2)).toEqual([`${A} released`, `${B} released`]);
  });
});

describe('the memory of addresses', () => {
  const address = (i: number) => `2001:db8::${i.toString(16)}`;

  it('is bounded: the oldest idle ones are forgiven', () => {
    const { addresses, strike } = setUp({ ban, maxAddresses: 10 });
    strike(A, 2);
    for (let i = 0; i < 1_000; i += 1) strike(address(i), 1);
    expect(addresses.known).toBe(10);
    strike(A, 1);
    expect(addresses.admit(A)).toBe('ok');
  });

  it('knows an address once, whatever becomes of it', () => {
    const { addresses, strike, clock } = setUp({ ban });
    strike(A, 1);
    addresses.loggedIn(A);
    expect(addresses.known).toBe(1);
    addresses.closed(A, true);
    clock.pass(1_000);
    strike(A, 3);
    expect(addresses.known).toBe(1);
    clock.pass(500);
    expect(addresses.known).toBe(1);
  });

  it('keeps every address that has a connection', () => {
    const { addresses } = setUp({ maxConnections: 1, ratePerSecond: 5, maxAddresses: 10 });
    for (let i = 0; i < 100; i += 1) addresses.opened(address(i));
    for (let i = 1_000; i < 2_000; i += 1) addresses.admit(address(i));
    expect(addresses.admit(address(0))).toBe('address-limit');
    for (let i = 0; i < 100; i += 1) addresses.closed(address(i), false);
    expect(addresses.known).toBe(10);
    for (let i = 0; i < 100; i += 1) expect(addresses.admit(address(i))).toBe('ok');
  });

  it('keeps a banned address through a flood of others, and lets the oldest ban go when there are too many', () => {
    const { addresses, strike, events } = setUp({ ban, maxAddresses: 10 });
    strike(A, 3);
    for (let i = 0; i < 1_000; i += 1) strike(address(i), 1);
    expect(addresses.admit(A)).toBe('banned');
    for (let i = 2_000; i < 2_010; i += 1) strike(address(i), 3);
    expect([addresses.admit(A), addresses.banned]).toEqual(['ok', 10]);
    expect(events).toContain(`${A} released`);
    expect(addresses.known).toBeLessThanOrEqual(20);
  });
});
