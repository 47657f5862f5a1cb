/** Parked commands: who is let go, when, and what becomes of those that nobody wakes. */
import { expect, test } from 'vitest';
import type { CommandRecord } from '../../src/command.ts';
import type { UnwrittenReason } from '../../src/outcome.ts';
import { createParking } from '../../workers/parking.ts';
import type { Run } from '../../workers/run.ts';
import { quietLog as log } from '../store/fixture.ts';
import { newRecord } from '../store/records.ts';
import { eventually } from '../support/eventually.ts';
import { type BridgeRig, deviceId, distinct, logIn, only, startBridgeRig } from './bridge-rig.ts';
import { acked, startWorkerRig } from './worker-rig.ts';

/** One in flight and four behind it. */
const wholeLane = 5;

/** A worker's parking, with an ear on what it wakes and on the delays that jobs get. */
function parkingOf({ redis, keys, routes }: BridgeRig, now = Date.now) {
  const woken: string[] = [];
  const delays: number[] = [];
  const parking = createParking({
    redis,
    routes,
    keys,
    outbound: {
      async wake(_deviceId, id) {
        woken.push(id);
        return true;
      },
    },
    flushRate: 500,
    untilDone: (step) => step(),
    log,
    now,
  });
  return {
    woken,
    delays,
    park(
      command: Run['command'],
      { times = 0, because = 'offline' as UnwrittenReason, whileParking = async () => {} } = {},
    ) {
      const job = {
        attemptsStarted: times + 1,
        attemptsMade: 0,
        async moveToDelayed(until: number) {
          delays.push(until - now());
          await whileParking();
        },
      };
      const run = { command, job, token: '', epochSeen: '', blockedBy: null };
      return parking.park(run as unknown as Run, because);
    },
  };
}

/** Twelve commands that wait for their device, which then comes back; the gateway ends what it is told to. */
async function returningDevice() {
  const rig = await startWorkerRig();
  const { epoch } = await rig.redis.hgetall(rig.keys.presence(deviceId));
  await rig.gateway.logout(deviceId, Number(epoch));
  await rig.start();
  const sent: CommandRecord[] = [];
  for (let n = 0; n < 12; n += 1) sent.push(await rig.accept({ priority: 5 }));
  const waiting = async () => {
    const standings = await Promise.all(
      sent.map(({ id }) => rig.routes.inspect(deviceId, id, null)),
    );
    return standings.filter(({ parked }) => parked === 'waiting').length;
  };
  for (const { id } of sent) {
    await eventually(async () => expect((await rig.ledger.find(id))?.status).toBe('parked'));
  }
  expect(await waiting()).toBe(12);
  await logIn(rig.gateway);
  return { ...rig, waiting };
}

test('parked commands stand in one index per device, ordered by priority and id', async () => {
  const rig = await startBridgeRig();
  const { bridge } = await rig.gateway('g1');
  await logIn(bridge);
  const urgencies = { 'c-4': 9, 'c-2': 5, 'c-3': 1, 'c-1': 5, 'c-5': 9, 'c-6': 5 };
  for (const [id, priority] of Object.entries(urgencies)) {
    await rig.routes.park(deviceId, id, priority, false);
  }
  await rig.routes.park('82200520004870', 'other', 9, false);
  const woken = await rig.routes.wakeable(deviceId, 10, { wokenToo: false, event: null });
  expect(woken).toEqual(['c-4', 'c-5', 'c-1', 'c-2', 'c-6', 'c-3']);
});

test('only what the lane can take is woken', async () => {
  const { heard, waiting } = await returningDevice();
  await eventually(() => expect(distinct(heard)).toHaveLength(wholeLane));
  expect(await waiting()).toBe(12 - wholeLane);
});

test('the next parked command is woken at each settle', async () => {
  const { gateway, heard, waiting } = await returningDevice();
  await eventually(() => expect(distinct(heard)).toHaveLength(wholeLane));
  for (let ended = 0; ended < 12 - wholeLane; ended += 1) {
    gateway.ended(distinct(heard)[ended]!, acked());
    await eventually(() => expect(distinct(heard)).toHaveLength(wholeLane + ended + 1));
    await eventually(async () => expect(await waiting()).toBe(12 - wholeLane - ended - 1));
  }
});

test('a command that has parked looks at the presence again, and wakes itself if that has changed', async () => {
  const rig = await startBridgeRig();
  const { bridge } = await rig.gateway('g1');
  const { park, woken } = parkingOf(rig);
  const waits = newRecord({ orderKey: null });
  await park(waits);
  const missed = newRecord({ orderKey: null });
  const done = await rig.watch();
  await park(missed, { whileParking: async () => void (await logIn(bridge)) });
  await eventually(() => expect(woken).toEqual([missed.id]));
  const stepAt = (name: string, key: string, arg: string) =>
    done.findLastIndex(
      ({ name: did, args }) => did === name && args[0] === key && args.includes(arg),
    );
  const parkedKey = rig.keys.parked(deviceId);
  const presence = rig.keys.presence(deviceId);
  const indexed = stepAt('zadd', parkedKey, missed.id);
  const loggedIn = stepAt('hset', presence, 'gatewayId');
  expect(indexed).toBeGreaterThan(-1);
  expect(loggedIn).toBeGreaterThan(indexed);
  await eventually(() => expect(stepAt('hget', presence, 'epoch')).toBeGreaterThan(loggedIn));
  const { parked } = await rig.routes.inspect(deviceId, waits.id, null);
  expect(parked).toBe('waiting');
});

test('the delay of a parked job is 1, 2, 4 and up to 15 min, and at most its deadline', async () => {
  const rig = await startBridgeRig();
  const at = Date.now();
  const { park, delays } = parkingOf(rig, () => at);
  const minute = 60_000;
  const patient = newRecord({ orderKey: null, deadline: at + 48 * 60 * minute });
  for (const times of [0, 1, 2, 3, 4, 5, 50]) await park(patient, { times });
  expect(delays.splice(0).map((ms) => ms / minute)).toEqual([1, 2, 4, 8, 15, 15, 15]);
  await park(newRecord({ orderKey: null, deadline: at + 7_000 }));
  expect(only(delays)).toBe(7_000);
});
