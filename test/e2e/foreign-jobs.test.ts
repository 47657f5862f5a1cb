/** Whatever else stands in the queue ends as failed with its reason, and harms neither its worker nor the next command. */
import { Queue } from 'bullmq';
import { v7 as uuidV7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createKeys, type Keys } from '../../src/bridge/keys.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { eventually } from '../support/eventually.ts';
import {
  bkvPatched,
  bkvSealed,
  bkvSize,
  connectPlain,
  type PlainDevice,
} from '../support/plain-device.ts';
import { type Stack, startStack } from '../support/stack.ts';

const heartbeat =
  'fcfe002e0000000000000182200520004869383938363034363331313230373033313934313763562e31723436001fcafcee';
/** The vendor's answer to a query of socket 1. */
const queryReply =
  'fcfe00350015001c91ee018600445945300500211c01513629150080000008ef00000001000000000180000008ef000000010000000077fcee';
const deviceId = '82200520004869';
const shards = 4;

let stack: Stack;
let redis: Redis;
let keys: Keys;
let queues: Queue[];
let device: PlainDevice;

beforeAll(async () => {
  stack = await startStack();
  redis = connectRedis({ url: stack.redisUrl, purpose: 'commands', name: 'test' });
  keys = createKeys(stack.prefix, shards);
  queues = Array.from(
    { length: shards },
    (_, shard) =>
      new Queue(keys.queueName(shard), { connection: redis, prefix: keys.queuePrefix(shard) }),
  );
  device = await connectPlain(stack.tcp, bkvSize);
  device.send(bkvPatched(heartbeat, deviceId));
  await device.frame();
});
afterAll(async () => {
  await device?.close();
  await Promise.all((queues ?? []).map((queue) => queue.close()));
  if (redis) await closeRedis(redis);
  await stack?.stop();
});

/** Job data as downlink itself writes it, for a query of socket 1. */
function sound(): Record<string, unknown> {
  const now = Date.now();
  return {
    deviceId,
    protocol: 'bkv',
    params: { socket: 1 },
    priority: 5,
    acceptedAt: now,
    deadline: now + 60_000,
    ackTimeoutMs: 2_000,
    attempts: 1,
    backoffMs: 100,
    onAmbiguous: 'resend',
    apiKey: 'somebody',
  };
}

type Foreign = {
  name?: string;
  /** What stands in the place of sound data. */
  data?: unknown;
  /** What is different about sound data. */
  with?: Record<string, unknown>;
  without?: string;
  id?: string;
  shard?: number;
  reason: RegExp;
};

const own = createKeys('x', shards).shardOf(deviceId);

/** No command of that queue can be read from these: they fail as jobs. */
const unreadable: Record<string, Foreign> = {
  'no data': { data: null, reason: /data/i },
  'a text': { data: 'stop', reason: /data/i },
  'a list': { data: [1, 2, 3], reason: /data/i },
  'an empty object': { data: {}, reason: /deviceId/ },
  'no device': { without: 'deviceId', reason: /deviceId/ },
  'no deadline': { without: 'deadline', reason: /deadline/ },
  'a device that is a number': { with: { deviceId: 82200520004869 }, reason: /deviceId/ },
  'a device that is an object': { with: { deviceId: { $ne: '' } }, reason: /deviceId/ },
  'an endless device': { with: { deviceId: '8'.repeat(100_000) }, reason: /deviceId/ },
  'params that are a list': { with: { params: [1] }, reason: /params/ },
  'a priority beyond nine': { with: { priority: 99 }, reason: /priority/ },
  'half a priority': { with: { priority: 1.5 }, reason: /priority/ },
  'an absurd deadline': { with: { deadline: 1e300 }, reason: /deadline/ },
  'a deadline in words': { with: { deadline: 'tomorrow' }, reason: /deadline/ },
  'a negative moment': { with: { acceptedAt: -1 }, reason: /acceptedAt/ },
  'a billion tries': { with: { attempts: 1e9 }, reason: /attempts/ },
  'no try': { with: { attempts: 0 }, reason: /attempts/ },
  'an endless backoff': { with: { backoffMs: 1e15 }, reason: /backoffMs/ },
  'an endless ack timeout': { with: { ackTimeoutMs: 1e15 }, reason: /ackTimeoutMs/ },
  'no ack timeout': { with: { ackTimeoutMs: null }, reason: /ackTimeoutMs/ },
  'an unheard-of policy': { with: { onAmbiguous: 'hope' }, reason: /onAmbiguous/ },
  'labels that are numbers': { with: { labels: { a: 1 } }, reason: /labels/ },
  'an order key that is an object': { with: { orderKey: {} }, reason: /orderKey/ },
  // Its own queue may hold the same command: no row is written for a stray.
  'the queue of another shard': { shard: (own + 1) % shards, reason: /queue/ },
  'a counted-on base that is none': { with: { base: { attempt: 'x' } }, reason: /base/ },
};

/** A command can be read from these, so it ends as failed in the ledger too. */
const unsendable: Record<string, Foreign> = {
  'an unknown protocol': { with: { protocol: 'modbus' }, reason: /modbus/ },
  'an unknown command': { name: 'make.coffee', reason: /make\.coffee/ },
  'a command named as a member of every object': { name: 'constructor', reason: /constructor/ },
  'params that are missing': { with: { params: {} }, reason: /socket/ },
  'params of another kind': { with: { params: { socket: 'one' } }, reason: /socket/ },
  'params beyond their range': { with: { params: { socket: 70_000 } }, reason: /socket/ },
  'params that nobody knows': { with: { params: { socket: 1, sockett: 2 } }, reason: /sockett/ },
  'a huge payload': {
    name: 'raw',
    with: { params: { cmd: '0003', payload: 'ab'.repeat(500_000) } },
    reason: /payload|bytes|large|long/i,
  },
  'a raw payload that is no hex': {
    name: 'raw',
    with: { params: { cmd: '0003', payload: 'zz' } },
    reason: /payload|hex/i,
  },
  'a device id of the other protocol': { with: { deviceId: '04ab373b' }, reason: /device/i },
  'a device id that is none': { with: { deviceId: 'a}:b{c' }, reason: /device/i },
};

async function add(foreign: Foreign): Promise<{ shard: number; id: string }> {
  const { data, without, id, name = 'port.query' } = foreign;
  const made: Record<string, unknown> = { ...sound(), ...foreign.with };
  if (without !== undefined) delete made[without];
  const device = String(made['deviceId']);
  const shard = foreign.shard ?? keys.shardOf(device);
  const job = await queues[shard]!.add(name, 'data' in foreign ? data : made, {
    jobId: id ?? uuidV7(),
    priority: 5,
    attempts: 3,
  });
  return { shard, id: job.id! };
}

async function endOf({ shard, id }: { shard: number; id: string }): Promise<string> {
  return eventually(async () => {
    expect(await queues[shard]!.getJobState(id)).toBe('failed');
    return (await queues[shard]!.getJob(id))?.failedReason ?? '';
  });
}

async function expectGoodCommandToSucceed(): Promise<void> {
  const { id } = await stack.api.send({ deviceId, command: 'port.query', params: { socket: 1 } });
  const frame = await device.frame();
  device.send(bkvSealed(bkvPatched(queryReply, deviceId, frame.slice(12, 20))));
  await eventually(async () => expect((await stack.api.command(id)).status).toBe('succeeded'));
}

test.each(Object.entries(unreadable))(
  'a job with %s fails at once, and says why',
  async (_what, foreign) => {
    expect(await endOf(await add(foreign))).toMatch(foreign.reason);
  },
);

test.each(Object.entries(unsendable))(
  'a command with %s ends as failed, and says why',
  async (_what, foreign) => {
    const added = await add(foreign);
    expect(await endOf(added)).toMatch(foreign.reason);
    const shown = await eventually(async () => {
      const command = await stack.api.command(added.id);
      expect(command.final).toBe(true);
      return command;
    });
    expect(shown).toMatchObject({ status: 'failed', attempts: [] });
    expect(shown.reason).toMatch(foreign.reason);
  },
);

test.each([
  ['a number for an id', undefined],
  ['an id in words', 'my job'],
  ['an id that would be another key', 'a}{b'],
])('a job with %s fails, since no ledger row could be told by it', async (_what, id) => {
  const added =
    id === undefined
      ? await (async () => {
          const job = await queues[own]!.add('port.query', sound(), { priority: 5 });
          return { shard: own, id: job.id! };
        })()
      : await add({ id, reason: /id/ });
  expect(await endOf(added)).toMatch(/\bid\b/i);
});

test('a sound job that somebody else added is sent as any other', async () => {
  const { shard, id } = await add({ reason: /./ });
  const frame = await device.frame();
  device.send(bkvSealed(bkvPatched(queryReply, deviceId, frame.slice(12, 20))));
  await eventually(async () => expect((await stack.api.command(id)).status).toBe('succeeded'));
  await eventually(async () => expect(await queues[shard]!.getJobState(id)).toBe('completed'));
});

test('a start of theirs is asked after before it is sent again, though BullMQ has counted no try of it', async () => {
  const params = { socket: 1, port: 1, mode: 'time', minutes: 5 };
  const onAmbiguous = 'probe';
  const few = { params, onAmbiguous, priority: 7, attempts: 3, ackTimeoutMs: 200 };
  const id = uuidV7();
  // BullMQ's own default: one try.
  await queues[own]!.add('charge.start', { ...sound(), ...few }, { jobId: id, priority: 3 });
  const frames = [await device.frame(), await device.frame(), await device.frame()];
  const [control, query] = [`${deviceId}000807`, `${deviceId}00011d`];
  expect(frames.map((frame) => frame.includes(control))).toEqual([true, false, false]);
  expect(frames.map((frame) => frame.includes(query))).toEqual([false, true, true]);
  await eventually(async () => expect((await stack.api.command(id)).status).toBe('unknown'));
});

test('a job whose data is no JSON holds up nobody', async () => {
  const queue = queues[own]!;
  const id = uuidV7();
  await queue.add('port.query', sound(), { jobId: id, delay: 300 });
  await redis.hset(queue.toKey(id), 'data', '{"deviceId":');
  await eventually(async () => {
    expect(await redis.zscore(queue.toKey('delayed'), id)).toBeNull();
  });
  await expectGoodCommandToSucceed();
  // BullMQ itself cannot read it, so it comes back with the stalled ones until somebody removes it.
  await redis.multi().lrem(queue.toKey('active'), 0, id).del(queue.toKey(id)).exec();
});

test('hundreds of them at once hold up nobody: a good command in between succeeds', async () => {
  const all = [...Object.values(unreadable), ...Object.values(unsendable)];
  const added = await Promise.all(Array.from({ length: 5 }, () => all.map(add)).flat());
  await expectGoodCommandToSucceed();
  for (const each of added) await endOf(each);
  // Nobody starts the worker again but us: it is the first one still.
  await expectGoodCommandToSucceed();
  expect(device.unread).toEqual([]);
});
