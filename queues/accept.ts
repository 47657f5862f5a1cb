/** How a wish becomes a durable command. The steps are the durability promise; nothing else may enqueue. */
import type { Routes } from '../src/bridge/routes-contract.ts';
import type { Withdrawals } from '../src/bridge/withdrawals.ts';
import { acceptedState, type Command, type CommandRecord } from '../src/command.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { CommandSpec, Protocol } from '../src/protocols/protocol.ts';
import type { Ledger } from '../src/store/contract.ts';
import { createCheck, type DeviceLookup, type PresenceLookup } from './accept-check.ts';
import { createClaims, readIdempotencyKey } from './accept-claim.ts';
import type {
  Accept,
  Accepted,
  AcceptMany,
  AcceptRequest,
  BatchVerdict,
} from './accept-contract.ts';
import { createLining, type Place, reasonOfBlock } from './accept-line.ts';
import { createKeep } from './accept-store.ts';
import type { Enqueued, Outbound } from './contract.ts';
import { createJoin } from './join.ts';
import type { Caps } from './line.ts';
import { createSupersede } from './supersede.ts';

export type AcceptDeps = {
  ledger: Pick<Ledger, 'write' | 'find' | 'claim' | 'claimMany' | 'unclaim' | 'markLedgerOnly'>;
  outbound: Pick<Outbound, 'enqueue' | 'enqueueMany' | 'find' | 'wake' | 'hasten'>;
  routes: Pick<Routes, 'join' | 'undoJoin' | 'cameMeanwhile' | 'mark'>;
  withdrawals: Pick<Withdrawals, 'withdraw'>;
  caps: Caps;
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
  /** How long its place in the line may take. */
  joinTimeoutMs?: number;
  lookupTimeoutMs?: number;
};

/** A sound command on its way through the steps. */
type Candidate = {
  command: Command;
  spec: CommandSpec;
  record: CommandRecord;
  key: string | null;
  claimAs: string;
  body: unknown;
};

/** The way in, for one command and for many at once. */
export function createAccept(deps: AcceptDeps): Accept & { many: AcceptMany } {
  const { ledger, outbound, routes, withdrawals, caps, log, newId, now = Date.now } = deps;
  const { graceMs = 250, storeTimeoutMs = 5_000, lookupTimeoutMs = 2_000 } = deps;
  const { devices, presence, protocols, joinTimeoutMs = 1_000 } = deps;
  const check = createCheck({ devices, presence, protocols, now, lookupTimeoutMs });
  const claims = createClaims({ ledger, outbound, graceMs, timeoutMs: storeTimeoutMs });
  const joining = createJoin({ routes, ledger });
  const lining = createLining({
    join: joining,
    routes,
    outbound,
    caps,
    log,
    timeoutMs: joinTimeoutMs,
  });
  const supersede = createSupersede({ routes, withdrawals, outbound, log });
  const keep = createKeep({ ledger, log, graceMs, timeoutMs: storeTimeoutMs });

  async function accept(request: AcceptRequest): Promise<Accepted> {
    const { key, draft } = await examine(request);
    const candidate = identify(request, key, draft);
    if (key !== null) {
      const earlier = await claims.claim({ ...candidate, key });
      if (earlier) return earlier;
    }
    const place = await join(candidate);
    const queued = outbound.enqueue(entryOf(candidate, place));
    queued.catch((error: unknown) => {
      log.warn({ error, commandId: candidate.command.id }, 'queue store did not take a command');
    });
    const accepted = await store(candidate, place, queued);
    supersede.hasten(candidate.command.deviceId, place.superseded);
    return accepted;
  }

  async function examine({ idempotencyKey = null, body }: AcceptRequest) {
    return { key: readIdempotencyKey(idempotencyKey), draft: await check(body) };
  }

  function identify(
    { apiKey, claimAs = apiKey, body, waiter = null, replayOf = null }: AcceptRequest,
    key: string | null,
    { spec, ...draft }: Awaited<ReturnType<typeof check>>,
  ): Candidate {
    const command = { id: newId(), ...draft, apiKey, waiter, replayOf };
    const record = { ...command, ...acceptedState(command, command.acceptedAt) };
    return { command, spec, record, key, claimAs, body };
  }

  /** A place in the line is given only to a command whose claim was granted; one that is refused gives it back. */
  async function join({ command, spec, key }: Candidate): Promise<Place> {
    try {
      return await lining.join(command, spec);
    } catch (refusal) {
      if (key !== null) await claims.giveBack(command.id);
      throw refusal;
    }
  }

  function entryOf({ command }: Candidate, { blockedBy }: Place): Enqueued {
    return blockedBy === null ? { command } : { command, blocked: true };
  }

  /** By the time it is accepted, nothing that it replaced can still be written. */
  async function store(
    { command, record, key }: Candidate,
    place: Place,
    queued: Promise<void>,
  ): Promise<Accepted> {
    const claimed = key !== null;
    const standing = place.blockedBy === null ? record : parked(record, place.blockedBy, claimed);
    const taken = place.blockedBy === null ? queued : queued.then(() => look(command));
    const withdrawn = supersede.withdraw(command.deviceId, place.superseded);
    try {
      const accepted = await keep({ command, record: standing, claimed, queued: taken });
      await withdrawn;
      return accepted;
    } catch (error) {
      await lining.leave(command, place);
      throw error;
    }
  }

  /** Not waited for: its place in the queue does not depend on it. */
  function look(command: Command): void {
    void lining.lookAgain(command);
  }

  async function acceptMany(requests: readonly AcceptRequest[]): Promise<BatchVerdict[]> {
    const verdicts: BatchVerdict[] = [];
    const refuse = (index: number, reason: unknown) => {
      verdicts[index] = { error: asRefusal(reason) };
    };
    const examined = await Promise.allSettled(requests.map(examine));
    let candidates: { index: number; candidate: Candidate }[] = [];
    for (const [index, request] of requests.entries()) {
      const found = examined[index]!;
      if (found.status === 'rejected') refuse(index, found.reason);
      else {
        const { key, draft } = found.value;
        candidates.push({ index, candidate: identify(request, key, draft) });
      }
    }

    const keyed = candidates.flatMap(({ index, candidate }) =>
      candidate.key === null ? [] : [{ index, ...candidate, key: candidate.key }],
    );
    const claimed = await claims
      .claimMany(keyed)
      .catch((reason: unknown) =>
        keyed.map(() => ({ kind: 'refused' as const, error: asRefusal(reason) })),
      );
    /** Indices of items whose key an earlier item of this call holds, with that command's id. */
    const twins = new Map<number, string>();
    for (const [i, { index }] of keyed.entries()) {
      const verdict = claimed[i]!;
      if (verdict.kind === 'refused') refuse(index, verdict.error);
      if (verdict.kind === 'earlier') verdicts[index] = { accepted: verdict.accepted };
      if (verdict.kind === 'twin') twins.set(index, verdict.id);
    }
    candidates = candidates.filter(({ index }) => !verdicts[index] && !twins.has(index));

    // All in one turn, which keeps their order.
    const places = await Promise.allSettled(candidates.map(({ candidate }) => join(candidate)));
    const placed: { index: number; candidate: Candidate; place: Place }[] = [];
    for (const [i, { index, candidate }] of candidates.entries()) {
      const found = places[i]!;
      if (found.status === 'rejected') refuse(index, found.reason);
      else placed.push({ index, candidate, place: found.value });
    }

    const queued = enqueueAll(placed.map(({ candidate, place }) => entryOf(candidate, place)));
    const kept = await Promise.allSettled(
      placed.map(({ candidate, place }) => store(candidate, place, queued)),
    );
    for (const [i, { index, candidate, place }] of placed.entries()) {
      const end = kept[i]!;
      if (end.status === 'rejected') refuse(index, end.reason);
      else verdicts[index] = { accepted: end.value };
      // Only now: it may have replaced another of this call, whose job is there since a moment.
      supersede.hasten(candidate.command.deviceId, place.superseded);
    }
    copyTwins(verdicts, twins, candidates);
    return verdicts;
  }

  function enqueueAll(entries: readonly Enqueued[]): Promise<void> {
    if (entries.length === 0) return Promise.resolve();
    const queued = outbound.enqueueMany(entries);
    queued.catch((error: unknown) => {
      log.warn({ error, commands: entries.length }, 'queue store did not take commands');
    });
    return queued;
  }

  function asRefusal(reason: unknown): DownlinkError {
    if (reason instanceof DownlinkError) return reason;
    log.error({ error: reason }, 'command of a batch failed');
    return new DownlinkError('INTERNAL', 'unexpected error', { cause: reason });
  }

  return Object.assign(accept, { many: acceptMany });
}

/** It stands behind another one. A claimed row is there already: the change needs a newer version. */
function parked(record: CommandRecord, blockedBy: string, claimed: boolean): CommandRecord {
  const version = claimed ? record.version + 1 : record.version;
  return { ...record, status: 'parked', reason: reasonOfBlock(blockedBy), version };
}

/** A key that was given twice in one call has one fate. */
function copyTwins(
  verdicts: BatchVerdict[],
  twins: ReadonlyMap<number, string>,
  candidates: readonly { index: number; candidate: Candidate }[],
): void {
  const indexOf = new Map(candidates.map(({ index, candidate }) => [candidate.command.id, index]));
  for (const [index, id] of twins) {
    const first = verdicts[indexOf.get(id) ?? -1];
    if (first === undefined) {
      const error = new DownlinkError('INTERNAL', `command ${id} of this batch has no verdict`);
      verdicts[index] = { error };
    } else {
      verdicts[index] =
        'error' in first ? first : { accepted: { ...first.accepted, replayed: true } };
    }
  }
}
