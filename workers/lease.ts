/** A periodic duty that one worker at a time does. Two at once waste work and break no promise. */

import type { BridgeScripts } from '../src/bridge/scripts.ts';
import { messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';

export type Duty = {
  start(): void;
  /** Does the work at once, and again after so long when that is given. */
  now(andAfterMs?: number): void;
  close(): Promise<void>;
};

export type DutyDeps = {
  name: string;
  /** Redis key of the lease. */
  lease: string;
  holder: string;
  scripts: Pick<BridgeScripts, 'dlHoldLease' | 'dlGiveLease'>;
  everyMs: number;
  /** The first time comes after so long. */
  firstMs?: number;
  work(): Promise<unknown>;
  log: Log;
};

/** Longer than a turn of work takes; a holder that dies holds up the others no longer. */
const leaseMs = 30_000;
const retryMs = 5_000;

export function createDuty(deps: DutyDeps): Duty {
  const { name, lease, holder, scripts, everyMs, firstMs = everyMs, work, log } = deps;
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  let askedAgain = false;
  let soonMs: number | undefined;
  let closed = false;

  /** Resolves with when to look again. */
  async function once(): Promise<number> {
    try {
      if (Number(await scripts.dlHoldLease(lease, holder, leaseMs)) !== 1) {
        return Math.min(everyMs, leaseMs);
      }
      try {
        await work();
      } finally {
        await scripts.dlGiveLease(lease, holder);
      }
      return everyMs;
    } catch (error) {
      log.debug({ duty: name, error: messageOf(error) }, 'duty put off');
      return Math.min(everyMs, retryMs);
    }
  }

  function schedule(ms: number): void {
    if (closed) return;
    clearTimeout(timer);
    timer = setTimeout(run, ms);
  }

  function run(): void {
    if (running) {
      askedAgain = true;
      return;
    }
    running = once().then((nextMs) => {
      running = undefined;
      schedule(askedAgain ? 0 : Math.min(nextMs, soonMs ?? nextMs));
      if (!askedAgain) soonMs = undefined;
      askedAgain = false;
    });
  }

  return {
    start: () => schedule(firstMs),
    now(andAfterMs) {
      soonMs = andAfterMs;
      run();
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      await running;
    },
  };
}
