/** A periodic duty that one worker at a time does. Two at once waste work and break no promise. */

import type { BridgeScripts } from '../src/bridge/scripts.ts';
import { messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';

export type Duty = { start(): void; now(): void; close(): Promise<void> };

export type DutyDeps = {
  name: string;
  /** Redis key of the lease. */
  lease: string;
  holder: string;
  scripts: Pick<BridgeScripts, 'dlHoldLease'>;
  everyMs: number;
  /** The first time comes after so long. */
  firstMs?: number;
  work(): Promise<unknown>;
  log: Log;
};

/** The lease outlives this many periods, so that its holder keeps it from one to the next. */
const leasePeriods = 3;
const minLeaseMs = 10_000;

export function createDuty(deps: DutyDeps): Duty {
  const { name, lease, holder, scripts, everyMs, firstMs = everyMs, work, log } = deps;
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  let closed = false;

  async function once(): Promise<void> {
    try {
      const ms = Math.max(everyMs * leasePeriods, minLeaseMs);
      if (Number(await scripts.dlHoldLease(lease, holder, ms)) === 1) await work();
    } catch (error) {
      log.warn({ duty: name, error: messageOf(error) }, 'duty put off');
    }
  }

  function schedule(ms: number): void {
    if (closed) return;
    clearTimeout(timer);
    timer = setTimeout(() => {
      running ??= once().finally(() => {
        running = undefined;
        schedule(everyMs);
      });
    }, ms);
  }

  return {
    start: () => schedule(firstMs),
    now: () => schedule(0),
    async close() {
      closed = true;
      clearTimeout(timer);
      await running;
    },
  };
}
