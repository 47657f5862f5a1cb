/** What goes into accept and what comes out of it. */
import type { CommandRecord } from '../src/command.ts';
import type { DownlinkError } from '../src/errors.ts';

/** Where an accepted command is stored by the time its caller hears of it. */
export type Durability = 'both' | 'queue' | 'ledger';

export type AcceptRequest = {
  body: unknown;
  /** Name of the API key that asks. */
  apiKey: string;
  idempotencyKey?: string | null;
  /** Under whose name the Idempotency-Key is claimed; the API key's without it. */
  claimAs?: string;
  /** Id of the API process that waits for the end. */
  waiter?: string | null;
  /** The command that this one repeats. */
  replayOf?: string | null;
};

export type Accepted = {
  record: CommandRecord;
  durability: Durability;
  /** The Idempotency-Key was used before with this body: this is that command. */
  replayed: boolean;
};

export type Accept = (request: AcceptRequest) => Promise<Accepted>;

export type BatchVerdict = { accepted: Accepted } | { error: DownlinkError };

/** One verdict each, in order. One that is refused concerns no other. */
export type AcceptMany = (requests: readonly AcceptRequest[]) => Promise<BatchVerdict[]>;
