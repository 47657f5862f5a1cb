/** What workers do from time to time beside the queue, each under a lease of its own: one worker at a time. */

import type { Keys } from '../src/bridge/keys.ts';
import type { BridgeScripts } from '../src/bridge/scripts.ts';
import type { Log } from '../src/log/log.ts';
import { createDuty, type Duty } from './lease.ts';
import type { Reaper } from './reaper.ts';
import type { Swept } from './sweeper.ts';

export type DutiesDeps = {
  workerId: string;
  keys: Keys;
  scripts: Pick<BridgeScripts, 'dlHoldLease' | 'dlGiveLease'>;
  log: Log;
  reaper: Reaper;
  wakeAll(): Promise<void>;
  sweep(): Promise<Swept>;
  keepLines(): Promise<unknown>;
  renewPauses(): Promise<unknown>;
  /** Puts right by which ids gateways let devices in. */
  copyKnown(): Promise<unknown>;
  /** These two resolve with whether there is more to remove. */
  removeRows(): Promise<boolean>;
  removeJobs(): Promise<boolean>;
};

export type Duties = {
  start(): void;
  close(): Promise<void>;
  /** Redis lost its memory: what it held is put back, and once more for what was too young for the first look. */
  redisReplaced(andAfterMs: number): void;
  /** Redis is there again: words on the channels were missed. */
  redisBack(): void;
};

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;

export function createDuties(deps: DutiesDeps): Duties {
  const { workerId: holder, keys, scripts, log, reaper } = deps;

  function duty(
    name: string,
    times: { everyMs: number; firstMs: number },
    work: () => Promise<unknown>,
  ): Duty {
    return createDuty({ name, lease: keys.lease(name), holder, scripts, log, work, ...times });
  }

  /** Goes on at once while there is more to do. */
  function repeated(
    name: string,
    times: { everyMs: number; firstMs: number },
    work: () => Promise<boolean>,
  ): Duty {
    const each: Duty = duty(name, times, async () => {
      if (await work()) each.now();
    });
    return each;
  }

  const reapAll = duty('reaper', { everyMs: 10 * MINUTE_MS, firstMs: 2 * SECOND_MS }, async () => {
    // Before anything is put back: a paused device must not get it because Redis forgot the pause.
    await deps.renewPauses();
    await reaper.reap({ ledgerOnly: false });
  });
  const pauses = duty('pauses', { everyMs: MINUTE_MS, firstMs: 0 }, deps.renewPauses);
  const known = duty('known-devices', { everyMs: 10 * MINUTE_MS, firstMs: 0 }, deps.copyKnown);
  // First once the gateways were heard.
  const wakeAll = duty('parked', { everyMs: 10 * MINUTE_MS, firstMs: 500 }, deps.wakeAll);
  const duties = [
    reapAll,
    pauses,
    known,
    wakeAll,
    duty('ledger-only', { everyMs: SECOND_MS, firstMs: SECOND_MS }, () =>
      reaper.reap({ ledgerOnly: true }),
    ),
    repeated(
      'sweeper',
      { everyMs: SECOND_MS, firstMs: SECOND_MS },
      async () => (await deps.sweep()).more,
    ),
    duty('lines', { everyMs: MINUTE_MS / 2, firstMs: MINUTE_MS / 2 }, deps.keepLines),
    repeated('retention', { everyMs: 60 * MINUTE_MS, firstMs: MINUTE_MS }, deps.removeRows),
    repeated('dead-letters', { everyMs: 10 * MINUTE_MS, firstMs: MINUTE_MS }, deps.removeJobs),
  ];

  return {
    start() {
      for (const each of duties) each.start();
    },
    async close() {
      await Promise.all(duties.map((each) => each.close()));
    },
    redisReplaced(andAfterMs) {
      reapAll.now(andAfterMs);
      known.now();
    },
    redisBack: () => wakeAll.now(),
  };
}
