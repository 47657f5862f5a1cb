/** Where commands wait that cannot go now: index → park → look again → wake. */

import type { Redis } from 'ioredis';
import type { RedisOutbound } from '../queues/outbound.ts';
import type { Keys } from '../src/bridge/keys.ts';
import { wholeLane } from '../src/bridge/messages.ts';
import type { Routes } from '../src/bridge/routes-contract.ts';
import { messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { UnwrittenReason } from '../src/outcome.ts';
import { createPacer, type PacerClock } from '../src/pacer.ts';
import type { Run } from './run.ts';

export type Parking = {
  /** Moves the job aside. What wakes it is an event; its own delay is only the backstop. */
  park(run: Run, because: UnwrittenReason): Promise<void>;
  /** Lets one parked command go. */
  wake(deviceId: string, id: string): void;
  /** The device is back, or its lane has room: lets its most urgent parked commands go. */
  wakeDevice(deviceId: string, room: number, event: string | null): void;
  /** Wakes what can go on all devices: words that nobody heard are made up for. */
  wakeAll(): Promise<void>;
  close(): void;
};

export type ParkingDeps = {
  redis: Redis;
  routes: Pick<Routes, 'park' | 'cameMeanwhile' | 'wakeable'>;
  keys: Keys;
  outbound: Pick<RedisOutbound, 'wake'>;
  /** Devices a second that are woken when all are. */
  flushRate: number;
  untilDone<T>(step: () => Promise<T>): Promise<T>;
  log: Log;
  now: () => number;
};

/** As many as a gateway lets go at once. */
const flushBurst = 50;
const clock: PacerClock = {
  ticks: () => performance.now(),
  after(delayMs, call) {
    const timer = setTimeout(call, delayMs);
    return () => clearTimeout(timer);
  },
};
const promptLooks = 3;
const maxLookMs = 1_000;
const backstopFirstMs = 60_000;
const backstopMaxMs = 15 * 60_000;

type WakeOptions = Parameters<Routes['wakeable']>[2];

export function createParking(deps: ParkingDeps): Parking {
  const { redis, routes, keys, outbound, flushRate, untilDone, log, now } = deps;
  const pacer = createPacer({ perSecond: flushRate, burst: flushBurst, clock });

  function wake(deviceId: string, id: string): void {
    outbound.wake(deviceId, id).catch((error) => {
      log.warn({ commandId: id, deviceId, error: messageOf(error) }, 'parked command not woken');
    });
  }

  async function wakeParked(deviceId: string, room: number, options: WakeOptions): Promise<void> {
    for (const id of await routes.wakeable(deviceId, room, options)) wake(deviceId, id);
  }

  function wakeQuietly(deviceId: string, room: number, options: WakeOptions): void {
    wakeParked(deviceId, room, options).catch((error) => {
      log.warn({ deviceId, error: messageOf(error) }, 'device not woken');
    });
  }

  async function connectedOf(devices: readonly string[]): Promise<string[]> {
    const found = await Promise.all(devices.map((id) => redis.exists(keys.presence(id))));
    return devices.filter((_, i) => found[i] === 1);
  }

  /** What it waits for may have come between the refusal and the parking. */
  function lookAgain({ command: { id, deviceId }, epochSeen: epoch }: Run, because: string): void {
    routes
      .cameMeanwhile({ deviceId, id, epoch, because })
      .then((came) => {
        if (came) wake(deviceId, id);
      })
      .catch((error) => log.warn({ commandId: id, error: messageOf(error) }, 'parked unseen'));
  }

  return {
    wake,
    async park(run, because) {
      const { id, deviceId, priority, deadline } = run.command;
      // The route that found it blocked has put it into the index.
      const blocked = because === 'key-blocked' && run.blockedBy !== null;
      if (!blocked) await untilDone(() => routes.park(deviceId, id, priority, false));
      const times = Math.max(0, run.job.attemptsStarted - run.job.attemptsMade - 1);
      const backstop = Math.min(backstopFirstMs * 2 ** Math.min(times, 10), backstopMaxMs);
      const until = Math.min(now() + backstop, deadline);
      try {
        await untilDone(() => run.job.moveToDelayed(until, run.token));
      } finally {
        // Only after the processor has returned: a job that is active again under the same id in this
        // process would lose its lock renewal to the run that is just ending.
        // Sent back by a gateway that has written a newer one: only another session can change that.
        const reason = because === 'key-blocked' && !blocked ? 'overtaken' : because;
        // What is sent back again and again, though nothing is in its way here, must not be a busy loop: the
        // gateway says when it has room.
        const pauseMs = times < promptLooks ? 0 : Math.min(maxLookMs, 2 ** times);
        if (pauseMs === 0) setImmediate(lookAgain, run, reason);
        else setTimeout(lookAgain, pauseMs, run, reason).unref();
      }
    },
    wakeDevice: (deviceId, room, event) => wakeQuietly(deviceId, room, { wokenToo: false, event }),
    close: () => pacer.clear(),
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
          const connected = await connectedOf(devices);
          // Many may have come back while nobody listened: they go at the pace of any other return.
          for (const deviceId of connected) {
            pacer.offer(deviceId, 0, () =>
              wakeQuietly(deviceId, wholeLane, { wokenToo: true, event: null }),
            );
          }
        } while (cursor !== '0');
      }
    },
  };
}
