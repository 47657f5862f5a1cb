/** Removes what is past its time from the ledger, in turns so short that a closing worker can wait for one. */
import type { Log } from '../src/log/log.ts';
import type { Retention } from '../src/store/retention.ts';

export type RemovalDeps = {
  retention: Retention;
  log: Log;
  now: () => number;
  rowsAtOnce?: number;
  roundsPerTurn?: number;
};

/** Ended commands and reports of devices are kept so long; claims last until they expire. */
export const keptMs = 30 * 86_400_000;

/** Days of the log that one turn drops at most; a drop is quick, but others wait for it. */
const daysPerTurn = 3;

/** One turn; it also makes the days of the log that are to come. It resolves with whether there may be more to remove. */
export function createRemoval({
  retention,
  log,
  now,
  rowsAtOnce = 1_000,
  roundsPerTurn = 10,
}: RemovalDeps): () => Promise<boolean> {
  return async function removeOld() {
    const days = await turnDays();
    const total = { commands: 0, claims: 0, reports: 0 };
    let more = true;
    for (let round = 0; more && round < roundsPerTurn; round += 1) {
      const at = now();
      const query = { before: at - keptMs, now: at, limit: rowsAtOnce };
      const { commands, claims, reports } = await retention.removeOld(query);
      total.commands += commands;
      total.claims += claims;
      total.reports += reports;
      more = Math.max(commands, claims, reports) >= rowsAtOnce;
    }
    if (Math.max(...Object.values(total)) > 0) log.info(total, 'old rows removed');
    return more || days.more;
  };

  async function turnDays(): Promise<{ more: boolean }> {
    const made = await retention.makeLogDays({ now: now() });
    const dropped: string[] = [];
    for (let turn = 0; turn < daysPerTurn; turn += 1) {
      const day = await retention.dropLogDay(now() - keptMs);
      if (day === null) break;
      dropped.push(day);
    }
    if (made > 0 || dropped.length > 0) log.info({ made, dropped }, 'days of the log turned');
    return { more: dropped.length === daysPerTurn };
  }
}
