/** How the ledger keeps its word: what is in it, or in what stands in for it, before anything is said to be over. */
import { UnrecoverableError } from 'bullmq';
import { expect, onTestFinished, test } from 'vitest';
import { fromJob } from '../../queues/job.ts';
import type { CommandRecord } from '../../src/command.ts';
import { DownlinkError } from '../../src/errors.ts';
import { protocolNamed } from '../../src/protocols/index.ts';
import { createForeignEnds } from '../../workers/foreign-ends.ts';
import { createGuard } from '../../workers/guard.ts';
import { createReaper } from '../../workers/reaper.ts';
import { createRecorder } from '../../workers/recorder.ts';
import type { Run } from '../../workers/run.ts';
import { attemptOf, newRecord } from '../store/records.ts';
import { eventually } from '../support/eventually.ts';
import { dutyStores, query } from '../workers/duty-stores.ts';
import { acked, startWorkerRig } from './worker-rig.ts';

const start = {
  command: 'charge.start',
  params: { socket: 1, port: 0, mode: 'time', minutes: 60 },
  orderKey: 'port:1:0',
  onAmbiguous: 'probe',
} as const;

test('the start of each attempt goes to the ledger at once, while the answer is awaited', async () => {
  const rig = await startWorkerRig({
    play(delivery, gateway) {
      const { workerId, id, attempt } = delivery;
      if (attempt === 1) {
        const at = Date.now();
        const written = { writtenAt: at, endedAt: at };
        gateway.ended(delivery, { kind: 'ambiguous', reason: 'no-ack', ...written });
      } else gateway.written(workerId, id, attempt, Date.now());
    },
  });
  await rig.start();
  const { id } = await rig.accept();
  await eventually(async () => {
    const row = await rig.ledger.find(id);
    expect(row?.trail).toMatchObject({ 1: { outcome: 'no-ack' }, 2: { outcome: null } });
  });
  expect(await rig.stateOf({ id })).toBe('active');
});

test('a job ends only after its settlement is in the ledger', async () => {
  const stored = Promise.withResolvers<void>();
  onTestFinished(() => stored.resolve());
  let settling = false;
  const rig = await startWorkerRig({
    play: (delivery, gateway) => gateway.ended(delivery, acked()),
    asSeen: (ledger) => ({
      ...ledger,
      async write(record) {
        if (record.settledAt !== null) {
          settling = true;
          await stored.promise;
        }
        return ledger.write(record);
      },
    }),
  });
  await rig.start();
  const { id } = await rig.accept();
  await eventually(() => expect(settling).toBe(true));
  // Time enough for a job that does not wait for it to end.
  const other = await rig.accept();
  await eventually(() => expect(rig.heard.map((each) => each.id)).toContain(other.id));
  expect(await rig.stateOf({ id })).toBe('active');
  stored.resolve();
  await eventually(async () => expect(await rig.stateOf({ id })).toBe('completed'));
  expect((await rig.ledger.find(id))?.status).toBe('succeeded');
});

test('while the ledger is away a stream stands in for it, and the row follows', async () => {
  const state = { away: true, refused: 0 };
  const rig = await startWorkerRig({
    play: (delivery, gateway) => gateway.ended(delivery, acked()),
    asSeen: (ledger) => ({
      ...ledger,
      async write(record) {
        if (!state.away) return ledger.write(record);
        state.refused += 1;
        throw new DownlinkError('LEDGER_UNAVAILABLE', 'the ledger is away');
      },
    }),
  });
  await rig.start();
  const { id } = await rig.accept();
  await eventually(async () => expect(await rig.stateOf({ id })).toBe('completed'));
  expect((await rig.ledger.find(id))?.status).toBe('queued');
  expect(await rig.redis.xlen(rig.keys.settlements())).toBe(1);
  state.away = false;
  await eventually(async () => {
    expect((await rig.ledger.find(id))?.status).toBe('succeeded');
    expect(await rig.redis.xlen(rig.keys.settlements())).toBe(0);
  });
});

test('a job older than the last start of Redis is checked against the ledger before it sends', async () => {
  const { ledger, outbound, accept, log } = await dutyStores();
  const ended = await accept();
  const open = await accept();
  const state = { version: 9, status: 'succeeded', settledAt: Date.now() } as const;
  await ledger.write({ ...ended, ...state });
  const guardAt = async (record: CommandRecord, startedAt: number) => {
    const jobs = await Promise.all(outbound.queues.map((queue) => queue.getJob(record.id)));
    const run = runOf(record, jobs.find((job) => job !== undefined)!);
    return createGuard({ ledger, log, now: Date.now, redisStartedAt: async () => startedAt })(run);
  };
  const restarted = Date.now() + 1_000;
  expect(await guardAt(ended, restarted)).toEqual({
    go: false,
    outcome: null,
    status: 'succeeded',
  });
  expect(await guardAt(open, restarted)).toEqual({ go: true });
  // A job that Redis got since then is not behind the ledger.
  expect(await guardAt(ended, 0)).toEqual({ go: true });
});

function runOf(command: CommandRecord, job: Run['job']): Run {
  const protocol = protocolNamed(command.protocol);
  return {
    job,
    token: '',
    command,
    base: { attempt: 0, version: 0 },
    protocol,
    spec: protocol?.commands[command.command],
    line: null,
    attempt: 1,
    writtenBefore: false,
    version: 1,
    trail: null,
    knownTrail: {},
    probeTrail: null,
    delivery: null,
    epochSeen: '',
    revocation: null,
    blockedBy: null,
    unclear: null,
    late: false,
    inferred: false,
    settling: false,
  };
}

async function reaperStores() {
  const stores = await dutyStores();
  const { ledger, redis, keys, log } = stores;
  const closing = new AbortController();
  const recorder = createRecorder({
    ledger,
    redis,
    keys,
    protocols: [],
    log,
    closing: closing.signal,
  });
  onTestFinished(() => closing.abort());
  const clock = { now: Date.now() + 10_000 };
  const caps = { maxPerKey: 50, maxPerDevice: 500 };
  const { reap } = createReaper({
    ...stores,
    supersede: { withdraw: async () => undefined, hasten: () => undefined },
    recorder,
    caps,
    now: () => clock.now,
  });
  return { ...stores, recorder, reap };
}

test('a command that only the ledger has is put back when it was never written', async () => {
  const { ledger, outbound, reap } = await reaperStores();
  const lost = query({ version: 5 });
  await ledger.write(lost);
  expect(await reap({ ledgerOnly: false })).toEqual({ seen: 1, putBack: 1, ended: 0 });
  expect(await outbound.holds([lost])).toEqual(new Set([lost.id]));
  // Above the version that the ledger has: what it will write is not refused.
  const job = await outbound.queues.map((queue) => queue.getJob(lost.id));
  const [found] = (await Promise.all(job)).filter((each) => each !== undefined);
  expect(fromJob(found!)).toMatchObject({ base: { attempt: 0, version: 5 } });
});

test('a lost command that was written goes through the ambiguity rule', async () => {
  const { ledger, outbound, reap, redis, keys } = await reaperStores();
  const trail = { 1: attemptOf(1, { writtenAt: 5, wireId: 77 }) };
  const once = newRecord({ ...start, onAmbiguous: 'stop', trail, version: 4 });
  const again = query({ trail, version: 4, status: 'sent' });
  await Promise.all([ledger.write(once), ledger.write(again)]);
  expect(await reap({ ledgerOnly: false })).toEqual({ seen: 2, putBack: 1, ended: 1 });
  expect(await ledger.find(once.id)).toMatchObject({ status: 'unknown', code: 'GATEWAY_LOST' });
  expect(await outbound.holds([once, again])).toEqual(new Set([again.id]));
  // Its next frame carries the wire id of the last one.
  expect(await redis.hget(keys.marks(again.deviceId), again.id)).toContain('|77|');
});

test('nothing is put back while settlements are on their way to the ledger', async () => {
  const { ledger, outbound, reap, redis, keys } = await reaperStores();
  const lost = query();
  await ledger.write(lost);
  const entryId = await redis.xadd(keys.settlements(), '*', 's', '{}');
  await expect(reap({ ledgerOnly: false })).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
  expect(await outbound.holds([lost])).toEqual(new Set());
  await redis.xdel(keys.settlements(), entryId!);
  expect(await reap({ ledgerOnly: false })).toMatchObject({ putBack: 1 });
});

test('a start that meets another one when the queue is back ends as failed CONFLICT', async () => {
  const { ledger, reap, acceptInLine } = await reaperStores();
  const standing = await acceptInLine(start);
  const late = newRecord(start);
  await ledger.write(late);
  expect(await reap({ ledgerOnly: false })).toMatchObject({ putBack: 0, ended: 1 });
  const row = await ledger.find(late.id);
  expect(row).toMatchObject({ status: 'failed', code: 'CONFLICT' });
  expect(row?.reason).toContain(standing.id);
});

test('a job that failed outside its flow ends its command as unknown', async () => {
  const stores = await reaperStores();
  const { ledger, outbound, recorder, consume, acceptInLine, routes } = stores;
  const failing = await acceptInLine({ ...start, attempts: 1 });
  const behind = await acceptInLine({ command: 'params.set', orderKey: 'port:1:0' });
  const ends = createForeignEnds({ ...stores, recorder, now: Date.now });
  const crash = new UnrecoverableError('out of memory');
  await consume(failing.deviceId, () => Promise.reject(crash), { jobs: 1 });
  const [job] = await eventually(async () => {
    const found = await Promise.all(outbound.queues.map((queue) => queue.getJob(failing.id)));
    const failed = found.filter((each) => each?.finishedOn !== undefined);
    expect(failed).toHaveLength(1);
    return failed;
  });
  await ends.settle(job!, crash);
  expect(await ledger.find(failing.id)).toMatchObject({
    status: 'unknown',
    code: 'INTERNAL',
    reason: 'its job failed: out of memory',
  });
  // Its place is free.
  const line = `t:${failing.orderKey}`;
  expect((await routes.inspect(behind.deviceId, failing.id, line)).seq).toBeNull();
});
