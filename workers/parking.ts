/** Where commands wait that cannot go now: index → park → look again → wake. */

import type { Redis } from 'ioredis';
import type { RedisOutbound } from '../queues/outbound.ts';
import type { Keys } from '../src/bridge/keys.ts';
import { wholeLane } from '../src/bridge/messages.ts';
import type { BridgeScripts } from '../src/bridge/scripts.ts';
import { messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { UnwrittenReason } from '../src/outcome.ts';
import type { Run } from './run.ts';

export type Parking = {
  /** Moves the job aside. What wakes it is an event; its own delay is only the backstop. */
  park(run: Run, because: UnwrittenReason): Promise<void>;
  /** Lets one parked command go. */
  wake(deviceId: string, id: string): void;
  /** The device is back, or its lane has room: lets its most urgent parked commands go. */
  wakeDevice(deviceId: string, room: number): void;
  /** Wakes what can go on all devices: words that nobody heard are made up for. */
  wakeAll(): Promise<void>;
};

export type ParkingDeps = {
  redis: Redis & BridgeScripts;
  keys: Keys;
  outbound: Pick<RedisOutbound, 'wake'>;
  untilDone<T>(step: () => Promise<T>): Promise<T>;
  log: Log;
  now: () => number;
};

const backstopFirstMs = 60_000;
const backstopMaxMs = 15 * 60_000;
const mostUrgent = 9;

export function createParking(deps: ParkingDeps): Parking {
  const { redis, keys, outbound, untilDone, log, now } = deps;

  function wake(deviceId: string, id: string): void {
    outbound.wake(deviceId, id).catch((error) => {
      log.warn({ commandId: id, deviceId, error: messageOf(error) }, 'parked command not woken');
    });
  }

  async function wakeParked(deviceId: string, room: number, wokenToo: 0 | 1): Promise<void> {
    const ids = await redis.dlWakeable(
      keys.parked(deviceId),
      keys.presence(deviceId),
      keys.parkedDevices(keys.shardOf(deviceId)),
      room,
      wokenToo,
      deviceId,
    );
    for (const id of ids) wake(deviceId, id);
  }

  /** What it waits for may have come between the refusal and the parking. */
  function lookAgain(run: Run, because: UnwrittenReason): void {
    const { id, deviceId } = run.command;
    redis
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
    wake,
    async park(run, because) {
      const { id, deviceId, priority, deadline } = run.command;
      const score = mostUrgent - priority;
      const devices = keys.parkedDevices(keys.shardOf(deviceId));
      await untilDone(() => redis.dlPark(keys.parked(deviceId), devices, id, score, deviceId));
      const times = Math.max(0, run.job.attemptsStarted - run.job.attemptsMade - 1);
      const backstop = Math.min(backstopFirstMs * 2 ** Math.min(times, 10), backstopMaxMs);
      const until = Math.min(now() + backstop, deadline);
      try {
        await untilDone(() => run.job.moveToDelayed(until, run.token));
      } finally {
        // Only after the processor has returned: a job that is active again under the same id in this
        // process would lose its lock renewal to the run that is just ending.
        setImmediate(lookAgain, run, because);
      }
    },
    wakeDevice(deviceId, room) {
      wakeParked(deviceId, room, 0).catch((error) => {
        log.warn({ deviceId, error: messageOf(error) }, 'device not woken');
      });
    },
    async wakeAll() {
      for (let shard = 0; shard < keys.shards; shard += 1) {
        let cursor = '0';
        do {
          const [next, devices] = await redis.sscan(
            keys.parkedDevices(shard),
            cursor,
            'COUNT',
            500,
          );
          cursor = next;
          await Promise.all(devices.map((deviceId) => wakeParked(deviceId, wholeLane, 1)));
        } while (cursor !== '0');
      }
    },
  };
}
