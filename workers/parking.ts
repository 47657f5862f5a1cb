/** Where commands wait that cannot go now: index → park → look again → wake. */

import type { RedisOutbound } from '../queues/outbound.ts';
import type { Keys } from '../src/bridge/keys.ts';
import type { BridgeScripts } from '../src/bridge/scripts.ts';
import { messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { UnwrittenReason } from '../src/outcome.ts';
import type { Run } from './run.ts';

export type Parking = {
  /** Moves the job aside. What wakes it is an event; its own delay is only the backstop. */
  park(run: Run, because: UnwrittenReason): Promise<void>;
  /** The device is back, or its lane has room: lets its most urgent parked commands go. */
  wakeDevice(deviceId: string): void;
};

export type ParkingDeps = {
  scripts: BridgeScripts;
  keys: Keys;
  outbound: Pick<RedisOutbound, 'wake'>;
  untilDone<T>(step: () => Promise<T>): Promise<T>;
  log: Log;
  now: () => number;
};

const backstopFirstMs = 60_000;
const backstopMaxMs = 15 * 60_000;
/** One in flight and four in the lane: more would only be sent back. */
const wokenAtOnce = 5;
const mostUrgent = 9;

export function createParking(deps: ParkingDeps): Parking {
  const { scripts, keys, outbound, untilDone, log, now } = deps;

  function wake(deviceId: string, id: string): void {
    outbound.wake(deviceId, id).catch((error) => {
      log.warn({ commandId: id, deviceId, error: messageOf(error) }, 'parked command not woken');
    });
  }

  /** What it waits for may have come between the refusal and the parking. */
  function lookAgain(run: Run, because: UnwrittenReason): void {
    const { id, deviceId } = run.command;
    scripts
      .dlLook(
        keys.presence(deviceId),
        keys.marks(deviceId),
        keys.parked(deviceId),
        id,
        run.epochSeen,
        because,
      )
      .then((must) => {
        if (Number(must) === 1) wake(deviceId, id);
      })
      .catch((error) => log.warn({ commandId: id, error: messageOf(error) }, 'parked unseen'));
  }

  return {
    async park(run, because) {
      const { id, deviceId, priority, deadline } = run.command;
      const score = mostUrgent - priority;
      await untilDone(() => scripts.dlPark(keys.parked(deviceId), id, score));
      const times = Math.max(0, run.job.attemptsStarted - run.job.attemptsMade - 1);
      const backstop = Math.min(backstopFirstMs * 2 ** Math.min(times, 10), backstopMaxMs);
      const until = Math.min(now() + backstop, deadline);
      await untilDone(() => run.job.moveToDelayed(until, run.token));
      // Only after the processor has returned: a job that is active again under the same id in this
      // process would lose its lock renewal to the run that is just ending.
      setImmediate(lookAgain, run, because);
    },
    wakeDevice(deviceId) {
      scripts
        .dlPopParked(keys.parked(deviceId), wokenAtOnce)
        .then((ids) => {
          for (const id of ids) wake(deviceId, id);
        })
        .catch((error) => log.warn({ deviceId, error: messageOf(error) }, 'device not woken'));
    },
  };
}
