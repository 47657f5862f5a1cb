/** The last step of accept: ledger and queue at once, and the caller hears what is stored by then. */
import type { Command, CommandRecord } from '../src/command.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Ledger } from '../src/store/contract.ts';
import type { Accepted } from './accept-contract.ts';
import { atMost, bounded } from './bounded.ts';

export type KeepRequest = {
  command: Command;
  record: CommandRecord;
  /** The claim has stored the row. */
  claimed: boolean;
  /** That the queue has it. */
  queued: Promise<void>;
};

export type Keep = (request: KeepRequest) => Promise<Accepted>;

export type KeepDeps = {
  ledger: Pick<Ledger, 'write' | 'markLedgerOnly'>;
  log: Log;
  graceMs: number;
  timeoutMs: number;
};

/** The first store to have it decides, the other gets a moment more. Rejects with STORE_UNAVAILABLE. */
export function createKeep({ ledger, log, graceMs, timeoutMs }: KeepDeps): Keep {
  return async function keep({ command, record, claimed, queued }) {
    const stored = { ledger: claimed, queue: false };
    const row = writeRow(record, claimed).then(() => {
      stored.ledger = true;
    });
    const job = queued.then(() => {
      stored.queue = true;
    });
    await bounded(
      Promise.any([claimed ? Promise.resolve() : row, job]),
      timeoutMs,
      () => new Error(`no store answered within ${timeoutMs} ms`),
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
    if (!inQueue) leaveToReaper(command.id);
    if (!inLedger) {
      row.catch((error: unknown) => {
        log.warn({ error, commandId: command.id }, 'ledger did not take a command');
      });
    }
    const durability = inLedger && inQueue ? 'both' : inQueue ? 'queue' : 'ledger';
    return { record, durability, replayed: false };
  };

  function writeRow(record: CommandRecord, claimed: boolean): Promise<unknown> {
    if (!claimed) return ledger.write(record);
    // All that can be news is that it waits; a worker tells it again.
    if (record.status === 'parked') return ledger.write(record).catch(() => undefined);
    return Promise.resolve();
  }

  function leaveToReaper(commandId: string): void {
    ledger.markLedgerOnly(commandId).catch((error: unknown) => {
      log.error({ error, commandId }, 'command could not be marked for the reaper');
    });
  }
}
