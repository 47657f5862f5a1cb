/** Who may come in: everything that is decided about a peer before it costs anything. */
import type { Log } from '../../log/log.ts';
import type { Clock } from '../clock.ts';
import { createThrottle } from '../throttle.ts';
import { type BanLimits, createAddresses, normalAddress } from './addresses.ts';
import { type BreakerChange, type BreakerState, createBreaker } from './breaker.ts';
import { createSemaphore, type Place } from './semaphore.ts';
import { HeldTicket, type Ticket } from './ticket.ts';
import { createTokenBucket } from './token-bucket.ts';

export type { Ticket } from './ticket.ts';

/** In the order in which they are looked at. */
export const refusals = [
  'draining',
  'banned',
  'address-limit',
  'address-rate',
  'rate',
  'room-full',
  'wait-timeout',
  'breaker',
] as const;
export type Refusal = (typeof refusals)[number];

/** One of the two is called once, at once or after a wait, unless the pending one is cancelled. */
export type Peer = {
  admitted(ticket: Ticket): void;
  refused(reason: Refusal): void;
  /** `admitted` threw: its ticket is given back, so the socket must be dropped. */
  crashed?(error: unknown): void;
};

/** Does nothing once the peer was told. */
export type Pending = {
  /** The peer went away. */
  cancel(): void;
  /** It gets the next place. */
  first(): void;
};

/** What the metrics read. */
export type AdmissionSnapshot = {
  /** Places in use, free, and connections that wait for one. */
  active: number;
  available: number;
  waiting: number;
  breakerState: BreakerState;
  breakerFailures: number;
  breakerTrips: number;
  /** Addresses. */
  banned: number;
  /** Connections that the accept rate let pass, ever. */
  allowed: number;
};

export type Admission = {
  enter(address: string, peer: Peer): Pending;
  /** Refuses all who come, and all who wait. */
  drain(): void;
  /** Drains, and stops its timers. Tickets can still be given back. */
  close(): void;
  snapshot(): AdmissionSnapshot;
};

export type AdmissionOptions = {
  /** Places, how long a connection waits for one, and how many may wait. */
  maxConnections: number;
  waitMs: number;
  waitingRoom: number;
  /** New connections a second. */
  rateLimit: number;
  rateBurst: number;
  breaker: { threshold: number; timeoutMs: number; halfOpenMax: number };
  /** Of one address; 0: no limit. */
  address: { maxConnections: number; rateLimit: number };
  ban: BanLimits;
};

export type AdmissionDeps = {
  options: AdmissionOptions;
  clock: Clock;
  log: Log;
  onBreakerChange: (change: BreakerChange) => void;
};

const settled: Pending = { cancel: () => undefined, first: () => undefined };

export function createAdmission({
  options,
  clock,
  log,
  onBreakerChange,
}: AdmissionDeps): Admission {
  const sayBan = createThrottle(clock);
  const sayCrash = createThrottle(clock);
  const addresses = createAddresses({
    maxConnections: options.address.maxConnections,
    ratePerSecond: options.address.rateLimit,
    ban: options.ban,
    clock,
    onBan: (address, { strikes, durationMs }) =>
      sayBan((times) => log.warn({ address, strikes, durationMs, times }, 'address banned')),
    onRelease: (address) => log.debug({ address }, 'address released'),
  });
  const bucket = createTokenBucket({
    perSecond: options.rateLimit,
    burst: options.rateBurst,
    clock,
  });
  const semaphore = createSemaphore({
    places: options.maxConnections,
    waitMs: options.waitMs,
    room: options.waitingRoom,
    clock,
  });
  const breaker = createBreaker({ ...options.breaker, clock, onChange: onBreakerChange });
  let allowed = 0;
  let draining = false;

  function enter(from: string, peer: Peer): Pending {
    const address = normalAddress(from);
    if (draining) return refuse(peer, 'draining');
    const verdict = addresses.admit(address);
    if (verdict !== 'ok') return refuse(peer, verdict);
    if (!bucket.take()) return refuse(peer, 'rate');
    allowed += 1;
    // From here on, so that one address cannot fill the waiting room either.
    addresses.opened(address);
    const place = semaphore.take();
    if (!place) return wait(address, peer);
    pass(address, peer, place);
    return settled;
  }

  function wait(address: string, peer: Peer): Pending {
    let waits = true;
    const waiter = semaphore.wait(
      (place) => {
        waits = false;
        pass(address, peer, place);
      },
      () => {
        waits = false;
        addresses.closed(address, false);
        refuse(peer, draining ? 'draining' : 'wait-timeout');
      },
    );
    if (!waiter) {
      addresses.closed(address, false);
      return refuse(peer, 'room-full');
    }
    return {
      cancel() {
        if (!waits) return;
        waits = false;
        waiter.cancel();
        addresses.closed(address, false);
      },
      first: () => waiter.first(),
    };
  }

  function pass(address: string, peer: Peer, place: Place): void {
    const trial = breaker.admit();
    if (!trial) {
      addresses.closed(address, false);
      // Told first: giving the place back may let others in.
      refuse(peer, 'breaker');
      place.release();
      return;
    }
    const ticket = new HeldTicket(address, addresses, breaker, place, trial);
    tell(peer, () => peer.admitted(ticket), ticket);
  }

  function refuse(peer: Peer, reason: Refusal): Pending {
    tell(peer, () => peer.refused(reason), null);
    return settled;
  }

  /** A peer's handler that throws must neither keep its place nor disturb whoever gave it one. */
  function tell(peer: Peer, say: () => void, ticket: Ticket | null): void {
    try {
      say();
    } catch (error) {
      sayCrash((times) => log.error({ error, times }, 'a connection could not be handled'));
      try {
        ticket?.failed();
      } finally {
        ticket?.release();
      }
      try {
        peer.crashed?.(error);
      } catch (failure) {
        log.error({ error: failure }, 'a connection could not be dropped');
      }
    }
  }

  function drain(): void {
    draining = true;
    semaphore.dismiss();
  }

  return {
    enter,
    drain,
    close() {
      drain();
      breaker.close();
      addresses.close();
    },
    snapshot: () => ({
      active: semaphore.inUse,
      available: semaphore.available,
      waiting: semaphore.waiting,
      breakerState: breaker.state,
      breakerFailures: breaker.failures,
      breakerTrips: breaker.trips,
      banned: addresses.banned,
      allowed,
    }),
  };
}
