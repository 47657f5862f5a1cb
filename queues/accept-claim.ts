/** Idempotency keys at accept: the ledger's own insert is the claim, and nothing else decides. */
import { setTimeout as delay } from 'node:timers/promises';
import { type CommandRecord, isFinal } from '../src/command.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Claim, Idempotency, Ledger } from '../src/store/contract.ts';
import { hashOfBody } from './accept-body.ts';
import type { Accepted } from './accept-contract.ts';
import { bounded } from './bounded.ts';
import type { Outbound } from './contract.ts';

export type ClaimsDeps = {
  ledger: Pick<Ledger, 'claim' | 'claimMany' | 'unclaim' | 'find' | 'markLedgerOnly'>;
  outbound: Pick<Outbound, 'find'>;
  /** How long a command that holds a key may be on its way into the queue. */
  graceMs: number;
  timeoutMs: number;
};

export type ClaimRequest = { record: CommandRecord; key: string; claimAs: string; body: unknown };

export type ClaimVerdict =
  | { kind: 'granted' }
  /** The key was used before with this body. */
  | { kind: 'earlier'; accepted: Accepted }
  /** The key was used before in this very call, for the command of this id. */
  | { kind: 'twin'; id: string }
  | { kind: 'refused'; error: DownlinkError };

export type Claims = {
  /** Null when the claim was granted; else the command that holds the key. */
  claim(request: ClaimRequest): Promise<Accepted | null>;
  /** One statement for all; one verdict each, in order. */
  claimMany(requests: readonly ClaimRequest[]): Promise<ClaimVerdict[]>;
  /** Gives a granted claim back. Rejects when its fate is unclear. */
  giveBack(id: string): Promise<void>;
};

/** A claim under an Idempotency-Key holds so long. */
const CLAIM_MS = 24 * 3_600_000;
const lookEveryMs = 25;
/** A key that is claimed and given back over and over is somebody else's trouble. */
const maxTries = 3;
const idempotencyKeyPattern = /^[\x20-\x7e]{1,128}$/;

/** The key as it was given; BAD_REQUEST when it can be none. */
export function readIdempotencyKey(key: string | null): string | null {
  if (key === null || idempotencyKeyPattern.test(key)) return key;
  throw new DownlinkError(
    'BAD_REQUEST',
    'Idempotency-Key must be 1 to 128 printable ASCII characters',
  );
}

export function createClaims({ ledger, outbound, graceMs, timeoutMs }: ClaimsDeps): Claims {
  const late = () => new Error(`no answer within ${timeoutMs} ms`);

  async function claim(request: ClaimRequest): Promise<Accepted | null> {
    const { record } = request;
    for (let tries = 1; ; tries += 1) {
      const claimed = await ask(ledger.claim(record, idempotencyOf(request)));
      if (claimed.claimed) return null;
      if (!claimed.same) throw usedOtherwise(claimed.id);
      const earlier = await replayed(claimed.record);
      if (earlier) return earlier;
      if (tries >= maxTries) throw unclear(claimed.record.id);
    }
  }

  async function verdictOn(
    request: ClaimRequest,
    claimed: Claim,
    ids: ReadonlySet<string>,
  ): Promise<ClaimVerdict> {
    if (claimed.claimed) return { kind: 'granted' };
    const id = claimed.same ? claimed.record.id : claimed.id;
    if (!claimed.same) return { kind: 'refused', error: usedOtherwise(id) };
    if (ids.has(id)) return { kind: 'twin', id };
    const accepted = (await replayed(claimed.record)) ?? (await claim(request));
    return accepted ? { kind: 'earlier', accepted } : { kind: 'granted' };
  }

  async function ask<T>(asking: Promise<T>): Promise<T> {
    try {
      return await bounded(asking, timeoutMs, late);
    } catch (cause) {
      if (cause instanceof DownlinkError && !isOutage(cause)) throw cause;
      throw new DownlinkError(
        'LEDGER_UNAVAILABLE',
        'the ledger is away, and only it can honour an Idempotency-Key: try again with the same key, or without one',
        { cause },
      );
    }
  }

  /**
   * The command that holds the key. Its first caller may be about to enqueue it, or to give it back: null when it
   * was given back. One who claimed it and died before the queue had it left it to the reaper.
   */
  async function replayed(claimed: CommandRecord): Promise<Accepted | null> {
    let record = claimed;
    for (let waitedMs = 0; ; waitedMs += lookEveryMs) {
      const { deviceId, id } = record;
      let away = false;
      const held = await outbound.find(deviceId, id).catch(() => {
        away = true;
        return null;
      });
      if (held) return { record, durability: 'both', replayed: true };
      if (isFinal(record.status)) return { record, durability: 'ledger', replayed: true };
      if (away || waitedMs >= graceMs) {
        // From here on it is promised: its first caller can no longer give it back.
        await ask(ledger.markLedgerOnly(id));
        const row = await ask(ledger.find(id));
        if (!row) return null;
        return { record: row, durability: 'ledger', replayed: true };
      }
      await delay(lookEveryMs);
      const row = await ask(ledger.find(id));
      if (!row) return null;
      record = row;
    }
  }

  return {
    claim,
    async claimMany(requests) {
      if (requests.length === 0) return [];
      const claims = requests.map((request) => ({
        record: request.record,
        idempotency: idempotencyOf(request),
      }));
      const ids = new Set(requests.map(({ record }) => record.id));
      const claimed = await ask(ledger.claimMany(claims)).catch((error: unknown) => {
        if (isOutage(error)) throw error;
        // One that can never be stored must not concern the others.
        return claims.map(({ record, idempotency }) => ask(ledger.claim(record, idempotency)));
      });
      return Promise.all(
        requests.map(async (request, i): Promise<ClaimVerdict> => {
          try {
            return await verdictOn(request, await claimed[i]!, ids);
          } catch (error) {
            if (error instanceof DownlinkError) return { kind: 'refused', error };
            throw error;
          }
        }),
      );
    },
    async giveBack(id) {
      const given = await bounded(ledger.unclaim(id), timeoutMs, late).catch(() => false);
      if (given) return;
      // It stands in the ledger as accepted: better it comes to an end soon than in ten minutes.
      await ledger.markLedgerOnly(id).catch(() => undefined);
      throw unclear(id);
    },
  };
}

function isOutage(error: unknown): boolean {
  return error instanceof DownlinkError && error.code === 'LEDGER_UNAVAILABLE';
}

function idempotencyOf({ record, key, claimAs, body }: ClaimRequest): Idempotency {
  const expiresAt = record.acceptedAt + CLAIM_MS;
  return { apiKey: claimAs, key, bodyHash: hashOfBody(body), expiresAt };
}

function usedOtherwise(id: string): DownlinkError {
  return new DownlinkError(
    'IDEMPOTENCY_CONFLICT',
    `the Idempotency-Key was used with another body, for command ${id}: use a new key`,
    { details: { id } },
  );
}

function unclear(id: string): DownlinkError {
  return new DownlinkError(
    'LEDGER_UNAVAILABLE',
    `command ${id} was refused, but its Idempotency-Key could not be given back: try again with the same key`,
    { details: { id } },
  );
}
