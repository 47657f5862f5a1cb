/** Carries settlements from the stream that stood in for the ledger into the ledger. */
import type { StreamEntry } from '../src/bridge/stream-reader.ts';
import type { CommandRecord } from '../src/command.ts';
import { DownlinkError, messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Ledger } from '../src/store/contract.ts';

export type SettlementsDeps = { ledger: Pick<Ledger, 'write'>; log: Log };

export function createSettlements({ ledger, log }: SettlementsDeps) {
  async function carry({ entryId, text }: StreamEntry): Promise<void> {
    try {
      await ledger.write(JSON.parse(text) as CommandRecord);
    } catch (error) {
      if (error instanceof DownlinkError && error.code === 'LEDGER_UNAVAILABLE') throw error;
      // The ledger answered and does not take it: waiting would hold up all that stand behind it.
      log.error({ entryId, settlement: text, error: messageOf(error) }, 'settlement refused');
    }
  }

  return {
    async handle(entries: StreamEntry[]): Promise<ReadonlySet<string>> {
      await Promise.all(entries.map(carry));
      return new Set();
    },
  };
}
