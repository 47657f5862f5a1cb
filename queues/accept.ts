/** How a wish becomes a durable command. The steps are the durability promise; nothing else may enqueue. */
import { acceptedState, type Command, type CommandRecord, isFinal } from '../src/command.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Protocol } from '../src/protocols/protocol.ts';
import type { Ledger } from '../src/store/contract.ts';
import { hashOfBody } from './accept-body.ts';
import { createCheck, type DeviceLookup, type Draft, type PresenceLookup } from './accept-check.ts';
import { atMost, bounded } from './bounded.ts';
import type { Outbound } from './contract.ts';

/** Where an accepted command is stored by the time its caller hears of it. */
export type Durability = 'both' | 'queue' | 'ledger';

export type AcceptRequest = {
  body: unknown;
  /** Name of the API key that asks. */
  apiKey: string;
  idempotencyKey?: string | null;
  /** Id of the API process that waits for the end. */
  waiter?: string | null;
};

export type Accepted = {
  record: CommandRecord;
  durability: Durability;
  /** The Idempotency-Key was used before with this body: this is that command. */
  replayed: boolean;
};

export type Accept = (request: AcceptRequest) => Promise<Accepted>;

export type AcceptDeps = {
  ledger: Pick<Ledger, 'write' | 'claim' | 'markLedgerOnly'>;
  outbound: Pick<Outbound, 'enqueue' | 'find'>;
  devices: DeviceLookup;
  presence: PresenceLookup;
  protocols: readonly Protocol[];
  log: Log;
  now?: () => number;
  /** Ids in the order of acceptance (UUIDv7). */
  newId: () => string;
  /** How long the slower store is waited for once the quicker one has the command. */
  graceMs?: number;
  /** How long the quicker store may take. */
  storeTimeoutMs?: number;
  lookupTimeoutMs?: number;
};

/** A claim under an Idempotency-Key holds so long. */
const CLAIM_MS = 24 * 3_600_000;
const idempotencyKeyPattern = /^[\x20-\x7e]{1,128}$/;

export function createAccept(deps: AcceptDeps): Accept {
  const { ledger, outbound, devices, presence, protocols, log, newId } = deps;
  const { now = Date.now, graceMs = 250, storeTimeoutMs = 5_000, lookupTimeoutMs = 2_000 } = deps;
  const check = createCheck({ devices, presence, protocols, now, lookupTimeoutMs });

  return async function accept(request) {
    const key = readIdempotencyKey(request.idempotencyKey ?? null);
    const draft = await check(request.body);
    const command = identify(join(draft), request);
    const record = { ...command, ...acceptedState(command, command.acceptedAt) };
    if (key === null) return store(command, record, () => ledger.write(record));
    const earlier = await claim(record, key, request.body);
    return earlier ?? store(command, record, () => Promise.resolve());
  };

  /**
   * Names the line the command will stand in. It comes before the claim, so that a claimed row carries
   * the name; a place in the line is given only to a command whose claim was granted.
   */
  function join({ spec, ownOrderKey, ...draft }: Draft) {
    return { ...draft, orderKey: ownOrderKey ?? spec.orderKey(draft.params) };
  }

  function identify(
    draft: Omit<Command, 'id' | 'apiKey' | 'waiter'>,
    { apiKey, waiter = null }: AcceptRequest,
  ): Command {
    return { id: newId(), ...draft, apiKey, waiter };
  }

  /** The insert itself is the claim. Returns the command that holds it, if that is an earlier one. */
  async function claim(
    record: CommandRecord,
    key: string,
    body: unknown,
  ): Promise<Accepted | null> {
    const { apiKey, acceptedAt } = record;
    const bodyHash = hashOfBody(body);
    const claimed = await bounded(
      ledger.claim(record, { apiKey, key, bodyHash, expiresAt: acceptedAt + CLAIM_MS }),
      storeTimeoutMs,
      () => new Error(`no answer within ${storeTimeoutMs} ms`),
    ).catch((cause: unknown) => {
      if (cause instanceof DownlinkError && cause.code !== 'LEDGER_UNAVAILABLE') throw cause;
      throw new DownlinkError(
        'LEDGER_UNAVAILABLE',
        'the ledger is away, and only it can honour an Idempotency-Key: try again with the same key, or without one',
        { cause },
      );
    });
    if (claimed.claimed) return null;
    if (!claimed.same) {
      throw new DownlinkError(
        'IDEMPOTENCY_CONFLICT',
        `the Idempotency-Key was used with another body, for command ${claimed.id}: use a new key`,
        { details: { id: claimed.id } },
      );
    }
    const { deviceId, id, status } = claimed.record;
    const held = await outbound.find(deviceId, id).catch(() => null);
    // Whoever claimed it may have died before it reached the queue.
    if (!held && !isFinal(status)) await ledger.markLedgerOnly(id).catch(() => undefined);
    return { record: claimed.record, durability: held ? 'both' : 'ledger', replayed: true };
  }

  /** Ledger and queue at once; the first to have it decides, the other gets a moment more. */
  async function store(
    command: Command,
    record: CommandRecord,
    writeRow: () => Promise<unknown>,
  ): Promise<Accepted> {
    const stored = { ledger: false, queue: false };
    const row = writeRow().then(() => {
      stored.ledger = true;
    });
    const job = outbound.enqueue(command).then(() => {
      stored.queue = true;
    });
    await bounded(
      Promise.any([row, job]),
      storeTimeoutMs,
      () => new Error(`no store answered within ${storeTimeoutMs} ms`),
    ).catch((cause: unknown) => {
      throw new DownlinkError(
        'STORE_UNAVAILABLE',
        `neither store confirmed command ${record.id}: look for it before you send it again`,
        { cause, details: { id: record.id } },
      );
    });
    if (!(stored.ledger && stored.queue)) await atMost(Promise.allSettled([row, job]), graceMs);
    // Read once: what comes later is not what the caller is told.
    const { ledger: inLedger, queue: inQueue } = stored;
    if (!inQueue) leaveToReaper(command.id, job);
    if (!inLedger) {
      row.catch((error: unknown) => {
        log.warn({ error, commandId: command.id }, 'ledger did not take a command');
      });
    }
    return {
      record,
      durability: inLedger && inQueue ? 'both' : inQueue ? 'queue' : 'ledger',
      replayed: false,
    };
  }

  function leaveToReaper(commandId: string, job: Promise<void>): void {
    job.catch((error: unknown) => {
      log.warn({ error, commandId }, 'queue store did not take a command');
    });
    ledger.markLedgerOnly(commandId).catch((error: unknown) => {
      log.error({ error, commandId }, 'command could not be marked for the reaper');
    });
  }
}

function readIdempotencyKey(key: string | null): string | null {
  if (key === null || idempotencyKeyPattern.test(key)) return key;
  throw new DownlinkError(
    'BAD_REQUEST',
    'Idempotency-Key must be 1 to 128 printable ASCII characters',
  );
}
