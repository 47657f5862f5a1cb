/** Takes a command back in whatever status it is, as long as it was surely never written. */
import { setTimeout as delay } from 'node:timers/promises';
import { bounded } from '../../queues/bounded.ts';
import type { Outbound } from '../../queues/contract.ts';
import { isOpen, mayBeWritten, type TakeBack } from '../../queues/take-back.ts';
import type { Mark, Revocation, Routes } from '../bridge/routes-contract.ts';
import type { Withdrawals } from '../bridge/withdrawals.ts';
import { type CommandRecord, isFinal } from '../command.ts';
import { DownlinkError } from '../errors.ts';
import type { Ledger } from '../store/contract.ts';
import type { Lookup } from './lookup.ts';

/** `requested`: nobody could say yet whether it was written; it gets no further attempt. */
export type Cancelled = { kind: 'cancelled' | 'requested'; record: CommandRecord };

export type Cancel = (id: string, apiKey: string) => Promise<Cancelled>;

export type CancelDeps = {
  lookup: Lookup;
  ledger: Pick<Ledger, 'find'>;
  outbound: Pick<Outbound, 'hasten' | 'inspect'>;
  routes: Pick<Routes, 'revoke' | 'unrevoke' | 'mark'>;
  withdrawals: Pick<Withdrawals, 'withdraw'>;
  takeBack: TakeBack;
  /** Ends that stand in for the ledger's rows are still on their way into them. */
  endsTravel(): Promise<boolean>;
  /** How long a worker may take to end a command that was taken from its hands. */
  patienceMs?: number;
  storeTimeoutMs?: number;
};

const lookEveryMs = 25;
/** A trail that is still being written says within so long what became of its last attempt. */
const trailLagMs = 250;

export function createCancel(deps: CancelDeps): Cancel {
  const { lookup, ledger, outbound, routes, withdrawals, takeBack, endsTravel } = deps;
  const { patienceMs = 2_000, storeTimeoutMs = 2_000 } = deps;

  return async function cancel(id, apiKey) {
    const { record: seen } = await lookup.find(id);
    // Without the ledger the end could not be stored, and the command would come back from the dead.
    const row = (await ledger.find(id)) ?? seen;
    await refuseIfOver(row);
    const { deviceId } = row;
    // Once this is set no route lets it go: from here on only what is out already can be written.
    const revoked = await askQueue(routes.revoke(deviceId, id, { kind: 'cancelled', by: apiKey }));
    if (revoked.kind === 'written') throw alreadySent(id);
    const { mark, revocation } = revoked;
    try {
      if (mark?.gatewayId) return await callBack(row, mark.gatewayId, mark);
      return await take(row, revocation);
    } catch (error) {
      // Its end may be stored: whoever gets the job must not send it.
      if (error instanceof DownlinkError && error.details['endUnclear'] === true) {
        return { kind: 'requested', record: row };
      }
      // It has ended meanwhile, or a store went away: as if nothing had been asked.
      await bounded(routes.unrevoke(deviceId, id), storeTimeoutMs, late).catch(() => undefined);
      throw error;
    }
  };

  /** Its frame is with a gateway, which alone can tell whether it is out. */
  async function callBack(row: CommandRecord, gatewayId: string, mark: Mark): Promise<Cancelled> {
    const { id, deviceId } = row;
    const target = { gatewayId, deviceId, id, attempt: mark.attempt };
    const withdrawal = await withdrawals.withdraw(target);
    switch (withdrawal) {
      case 'withdrawn':
        // Whoever delivered it hears so too, and ends it.
        return answer(await untilFinal(row));
      case 'silent':
        return answer((await ledger.find(id).catch(() => null)) ?? row);
      case 'written':
      case 'ended':
        return restore(row);
    }
  }

  /** It came too late, and what was written keeps its further attempts. */
  async function restore(row: CommandRecord): Promise<Cancelled> {
    const { id, deviceId } = row;
    try {
      await bounded(routes.unrevoke(deviceId, id), storeTimeoutMs, late);
    } catch {
      return { kind: 'requested', record: row };
    }
    const current = await ledger.find(id).catch(() => null);
    throw current && isFinal(current.status) ? alreadyFinal(current) : alreadySent(id);
  }

  /** No frame of it is out: it waits in the queue, or a worker has it and is about to meet the revocation. */
  async function take(row: CommandRecord, revocation: Revocation): Promise<Cancelled> {
    const { id, deviceId } = row;
    let missingToo = false;
    for (let waitedMs = 0; ; waitedMs += lookEveryMs) {
      const taken = await takeBack(row, (written) => endOf(revocation, written), { missingToo });
      if (taken.kind === 'ended' || taken.kind === 'over') return answer(taken.record);
      if (waitedMs >= patienceMs) break;
      await delay(lookEveryMs);
      const current = await ledger.find(id);
      if (current && isFinal(current.status)) return answer(current);
      missingToo = taken.kind === 'missing' && (await isLost(row));
    }
    outbound.hasten(deviceId, id).catch(() => undefined);
    return { kind: 'requested', record: row };
  }

  /** Whether nothing but the ledger knows of it any more: no job, not even a finished one, and no end under way. */
  async function isLost({ id, deviceId }: CommandRecord): Promise<boolean> {
    const job = await outbound.inspect(deviceId, id);
    return job === null && !(await askQueue(endsTravel()));
  }

  /** The row once it has ended, or as it stands when it does not in time. */
  async function untilFinal(row: CommandRecord): Promise<CommandRecord> {
    for (let waitedMs = 0; ; waitedMs += lookEveryMs) {
      const current = (await ledger.find(row.id).catch(() => null)) ?? row;
      if (isFinal(current.status) || waitedMs >= patienceMs) return current;
      await delay(lookEveryMs);
    }
  }

  /** The trail of an attempt that came back unwritten may be a moment behind. */
  async function refuseIfOver(row: CommandRecord): Promise<void> {
    let current = row;
    for (let waitedMs = 0; ; waitedMs += lookEveryMs) {
      if (isFinal(current.status)) throw alreadyFinal(current);
      if (!mayBeWritten(current)) return;
      const { id, deviceId } = current;
      if (!isOpen(current) || waitedMs >= trailLagMs) throw alreadySent(id);
      // An attempt of which nobody knows yet: while it is out, its gateway can be asked.
      if ((await askQueue(routes.mark(deviceId, id)))?.gatewayId) return;
      await delay(lookEveryMs);
      current = (await ledger.find(id)) ?? current;
    }
  }

  async function askQueue<T>(asking: Promise<T>): Promise<T> {
    try {
      return await bounded(asking, storeTimeoutMs, late);
    } catch (cause) {
      throw new DownlinkError(
        'QUEUE_UNAVAILABLE',
        'the queue store is away, and only it can tell whether the command was written: try again',
        { cause },
      );
    }
  }

  function late(): Error {
    return new Error(`no answer within ${storeTimeoutMs} ms`);
  }
}

/** One that was replaced before it was cancelled ends as that. */
function endOf({ kind, by }: Revocation, written: boolean) {
  const done = kind === 'cancelled' ? `cancelled by ${by}` : `replaced by command ${by}`;
  const code = kind.toUpperCase();
  return written
    ? { status: 'unknown' as const, reason: `${done}; it may have been written before`, code }
    : { status: kind, reason: `${done} before it was written`, code };
}

/** An answer by the row: an end of another kind was there first. */
function answer(record: CommandRecord): Cancelled {
  if (!isFinal(record.status)) return { kind: 'requested', record };
  if (record.status === 'cancelled') return { kind: 'cancelled', record };
  // Its gateway was silent: it may be out, and only this is known to have come of the wish.
  if (record.code === 'CANCELLED') return { kind: 'requested', record };
  throw alreadyFinal(record);
}

function alreadySent(id: string): DownlinkError {
  return new DownlinkError(
    'ALREADY_SENT',
    `command ${id} is on its way to the device and can no longer be taken back: wait for its end`,
    { details: { id } },
  );
}

function alreadyFinal({ id, status }: CommandRecord): DownlinkError {
  return new DownlinkError(
    'ALREADY_FINAL',
    `command ${id} has already ended as ${status}: there is nothing to cancel`,
    { details: { id } },
  );
}
