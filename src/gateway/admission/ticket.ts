/** What an admitted connection holds; it gives all of it back at its end. */
import type { Addresses } from './addresses.ts';
import type { Breaker, Trial } from './breaker.ts';
import type { Place } from './semaphore.ts';

/** Every call counts once, in any order, before or after the others. */
export type Ticket = {
  /** A login was answered. */
  loggedIn(): void;
  /** We failed while handling the connection. */
  failed(): void;
  /** It ended as garbage, or without a login. */
  strike(): void;
  /** The connection is over. */
  release(): void;
};

/** A class: there are as many as connections. */
export class HeldTicket implements Ticket {
  readonly #address: string;
  readonly #addresses: Addresses;
  readonly #breaker: Pick<Breaker, 'failed'>;
  #place: Place | null;
  #trial: Trial | null;
  #isLoggedIn = false;
  #isStruck = false;
  #hasFailed = false;

  constructor(
    address: string,
    addresses: Addresses,
    breaker: Pick<Breaker, 'failed'>,
    place: Place,
    trial: Trial,
  ) {
    this.#breaker = breaker;
    this.#address = address;
    this.#addresses = addresses;
    this.#place = place;
    this.#trial = trial;
  }

  loggedIn(): void {
    // A login that is answered when the connection is gone already says nothing.
    if (this.#isLoggedIn || !this.#place) return;
    this.#isLoggedIn = true;
    this.#takeTrial()?.succeeded();
    this.#addresses.loggedIn(this.#address);
  }

  failed(): void {
    if (!this.#place || this.#hasFailed) return;
    this.#hasFailed = true;
    // Its trial is spent on its login.
    if (this.#isLoggedIn) this.#breaker.failed();
    else this.#takeTrial()?.failed();
  }

  strike(): void {
    if (this.#isStruck) return;
    this.#isStruck = true;
    this.#addresses.strike(this.#address);
  }

  release(): void {
    const place = this.#place;
    if (!place) return;
    this.#place = null;
    this.#takeTrial()?.abandoned();
    this.#addresses.closed(this.#address, this.#isLoggedIn);
    // Last: the next peer may be let in by it, and must find everything else in order.
    place.release();
  }

  #takeTrial(): Trial | null {
    const trial = this.#trial;
    this.#trial = null;
    return trial;
  }
}
