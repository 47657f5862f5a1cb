import { Value } from 'typebox/value';
import { describe, expect, it } from 'vitest';
import { toJob } from '../../queues/job.ts';
import { CommandPage, DeadPurged, DeadReplayed } from '../../src/api/schemas.ts';
import type { CommandRecord } from '../../src/command.ts';
import { newRecord } from '../store/records.ts';
import { type RealApi, realApi } from './real-api.ts';

const hourMs = 3_600_000;

/** A dead query: safe to send again. */
const deadQuery = (wanted: Partial<CommandRecord> = {}) =>
  newRecord({
    command: 'port.query',
    params: { socket: 1 },
    orderKey: null,
    onAmbiguous: 'resend',
    status: 'unknown',
    version: 9,
    code: 'NO_ACK',
    reason: 'the device did not answer in time',
    settledAt: Date.now(),
    ...wanted,
  });

/** A dead start: sending it again could start twice. */
const deadStart = (wanted: Partial<CommandRecord> = {}) =>
  newRecord({
    params: { socket: 1, port: 0, mode: 'time', minutes: 60 },
    status: 'unknown',
    version: 9,
    settledAt: Date.now(),
    ...wanted,
  });

async function given(api: RealApi, ...records: CommandRecord[]): Promise<void> {
  await Promise.all(records.map((record) => api.ledger.write(record)));
}

/** The queue keeps the failed job of a dead command, as BullMQ stores one. */
async function givenDeadJob({ outbound, redis, keys }: RealApi, record: CommandRecord) {
  const queue = outbound.queues[keys.shardOf(record.deviceId)]!;
  await queue.add(record.command, toJob(record), { jobId: record.id, delay: hourMs });
  await redis.zrem(queue.toKey('delayed'), record.id);
  await redis.zadd(queue.toKey('failed'), Date.now(), record.id);
  await redis.hset(queue.toKey(record.id), 'finishedOn', Date.now());
  return queue;
}

const idsOf = (items: { id: string }[]) => items.map(({ id }) => id);

describe('GET /v1/dead', () => {
  it('lists what ended as failed or unknown in the last 7 days, newest first', async () => {
    const api = await realApi();
    const now = Date.now();
    const older = deadQuery({ settledAt: now - hourMs });
    const newer = deadQuery({ status: 'failed', code: 'INVALID', settledAt: now - 1_000 });
    const gone = deadQuery({ settledAt: now - 8 * 24 * hourMs });
    const fine = deadQuery({ status: 'succeeded', code: null });
    await given(api, older, newer, gone, fine);
    const { status, json } = await api.call('read', 'GET', '/v1/dead');
    expect(status).toBe(200);
    expect(idsOf(json.items)).toEqual([newer.id, older.id]);
    expect(Value.Check(CommandPage.properties.nextCursor, json.nextCursor)).toBe(true);
    const first = await api.call('read', 'GET', '/v1/dead?limit=1');
    expect(idsOf(first.json.items)).toEqual([newer.id]);
    const rest = await api.call('read', 'GET', `/v1/dead?cursor=${first.json.nextCursor}`);
    expect(idsOf(rest.json.items)).toEqual([older.id]);
  });

  it('filters by device, command, code, status and age', async () => {
    const api = await realApi();
    const now = Date.now();
    const other = deadQuery({ deviceId: '04ab373b', protocol: 'ap3000', code: 'GATEWAY_LOST' });
    const failed = deadQuery({ command: 'charge.stop', status: 'failed', code: 'INVALID' });
    const old = deadQuery({ settledAt: now - 3 * hourMs });
    await given(api, other, failed, old);
    const found = async (query: string) =>
      idsOf((await api.call('read', 'GET', `/v1/dead?${query}`)).json.items);
    expect(await found('deviceId=04AB373B')).toEqual([other.id]);
    expect(await found('command=charge.stop')).toEqual([failed.id]);
    expect(await found('code=GATEWAY_LOST')).toEqual([other.id]);
    expect(await found('status=failed')).toEqual([failed.id]);
    const anHourAgo = new Date(now - hourMs).toISOString();
    expect(await found(`to=${anHourAgo}`)).toEqual([old.id]);
    expect((await found(`from=${anHourAgo}`)).sort()).toEqual([other.id, failed.id].sort());
  });

  it('names every fault of a filter', async () => {
    const api = await realApi();
    const answer = await api.call('read', 'GET', '/v1/dead?from=yesterday&to=2030-01-01');
    expect([answer.status, answer.json.code]).toEqual([400, 'BAD_REQUEST']);
    expect(answer.json.errors.map(({ path }: { path: string }) => path)).toEqual(['from', 'to']);
  });
});

describe('DELETE /v1/dead', () => {
  it('takes what fits off the list and out of the queue, and keeps the history', async () => {
    const api = await realApi();
    const [one, two] = [deadQuery(), deadQuery({ code: 'GATEWAY_LOST' })];
    await given(api, one, two);
    const queue = await givenDeadJob(api, one);
    expect(await queue.getJobState(one.id)).toBe('failed');
    const answer = await api.call('admin', 'DELETE', '/v1/dead', { filter: { code: 'NO_ACK' } });
    expect(answer.json).toEqual({ purged: 1, more: false });
    expect(Value.Check(DeadPurged, answer.json)).toBe(true);
    expect(idsOf((await api.call('read', 'GET', '/v1/dead')).json.items)).toEqual([two.id]);
    expect(await queue.getJobState(one.id)).toBe('unknown');
    expect(await api.ledger.find(one.id)).toMatchObject({ status: 'unknown' });
  });

  it('purges everything only when that is said', async () => {
    const api = await realApi();
    await given(api, deadQuery(), deadQuery());
    for (const body of [{}, { filter: {} }, { all: false }, undefined]) {
      const answer = await api.call('admin', 'DELETE', '/v1/dead', body);
      expect([answer.status, answer.json.errors?.[0].path]).toEqual([400, 'filter']);
    }
    const answer = await api.call('admin', 'DELETE', '/v1/dead', { all: true });
    expect(answer.json).toEqual({ purged: 2, more: false });
  });

  it('is for admins', async () => {
    const api = await realApi();
    const answer = await api.call('send', 'DELETE', '/v1/dead', { all: true });
    expect([answer.status, answer.json.code]).toEqual([403, 'FORBIDDEN']);
  });
});

describe('POST /v1/dead/replay', () => {
  it('sends dead commands anew, each with a verdict, and takes those off the list', async () => {
    const api = await realApi();
    const query = deadQuery({ acceptedAt: Date.now() - 2_000, labels: { site: 'north' } });
    const start = deadStart();
    await given(api, query, start);
    const queue = await givenDeadJob(api, query);
    const answer = await api.call('send', 'POST', '/v1/dead/replay', { filter: {} });
    expect(answer.status).toBe(200);
    expect(Value.Check(DeadReplayed, answer.json)).toBe(true);
    const [first, second] = answer.json.items;
    expect(first.id).toBe(query.id);
    expect(second).toMatchObject({ id: start.id, code: 'AMBIGUOUS' });
    expect(second.detail).toContain('port.query');
    expect(await api.ledger.find(first.newId)).toMatchObject({
      replayOf: query.id,
      command: 'port.query',
      params: query.params,
      labels: { site: 'north' },
      apiKey: 'send',
      status: 'queued',
    });
    expect(await api.outbound.find(query.deviceId, first.newId)).not.toBeNull();
    expect(await queue.getJobState(query.id)).toBe('unknown');
    expect(idsOf((await api.call('read', 'GET', '/v1/dead')).json.items)).toEqual([start.id]);
  });

  it('makes one new command of each, however often and however many at once ask', async () => {
    const api = await realApi();
    const dead = [deadQuery(), deadQuery(), deadQuery()];
    await given(api, ...dead);
    const body = { filter: { ids: idsOf(dead) } };
    const answers = await Promise.all(
      [1, 2, 3].map(() => api.call('send', 'POST', '/v1/dead/replay', body)),
    );
    const newIds = answers.flatMap(({ json }) => json.items.map((i: { newId: string }) => i.newId));
    expect(new Set(newIds).size).toBe(3);
    expect((await api.outbound.counts()).waiting).toBe(3);
  });

  it('replays the newest within the limit, and sends them in the order of their first accept', async () => {
    const api = await realApi();
    const now = Date.now();
    const dead = [1, 2, 3].map((n) =>
      deadQuery({ acceptedAt: now - 10_000 + n, settledAt: now - 5_000 + n }),
    );
    await given(api, ...dead);
    const { json } = await api.call('send', 'POST', '/v1/dead/replay', { limit: 2 });
    expect(idsOf(json.items)).toEqual([dead[1]!.id, dead[2]!.id]);
    const [a, b] = json.items;
    expect(a.newId < b.newId).toBe(true);
  });

  it('takes the risk when it is told to', async () => {
    const api = await realApi();
    const start = deadStart();
    await given(api, start);
    const body = { filter: { command: 'charge.start' }, acceptRisk: true };
    const { json } = await api.call('send', 'POST', '/v1/dead/replay', body);
    expect(json.items).toEqual([{ id: start.id, newId: expect.any(String) }]);
  });

  it('puts a refusal of accept beside what succeeded', async () => {
    const api = await realApi();
    const now = Date.now();
    const starts = [1, 2].map((n) => deadStart({ status: 'failed', acceptedAt: now + n }));
    await given(api, ...starts);
    const { json } = await api.call('send', 'POST', '/v1/dead/replay', {});
    // The second start of a port is refused while the first is unfinished.
    expect(json.items).toMatchObject([
      { id: starts[0]!.id, newId: expect.any(String) },
      { id: starts[1]!.id, code: 'CONFLICT' },
    ]);
  });
});
