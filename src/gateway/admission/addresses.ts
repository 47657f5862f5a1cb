/** What is known of remote addresses: how many connections they have, how fast they come, how they ended. */
import type { Clock } from '../clock.ts';
import { createLinkedList, ListNode } from './linked-list.ts';
import { refilled } from './token-bucket.ts';

export type AddressVerdict = 'ok' | 'address-limit' | 'address-rate' | 'banned';

/** Every `opened` is followed by one `closed`; the others may come in any number. */
export type Addresses = {
  /** Whether one more connection may come; an admitted one uses up rate. */
  admit(address: string): AddressVerdict;
  opened(address: string): void;
  closed(address: string, wasLoggedIn: boolean): void;
  /** Once per connection, before its end. Lifts a ban: devices are behind that address after all. */
  loggedIn(address: string): void;
  /** A connection ended as garbage, or without a login. */
  strike(address: string): void;
  /** Stops its timer; bans then end with the next connection of their address. */
  close(): void;
  readonly banned: number;
  /** Addresses that are remembered. */
  readonly known: number;
};

export type AddressLimits = {
  /** 0: no limit. */
  maxConnections: number;
  /** New connections a second, which is the burst too. 0: no limit. */
  ratePerSecond: number;
  ban: BanLimits;
};

export type BanLimits = {
  /** Strikes within the window, which begins with the first of them. 0: never. */
  threshold: number;
  windowMs: number;
  durationMs: number;
};

export type AddressesDeps = AddressLimits & {
  clock: Clock;
  /** Addresses remembered without a connection, and addresses banned, at most. */
  maxAddresses?: number;
  onBan: (address: string, ban: { strikes: number; durationMs: number }) => void;
  onRelease: (address: string) => void;
};

class Entry {
  readonly address: string;
  open = 0;
  loggedIn = 0;
  /** When a connection of it was last logged in. */
  servedAt = Number.NEGATIVE_INFINITY;
  strikes = 0;
  strikesSince = 0;
  tokens: number;
  filledAt: number;
  isBanned = false;
  bannedUntil = 0;
  /** Among the bans, or among the idle ones, or in neither list while it is connected. */
  readonly node = new ListNode<Entry>(this);

  constructor(address: string, tokens: number, ticks: number) {
    this.address = address;
    this.tokens = tokens;
    this.filledAt = ticks;
  }
}

const MAX_ADDRESSES = 100_000;
const MAPPED = '::ffff:';

export function createAddresses({
  maxConnections,
  ratePerSecond,
  ban,
  clock,
  maxAddresses = MAX_ADDRESSES,
  onBan,
  onRelease,
}: AddressesDeps): Addresses {
  const limited = maxConnections > 0 || ratePerSecond > 0;
  const banning = ban.threshold > 0;
  const entries = new Map<string, Entry>();
  /**
   * Neither connected nor banned, least recently used first: forgetting one forgives it, while forgetting
   * one of the others would lose count. Not an LRUCache: taking the last one out of it clears arrays of
   * its full size, and here addresses go in and out with every connection.
   */
  const idle = createLinkedList<Entry>();
  /** All bans are equally long, so the oldest ends first. */
  const bans = createLinkedList<Entry>();
  let cancelTimer: (() => void) | null = null;
  let isClosed = false;

  /** The caller files it. */
  function obtain(address: string): Entry {
    const known = entries.get(address);
    if (known) return known;
    const entry = new Entry(address, ratePerSecond, clock.ticks());
    entries.set(address, entry);
    return entry;
  }

  /** Puts it where it belongs, after anything that may have changed that. */
  function file(entry: Entry): void {
    if (entry.isBanned) return;
    idle.remove(entry.node);
    if (entry.open > 0 || entry.loggedIn > 0) return;
    idle.append(entry.node);
    if (idle.size > maxAddresses && idle.head) {
      const { value: oldest } = idle.head;
      idle.remove(oldest.node);
      entries.delete(oldest.address);
    }
  }

  function takeRate(entry: Entry, ticks: number): boolean {
    const elapsedMs = ticks - entry.filledAt;
    entry.tokens = refilled(entry.tokens, elapsedMs, ratePerSecond, ratePerSecond);
    entry.filledAt = ticks;
    if (entry.tokens < 1) return false;
    entry.tokens -= 1;
    return true;
  }

  function impose(entry: Entry, ticks: number): void {
    const { strikes } = entry;
    entry.strikes = 0;
    idle.remove(entry.node);
    entry.isBanned = true;
    entry.bannedUntil = ticks + ban.durationMs;
    bans.append(entry.node);
    // Bounded like the rest; the oldest ban is nearest to its end anyway.
    if (bans.size > maxAddresses && bans.head) lift(bans.head.value);
    arm();
    onBan(entry.address, { strikes, durationMs: ban.durationMs });
  }

  function lift(entry: Entry): void {
    if (!entry.isBanned) return;
    bans.remove(entry.node);
    entry.isBanned = false;
    file(entry);
    if (bans.size === 0) disarm();
    onRelease(entry.address);
  }

  function liftDue(): void {
    const ticks = clock.ticks();
    while (bans.head && bans.head.value.bannedUntil <= ticks) lift(bans.head.value);
  }

  function arm(): void {
    const next = bans.head;
    if (!next || cancelTimer || isClosed) return;
    cancelTimer = clock.after(Math.max(0, next.value.bannedUntil - clock.ticks()), () => {
      cancelTimer = null;
      liftDue();
      arm();
    });
  }

  function disarm(): void {
    cancelTimer?.();
    cancelTimer = null;
  }

  function admit(address: string): AddressVerdict {
    if (!limited && bans.size === 0) return 'ok';
    const ticks = clock.ticks();
    const key = normalAddress(address);
    const entry = ratePerSecond > 0 ? obtain(key) : entries.get(key);
    if (!entry) return 'ok';
    file(entry);
    if (entry.isBanned) {
      if (entry.bannedUntil > ticks) return 'banned';
      lift(entry);
    }
    if (maxConnections > 0 && entry.open >= maxConnections) return 'address-limit';
    if (ratePerSecond > 0 && !takeRate(entry, ticks)) return 'address-rate';
    return 'ok';
  }

  function opened(address: string): void {
    if (maxConnections === 0) return;
    const entry = obtain(normalAddress(address));
    entry.open += 1;
    file(entry);
  }

  function closed(address: string, wasLoggedIn: boolean): void {
    if (maxConnections === 0 && !(banning && wasLoggedIn)) return;
    const entry = entries.get(normalAddress(address));
    if (!entry) return;
    if (maxConnections > 0) entry.open -= 1;
    if (banning && wasLoggedIn) {
      entry.loggedIn -= 1;
      entry.servedAt = clock.ticks();
    }
    file(entry);
  }

  function loggedIn(address: string): void {
    if (!banning) return;
    const entry = obtain(normalAddress(address));
    entry.loggedIn += 1;
    entry.servedAt = clock.ticks();
    lift(entry);
    file(entry);
  }

  function strike(address: string): void {
    if (!banning) return;
    const entry = obtain(normalAddress(address));
    const ticks = clock.ticks();
    if (entry.isBanned) return;
    if (entry.strikes === 0 || ticks - entry.strikesSince >= ban.windowMs) {
      entry.strikes = 0;
      entry.strikesSince = ticks;
    }
    entry.strikes += 1;
    const isServed = entry.loggedIn > 0 || ticks - entry.servedAt < ban.windowMs;
    if (entry.strikes >= ban.threshold && !isServed) impose(entry, ticks);
    else file(entry);
  }

  return {
    admit,
    opened,
    closed,
    loggedIn,
    strike,
    close() {
      isClosed = true;
      disarm();
    },
    get banned() {
      return bans.size;
    },
    get known() {
      return entries.size;
    },
  };
}

/** One peer has one name, whether it came to the IPv4 or to the IPv6 socket. */
export function normalAddress(address: string): string {
  const isMapped = address.startsWith(MAPPED) && address.includes('.');
  return isMapped ? address.slice(MAPPED.length) : address;
}
