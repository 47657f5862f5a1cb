/** Takes a command back, as long as it was surely never written. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Outbound, Taken } from '../../queues/contract.ts';
import { type Attempt, assertTransition, type CommandRecord, isFinal } from '../command.ts';
import { DownlinkError } from '../errors.ts';
import { refusedReasons, unwrittenReasons } from '../outcome.ts';
import type { Ledger } from '../store/contract.ts';
import { asAccepted, type Lookup } from './lookup.ts';

export type Cancel = (id: string, apiKey: string) => Promise<CommandRecord>;

export type CancelDeps = {
  lookup: Lookup;
  ledger: Pick<Ledger, 'find' | 'write' | 'markLedgerOnly'>;
  outbound: Pick<Outbound, 'find' | 'take' | 'enqueue'>;
  now(): number;
};

/** A worker that finds the device absent lets go of the command again within so long. */
const passingMs = 500;
const lookEveryMs = 25;

export function createCancel({ lookup, ledger, outbound, now }: CancelDeps): Cancel {
  return async function cancel(id, apiKey) {
    const { record: seen } = await lookup.find(id);
    refuseIfOver(seen);
    // Without the ledger the end could not be stored, and the command would come back from the dead.
    await ledger.find(id);
    const held = await outbound.find(seen.deviceId, id);
    const taken = await take(seen).catch(leaveToReaper(id));
    if (taken === 'active') throw alreadySent(id);
    const row = await ledger.find(id);
    const current = row ?? (held ? asAccepted(held.command) : seen);
    // What the queue has let go of is over, or was never there: then the ledger alone knows.
    if (taken === 'missing') refuseIfOver(current);
    if (isFinal(current.status)) throw alreadyFinal(current);
    return settle(current, Math.max(held?.nextVersion ?? 1, current.version + 1), apiKey);
  };

  /** A call that failed may have removed the job all the same: the reaper puts back what is gone. */
  function leaveToReaper(id: string) {
    return async (error: unknown): Promise<never> => {
      await ledger.markLedgerOnly(id).catch(() => undefined);
      throw error;
    };
  }

  /** In a worker's hands it is on its way, or about to be parked: the row soon tells which. */
  async function take({ id, deviceId }: CommandRecord): Promise<Taken> {
    for (let waitedMs = 0; ; waitedMs += lookEveryMs) {
      const taken = await outbound.take(deviceId, id);
      if (taken !== 'active' || waitedMs >= passingMs) return taken;
      const row = await ledger.find(id);
      if (row) refuseIfOver(row);
      await delay(lookEveryMs);
    }
  }

  async function settle(record: CommandRecord, version: number, apiKey: string) {
    // Another attempt may have begun since we looked.
    const status = mayBeWritten(record) ? 'unknown' : 'cancelled';
    assertTransition(record.status, status);
    const ended: CommandRecord = {
      ...record,
      status,
      version,
      reason:
        status === 'cancelled'
          ? `cancelled by ${apiKey} before it was written`
          : `cancelled by ${apiKey}; it may have been written before`,
      settledAt: now(),
    };
    const written = await ledger.write(ended).catch(async (error: unknown) => {
      // It must not vanish from the queue without an end in the ledger.
      const base = { attempt: lastAttempt(record), version };
      await outbound.enqueue(record, base).catch(leaveToReaper(record.id));
      throw error;
    });
    if (written.applied) return ended;
    throw alreadyFinal((await ledger.find(record.id)) ?? ended);
  }
}

function refuseIfOver(record: CommandRecord): void {
  if (isFinal(record.status)) throw alreadyFinal(record);
  if (mayBeWritten(record)) throw alreadySent(record.id);
}

/** Outcomes, as the trail names them, of attempts whose bytes surely stayed here. */
const neverWritten: ReadonlySet<string> = new Set([...unwrittenReasons, ...refusedReasons]);

/** A published delivery without a clear "never written" counts as written. */
function mayBeWritten(record: CommandRecord): boolean {
  const written = ({ writtenAt, outcome }: Attempt) =>
    writtenAt !== null || outcome === null || !neverWritten.has(outcome);
  return record.status === 'sent' || Object.values(record.trail).some(written);
}

function lastAttempt(record: CommandRecord): number {
  return Math.max(0, ...Object.values(record.trail).map(({ attempt }) => attempt));
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
