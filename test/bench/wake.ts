/**
 * How long a returning device waits for the command that was parked for it: from its pace slot, which is the moment
 * at which its wake event is published, to the frame on the socket. Beside it how often a job is activated.
 */

import { Queue } from 'bullmq';
import { versionsPerActivation } from '../../queues/job.ts';
import { parseBatch } from '../../src/bridge/messages.ts';
import { closeRedis } from '../../src/connections/redis.ts';
import { firstVersion } from '../../workers/run.ts';
import { percentile } from '../support/percentile.ts';
import { atRate } from './pace.ts';
import { runScript } from './processes.ts';
import type { Report } from './report.ts';
import { type Command, deviceIds, openSite, queryFor, type Site, until } from './site.ts';

export type WakeOptions = {
  /** Devices that return with one parked command each. */
  returning: number;
  /** Commands of equal priority to other devices that wait meanwhile. */
  backlog: number;
  /** Devices that return with `each` parked commands. */
  drainDevices: number;
  each: number;
  say(line: string): void;
};

const commandsPerOther = 4;
const referencePerSecond = 500;

export async function benchWake(options: WakeOptions): Promise<Report> {
  const { returning, backlog, drainDevices, each, say } = options;
  const site = await openSite();
  try {
    say(
      `reference: ${returning} delayed jobs of BullMQ alone, promoted at ${referencePerSecond}/s`,
    );
    const bare = await benchBare(site, returning);
    const gateway = await site.start('gateway');
    await site.start('worker');
    const connect = (ids: readonly string[]) => site.connect(gateway, ids);

    say(`${returning} devices return with one parked command each`);
    const idle = deviceIds(1, returning);
    await park(site, idle.map(queryFor), idle);
    const calm = await latencies(site, idle, async () => {
      await connect(idle);
      await untilNoneParked(site, idle);
    });

    const others = deviceIds(100_001, Math.ceil(backlog / commandsPerOther));
    say(`the same while ${backlog} commands wait for ${others.length} other devices`);
    const busy = deviceIds(200_001, returning);
    await park(site, busy.map(queryFor), busy);
    await connect(others);
    await untilEmptyUplink(site);
    await site.outbound.pause();
    await site.fill(
      Array.from({ length: backlog }, (_, n) => queryFor(others[n % others.length]!)),
    );
    await site.outbound.resume();
    let left = 0;
    const loaded = await latencies(site, busy, async () => {
      await connect(busy);
      await untilNoneParked(site, busy);
      left = (await site.outbound.counts()).waiting;
    });
    await untilDone(site);

    say(`${drainDevices} devices return with ${each} parked commands each`);
    const loadedIds = deviceIds(300_001, drainDevices);
    const many = loadedIds.flatMap((id) => Array.from({ length: each }, () => queryFor(id)));
    await park(site, many, loadedIds);
    const startedAt = performance.now();
    await connect(loadedIds);
    await untilDone(site);
    const drainMs = performance.now() - startedAt;
    const activations = await activationsOf(site, many);

    return {
      name: 'wake',
      figures: {
        wake_p50_ms: percentile(calm, 0.5),
        wake_p99_ms: percentile(calm, 0.99),
        wake_backlog_p50_ms: percentile(loaded, 0.5),
        wake_backlog_p99_ms: percentile(loaded, 0.99),
        backlog_left: left,
        activations_per_command: activations.reduce((sum, n) => sum + n, 0) / activations.length,
        activations_max: Math.max(...activations),
        drain_ms: drainMs,
        bare_promote_p50_ms: percentile(bare, 0.5),
        bare_promote_p99_ms: percentile(bare, 0.99),
      },
      versions: await site.versions(),
      notes: [
        'wake: from the publish of a device’s wake event to its frame on the socket; one millisecond is the grain',
        'backlog_left: commands that still waited when the last returning device had its frame; at 0 the backlog was too small',
        'activations_per_command: all of them, the one that parked the command included',
        'bare_promote: BullMQ alone, from the promotion of a delayed job to its processor',
      ],
    };
  } finally {
    await site.close();
  }
}

/** From the promotion to the processor, each, of BullMQ alone. */
async function benchBare({ redis, redisUrl, keys }: Site, jobs: number): Promise<number[]> {
  const queue = new Queue('bare', { connection: redis, prefix: keys.prefix });
  const commands = deviceIds(1, jobs).map(queryFor);
  const waiting = await queue.addBulk(
    commands.map(({ id, command, ...data }) => ({
      name: command,
      data: { ...data },
      opts: { jobId: id, delay: 3_600_000, priority: 5 },
    })),
  );
  const script = runScript<Record<string, number>>('bare-latency.ts', [
    redisUrl,
    keys.prefix,
    'bare',
    String(jobs),
  ]);
  await until('the bare worker', async () => (await queue.getWorkersCount()) > 0);
  const promotedAt = new Map<string, number>();
  await atRate(referencePerSecond, waiting, async (job) => {
    promotedAt.set(job.id!, Date.now());
    await job.promote();
  });
  const begun = await script;
  await queue.obliterate({ force: true });
  await queue.close();
  return [...promotedAt].map(([id, at]) => begun[id]! - at);
}

/** Enqueues commands for devices that are away, and waits until each stands parked. */
async function park(site: Site, commands: readonly Command[], ids: readonly string[]) {
  await site.fill(commands);
  await until('commands park', async () => {
    const { pending } = await site.outbound.counts();
    return pending === 0 && (await site.parked(ids)) === commands.length;
  });
}

/** From each device's first wake event to its frame on the socket, while `run` brings them back. */
async function latencies(site: Site, ids: readonly string[], run: () => Promise<void>) {
  const slots = new Map<string, number>();
  const wanted = new Set(ids);
  const subscriber = site.subscriber();
  subscriber.on('message', (_channel: string, text: string) => {
    const at = Date.now();
    for (const event of parseBatch('event', text).messages) {
      if (event.t !== 'wake' || !wanted.has(event.deviceId) || slots.has(event.deviceId)) continue;
      slots.set(event.deviceId, at);
    }
  });
  await subscriber.subscribe(site.keys.eventsChannel());
  try {
    await run();
    const writtenAt = await written(site, ids);
    return ids.map((id) => {
      const [slot, frame] = [slots.get(id), writtenAt.get(id)];
      if (slot === undefined) throw new Error(`device ${id} was never woken`);
      if (frame === undefined) throw new Error(`device ${id} got no frame`);
      // The event may reach us after the frame was written: both took less than the grain then.
      return Math.max(0, frame - slot);
    });
  } finally {
    await closeRedis(subscriber);
  }
}

async function written({ pool }: Site, ids: readonly string[]): Promise<Map<string, number>> {
  const read = async () => {
    const { rows } = await pool.query<{ device_id: string; at: string }>(
      `SELECT device_id, (trail->'1'->>'writtenAt')::bigint AS at FROM commands
       WHERE device_id = ANY($1) AND status = 'succeeded'`,
      [ids],
    );
    return new Map(rows.map(({ device_id, at }) => [device_id, Number(at)]));
  };
  await until('all succeed', async () => (await read()).size === ids.length);
  return read();
}

function untilNoneParked(site: Site, ids: readonly string[]): Promise<void> {
  return until('no command is parked', async () => (await site.parked(ids)) === 0);
}

function untilDone({ outbound }: Site): Promise<void> {
  return until('the queue is empty', async () => {
    const { waiting, pending } = await outbound.counts();
    return waiting + pending === 0;
  });
}

/** The worker has stored what the devices said when they came. */
function untilEmptyUplink({ redis, keys }: Site): Promise<void> {
  return until('the uplink stream is empty', async () => (await redis.xlen(keys.uplink())) === 0);
}

/** How often a worker took each job: every activation counts a step of its versions further. */
async function activationsOf({ pool }: Site, commands: readonly Command[]): Promise<number[]> {
  const { rows } = await pool.query<{ version: number; status: string }>(
    'SELECT version, status FROM commands WHERE id = ANY($1)',
    [commands.map(({ id }) => id)],
  );
  const failed = rows.filter(({ status }) => status !== 'succeeded');
  if (failed.length > 0) throw new Error(`${failed.length} commands did not succeed`);
  const first = firstVersion({ attempt: 0, version: 0 }, 1);
  return rows.map(({ version }) => Math.floor((version - first) / versionsPerActivation) + 1);
}
