import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fromJob, toJob } from '../../queues/job.ts';
import { createOutbound, type RedisOutbound } from '../../queues/outbound.ts';
import { createKeys, type Keys } from '../../src/bridge/keys.ts';
import type { Command } from '../../src/command.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { freshRedis, privateRedis } from '../support/stores.ts';

let url: string;
let redis: Redis;
let keys: Keys;
let outbound: RedisOutbound;

beforeEach(async () => {
  const { url: given, prefix } = await freshRedis();
  url = given;
  redis = connectRedis({ url, purpose: 'commands', name: 'test' });
  keys = createKeys(prefix, 4);
  outbound = createOutbound({ redis, keys, onError: () => undefined });
});

afterEach(async () => {
  await outbound.close();
  await closeRedis(redis);
});

function command(change: Partial<Command> = {}): Command {
  const now = Date.now();
  return {
    id: randomUUID(),
    deviceId: '82200520004869',
    protocol: 'bkv',
    command: 'port.query',
    params: { socket: 2 },
    priority: 5,
    acceptedAt: now,
    notBefore: now,
    deadline: now + 60_000,
    ackTimeoutMs: 10_000,
    attempts: 4,
    backoffMs: 3_000,
    orderKey: null,
    onAmbiguous: 'resend',
    labels: {},
    apiKey: 'test',
    waiter: null,
    replayOf: null,
    ...change,
  };
}

const queueOf = (deviceId: string) => outbound.queues[keys.shardOf(deviceId)]!;

describe('an outbound job', () => {
  it('carries the whole command', () => {
    const full = command({ orderKey: 'port:2:0', labels: { site: 'a' }, waiter: 'api-1' });
    const job = { id: full.id, name: full.command, data: toJob(full) };
    expect(fromJob(job)).toEqual({ command: full, base: { attempt: 0, version: 0 } });
  });

  it.each([
    null,
    'text',
    {},
    { ...toJob(command()), priority: 10 },
    { ...toJob(command()), params: null },
    { ...toJob(command()), deadline: 'soon' },
    { ...toJob(command()), onAmbiguous: 'guess' },
  ])('that is no command is named as a fault: %j', (data) => {
    expect(fromJob({ id: '1', name: 'x', data })).toHaveProperty('fault');
  });
});

describe('the outbound queue', () => {
  it('gives the most urgent command first, then the oldest', async () => {
    const order = [command({ priority: 3 }), command({ priority: 9 }), command({ priority: 3 })];
    for (const each of order) await outbound.enqueue({ command: each });
    const waiting = await queueOf('82200520004869').getJobs('prioritized', 0, -1, true);
    expect(waiting.map(({ id }) => id)).toEqual([order[1]!.id, order[0]!.id, order[2]!.id]);
  });

  it('keeps a command until its time has come', async () => {
    const later = command({ notBefore: Date.now() + 60_000 });
    await outbound.enqueue({ command: later });
    expect(await queueOf(later.deviceId).getJobState(later.id)).toBe('delayed');
  });

  it('takes an id once', async () => {
    const once = command();
    await outbound.enqueue({ command: once });
    await outbound.enqueue({ command: once });
    expect((await outbound.counts()).waiting).toBe(1);
  });

  it('keeps all commands of a device in one shard, and those of many in all', async () => {
    const devices = Array.from({ length: 64 }, (_, n) => `822005200${10_000 + n}`);
    await outbound.enqueueMany(devices.map((deviceId) => ({ command: command({ deviceId }) })));
    const counts = await Promise.all(outbound.queues.map((queue) => queue.count()));
    expect(counts.every((count) => count > 0)).toBe(true);
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(64);
  });

  it('gives a waiting command back and then no longer has it', async () => {
    const waiting = command();
    await outbound.enqueue({ command: waiting });
    expect(await outbound.find(waiting.deviceId, waiting.id)).toMatchObject({ command: waiting });
    expect(await outbound.take(waiting.deviceId, waiting.id)).toBe('taken');
    expect(await outbound.take(waiting.deviceId, waiting.id)).toBe('missing');
    expect(await outbound.find(waiting.deviceId, waiting.id)).toBeNull();
  });

  it('does not give back what a worker holds', async () => {
    const held = command();
    await outbound.enqueue({ command: held });
    const { Worker } = await import('bullmq');
    const holding = Promise.withResolvers<void>();
    const taken = Promise.withResolvers<void>();
    const connection = connectRedis({
      url,
      purpose: 'blocking',
      name: 'holder',
    });
    const shard = keys.shardOf(held.deviceId);
    const worker = new Worker(
      keys.queueName(shard),
      async () => {
        taken.resolve();
        await holding.promise;
      },
      { connection, prefix: keys.queuePrefix(shard) },
    );
    await taken.promise;
    expect(await outbound.take(held.deviceId, held.id)).toBe('active');
    expect(await outbound.holds([held])).toEqual(new Set([held.id]));
    holding.resolve();
    await worker.close();
    await closeRedis(connection);
  });

  it('wakes a delayed command before its equals', async () => {
    const [first, parked] = [command(), command({ notBefore: Date.now() + 60_000 })];
    await outbound.enqueue({ command: first });
    await outbound.enqueue({ command: parked });
    expect(await outbound.wake(parked.deviceId, parked.id)).toBe(true);
    const waiting = await queueOf(first.deviceId).getJobs('prioritized', 0, -1, true);
    expect(waiting.map(({ id }) => id)).toEqual([parked.id, first.id]);
    expect(await outbound.wake(parked.deviceId, parked.id)).toBe(false);
  });

  it('puts a hastened command before all others, whatever it waits for', async () => {
    const [urgent, later] = [
      command({ priority: 8 }),
      command({ priority: 1, notBefore: Date.now() + 60_000 }),
    ];
    await outbound.enqueue({ command: urgent });
    await outbound.enqueue({ command: later });
    expect(await outbound.hasten(later.deviceId, later.id)).toBe(true);
    const waiting = await queueOf(urgent.deviceId).getJobs('prioritized', 0, -1, true);
    expect(waiting.map(({ id }) => id)).toEqual([later.id, urgent.id]);
  });

  it('keeps one that stands behind another aside, until it is woken', async () => {
    const behind = command();
    await outbound.enqueue({ command: behind, blocked: true });
    const seen = await outbound.inspect(behind.deviceId, behind.id);
    expect(seen?.state).toBe('delayed');
    expect(seen?.dueAt).toBeGreaterThan(Date.now() + 30_000);
    expect(await outbound.wake(behind.deviceId, behind.id)).toBe(true);
    expect(await outbound.inspect(behind.deviceId, behind.id)).toMatchObject({
      state: 'prioritized',
      dueAt: null,
    });
  });

  it('pauses all shards and goes on', async () => {
    await outbound.pause();
    expect(await outbound.isPaused()).toBe(true);
    expect(await Promise.all(outbound.queues.map((queue) => queue.isPaused()))).not.toContain(
      false,
    );
    await outbound.resume();
    expect(await outbound.isPaused()).toBe(false);
  });

  it('counts a command put back from where it stood', async () => {
    const back = command();
    await outbound.enqueue({ command: back, base: { attempt: 3, version: 40 } });
    const found = await outbound.find(back.deviceId, back.id);
    expect(found?.nextVersion).toBeGreaterThan(40);
    const job = await queueOf(back.deviceId).getJob(back.id);
    expect(job?.opts.attempts).toBe(1);
  });
});

describe('the outbound queue without its store', () => {
  it('refuses within its bound, and takes commands again when the store is back', async () => {
    const store = await privateRedis();
    const client = connectRedis({ url: store.url, purpose: 'commands', name: 'test' });
    const own = createOutbound({ redis: client, keys, onError: () => undefined, timeoutMs: 500 });
    try {
      await own.enqueue({ command: command() });
      await store.server.kill('SIGKILL');
      await expect(own.enqueue({ command: command() })).rejects.toMatchObject({
        code: 'QUEUE_UNAVAILABLE',
      });
      await store.server.start();
      await expect
        .poll(
          () =>
            own.enqueue({ command: command() }).then(
              () => true,
              () => false,
            ),
          { timeout: 10_000 },
        )
        .toBe(true);
    } finally {
      await own.close();
      await closeRedis(client);
      await store.stop();
    }
  });
});
