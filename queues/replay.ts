/**
 * Asks again for what an ended command asked for. The new command goes through accept, so through the same guards,
 * and is linked to the old one, which is no dead letter any more.
 */
import { type CommandRecord, isFinal } from '../src/command.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import { specOf } from '../src/protocols/index.ts';
import type { CommandSpec, Protocol } from '../src/protocols/protocol.ts';
import type { Ledger } from '../src/store/contract.ts';
import type { AcceptBody } from './accept-body.ts';
import type { Accept, Accepted, AcceptMany, AcceptRequest } from './accept-contract.ts';
import type { Outbound } from './contract.ts';

export type ReplayRequest = {
  /** The command as the ledger has it now. */
  original: CommandRecord;
  /** Name of the API key that asks. */
  apiKey: string;
  idempotencyKey: string | null;
  /** The caller knows that it may have arrived, and wants it again. */
  acceptRisk: boolean;
};

export type ReplayVerdict = { accepted: Accepted } | { error: DownlinkError };

export type Replay = {
  /** Rejects with NOT_FINAL, ALREADY_SUCCEEDED, AMBIGUOUS, or with whatever accept says. */
  replay(request: ReplayRequest): Promise<Accepted>;
  /** One verdict each, in order. They join their lines in that order too. */
  replayMany(requests: readonly ReplayRequest[]): Promise<ReplayVerdict[]>;
  /** Takes replayed commands off the list of dead ones. Never rejects. */
  dismiss(originals: readonly { id: string; deviceId: string }[]): Promise<void>;
};

export type ReplayDeps = {
  accept: Accept & { many: AcceptMany };
  ledger: Pick<Ledger, 'purgeDead'>;
  outbound: Pick<Outbound, 'forget'>;
  protocols: readonly Protocol[];
  log: Log;
  now?: () => number;
};

export function createReplay(deps: ReplayDeps): Replay {
  const { accept, ledger, outbound, protocols, log, now = Date.now } = deps;

  async function replay(request: ReplayRequest): Promise<Accepted> {
    return assertLinked(await accept(toAccept(request)), request);
  }

  async function replayMany(requests: readonly ReplayRequest[]): Promise<ReplayVerdict[]> {
    const wishes = requests.map((request) => verdictOf(() => toAccept(request)));
    const accepts = wishes.flatMap((wish) => ('value' in wish ? [wish.value] : []));
    const verdicts = (await accept.many(accepts)).values();
    return requests.map((request, i): ReplayVerdict => {
      const wish = wishes[i]!;
      if ('error' in wish) return wish;
      const verdict = verdicts.next().value!;
      if ('error' in verdict) return verdict;
      const linked = verdictOf(() => assertLinked(verdict.accepted, request));
      return 'error' in linked ? linked : { accepted: linked.value };
    });
  }

  /** Throws unless the original may be sent once more. */
  function toAccept({
    original,
    apiKey,
    idempotencyKey,
    acceptRisk,
  }: ReplayRequest): AcceptRequest {
    const spec = specOf(original, protocols);
    refuseReplay(original, spec, acceptRisk);
    return { body: bodyOf(original, spec), apiKey, idempotencyKey, replayOf: original.id };
  }

  /** An equal body under the same key is another command's, unless it repeats this very one. */
  function assertLinked(accepted: Accepted, { original }: ReplayRequest): Accepted {
    const { id, replayOf } = accepted.record;
    if (replayOf === original.id) return accepted;
    throw new DownlinkError(
      'IDEMPOTENCY_CONFLICT',
      `the Idempotency-Key was used for command ${id}, which does not repeat this one: use a new key`,
      { details: { id } },
    );
  }

  async function dismiss(originals: readonly { id: string; deviceId: string }[]): Promise<void> {
    if (originals.length === 0) return;
    const ids = originals.map(({ id }) => id);
    const steps = await Promise.allSettled([
      ledger.purgeDead({ ids, since: 0, limit: ids.length, at: now() }),
      ...originals.map(({ deviceId, id }) => outbound.forget(deviceId, id)),
    ]);
    const failed = steps.find((step) => step.status === 'rejected');
    if (failed) log.warn({ error: failed.reason }, 'replayed commands stay among the dead');
  }

  return { replay, replayMany, dismiss };
}

/** What a step that may throw came to. */
function verdictOf<T>(step: () => T): { value: T } | { error: DownlinkError } {
  try {
    return { value: step() };
  } catch (error) {
    if (error instanceof DownlinkError) return { error };
    throw error;
  }
}

const succeededAs: Partial<Record<CommandRecord['status'], string>> = {
  succeeded: 'has succeeded',
  unacknowledged: 'was written, and its protocol defines no answer to it',
};

function refuseReplay(
  { id, command, status, onAmbiguous }: CommandRecord,
  spec: CommandSpec | undefined,
  acceptRisk: boolean,
): void {
  const details = { id };
  if (!isFinal(status)) {
    throw new DownlinkError(
      'NOT_FINAL',
      `command ${id} is ${status} and may still succeed: wait for its end, or cancel it first`,
      { details },
    );
  }
  const success = succeededAs[status];
  if (success) {
    throw new DownlinkError(
      'ALREADY_SUCCEEDED',
      `command ${id} ${success}: to have it once more, send it with POST /v1/commands`,
      { details },
    );
  }
  if (status !== 'unknown' || acceptRisk) return;
  if (spec?.repeatable === true || onAmbiguous === 'resend') return;
  const ask = spec?.probe?.kind === 'ask' ? `send ${spec.probe.command} first` : 'look at it first';
  throw new DownlinkError(
    'AMBIGUOUS',
    `command ${id} may have reached the device, and ${command} once more could repeat its effect: ${ask}; if it took no effect, use POST /v1/commands/${id}/retry with {"acceptRisk": true}`,
    { details },
  );
}

/** What its caller would send today to ask for the same. Times begin anew. */
function bodyOf(original: CommandRecord, spec: CommandSpec | undefined): AcceptBody {
  const { command, params, orderKey, onAmbiguous } = original;
  const ownKey = orderKey !== null && spec?.orderKey(params) !== orderKey;
  // Its table may have changed since: a probe that it no longer offers cannot be asked for.
  const offered = onAmbiguous !== 'probe' || spec?.probe !== undefined;
  return {
    deviceId: original.deviceId,
    command,
    params,
    priority: original.priority,
    ttlMs: original.deadline - original.notBefore,
    ackTimeoutMs: original.ackTimeoutMs,
    attempts: original.attempts,
    backoffMs: original.backoffMs,
    labels: original.labels,
    ...(offered && { onAmbiguous }),
    ...(ownKey && { orderKey }),
  };
}
