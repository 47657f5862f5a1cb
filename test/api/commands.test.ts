import { Value } from 'typebox/value';
import { v7 as uuidV7 } from 'uuid';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CommandAccepted, CommandShown } from '../../src/api/schemas.ts';
import type { Attempt, CommandRecord } from '../../src/command.ts';
import { bkvId, buildApi, stop } from './build.ts';

let api: ReturnType<typeof buildApi>;

beforeEach(async () => {
  api = buildApi();
  await api.memory.devices.register(bkvId, 'bkv');
});
afterEach(() => api.app.close());

const post = (body: unknown = stop, headers: Record<string, string> = {}, query = '') =>
  api.call('send', 'POST', `/v1/commands${query}`, body, headers);

const attempt = (outcome: string | null, writtenAt: number | null): Attempt => ({
  attempt: 1,
  at: 1_000,
  gatewayId: 'gw',
  epoch: 1,
  wireId: 7,
  frameOut: 'fcfe',
  writtenAt,
  frameIn: null,
  ms: null,
  outcome,
});

/** What a worker would have done. */
function change(id: string, more: Partial<CommandRecord>): void {
  const row = api.book.rows.get(id)!;
  api.book.rows.set(id, { ...row, version: row.version + 1, ...more });
}

describe('POST /v1/commands', () => {
  it('answers 202 with the command as it was stored', async () => {
    const answer = await post();
    expect(answer.status).toBe(202);
    expect(answer.json).toMatchObject({
      status: 'queued',
      final: false,
      deviceId: bkvId,
      command: 'charge.stop',
      params: stop.params,
      durability: 'both',
      maxAttempts: 4,
      attempts: [],
      apiKey: 'send',
    });
    expect(answer.json.acceptedAt).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    expect(Value.Check(CommandAccepted, answer.json)).toBe(true);
    expect(answer.headers['location']).toBe(`/v1/commands/${answer.json.id}`);
    expect(api.queue.jobs.get(answer.json.id)?.command.deviceId).toBe(bkvId);
  });

  it('tells the durability that there was', async () => {
    api.queue.state.condition = 'away';
    expect((await post()).json.durability).toBe('ledger');
    api.queue.state.condition = 'well';
    api.book.state.condition = 'away';
    expect((await post()).json.durability).toBe('queue');
  });

  it('answers a repeated Idempotency-Key with the first command', async () => {
    const headers = { 'idempotency-key': 'order-1' };
    const first = await post(stop, headers);
    const second = await post(stop, headers);
    expect(first.headers['idempotency-replayed']).toBeUndefined();
    expect(second.headers['idempotency-replayed']).toBe('true');
    expect([second.status, second.json.id]).toEqual([202, first.json.id]);
    change(first.json.id, { status: 'succeeded', settledAt: 2_000 });
    expect((await post(stop, headers)).status).toBe(200);
    const other = await post({ ...stop, priority: 1 }, headers);
    expect([other.status, other.json.code]).toEqual([409, 'IDEMPOTENCY_CONFLICT']);
    expect(other.json.id).toBe(first.json.id);
    expect(api.queue.jobs.size).toBe(1);
  });
});

describe('?wait', () => {
  it('answers 200 with the end when the command ends in time', async () => {
    const answering = post(stop, {}, '?wait=5000');
    await expect.poll(() => api.book.rows.size).toBe(1);
    const [id] = api.book.rows.keys();
    expect(api.book.rows.get(id!)?.waiter).toBe('api-test');
    change(id!, { status: 'succeeded', result: { businessNo: '0001' }, settledAt: Date.now() });
    const answer = await answering;
    expect(answer.status).toBe(200);
    expect(answer.json).toMatchObject({ id, status: 'succeeded', result: { businessNo: '0001' } });
  });

  it('answers 202 when it does not', async () => {
    const answer = await post(stop, {}, '?wait=30');
    expect([answer.status, answer.json.status]).toEqual([202, 'queued']);
  });

  it('of 0 does not wait, and nobody is told', async () => {
    const answer = await post(stop, {}, '?wait=0');
    expect(answer.status).toBe(202);
    expect(api.book.rows.get(answer.json.id)?.waiter).toBeNull();
  });
});

describe('GET /v1/commands/:id', () => {
  it('shows the attempts in their order', async () => {
    const { id } = (await post()).json;
    change(id, {
      status: 'unknown',
      trail: {
        2: { ...attempt(null, null), attempt: 2 },
        1: { ...attempt('ambiguous', 1_500), ms: 10_000 },
      },
    });
    const answer = await api.call('read', 'GET', `/v1/commands/${id}`);
    expect(answer.json.attempts).toMatchObject([
      { attempt: 1, at: '1970-01-01T00:00:01.000Z', writtenAt: '1970-01-01T00:00:01.500Z' },
      { attempt: 2, writtenAt: null, outcome: null },
    ]);
    expect(answer.json).toMatchObject({ final: true, source: 'ledger' });
    expect(Value.Check(CommandShown, answer.json)).toBe(true);
  });

  it('asks the queue while the ledger is away, whatever shard the device is in', async () => {
    api.book.state.condition = 'away';
    const { id } = (await post()).json;
    const answer = await api.call('read', 'GET', `/v1/commands/${id}`);
    expect(answer.json).toMatchObject({ id, status: 'queued', source: 'queue', deviceId: bkvId });
  });

  it('does not call a command missing while the ledger is away', async () => {
    api.book.state.condition = 'away';
    const answer = await api.call('read', 'GET', `/v1/commands/${uuidV7()}`);
    expect([answer.status, answer.json.code]).toEqual([503, 'LEDGER_UNAVAILABLE']);
  });
});
