import { Value } from 'typebox/value';
import { describe, expect, it } from 'vitest';
import { CommandAccepted } from '../../src/api/schemas.ts';
import type { CommandRecord, Status } from '../../src/command.ts';
import { newRecord } from '../store/records.ts';
import { type RealApi, realApi } from './real-api.ts';

const start = { socket: 1, port: 0, mode: 'time', minutes: 60 };
const ended = (status: Status, wanted: Partial<CommandRecord> = {}) =>
  newRecord({ params: start, status, version: 9, settledAt: Date.now(), ...wanted });

async function given(api: RealApi, record: CommandRecord): Promise<CommandRecord> {
  await api.ledger.write(record);
  return record;
}

const retry = (
  api: RealApi,
  { id }: { id: string },
  body?: unknown,
  headers: Record<string, string> = {},
) => api.call('send', 'POST', `/v1/commands/${id}/retry`, body, headers);

describe('POST /v1/commands/:id/retry', () => {
  it.each(['failed', 'rejected', 'expired', 'cancelled', 'superseded'] as const)(
    'makes a new command of one that ended as %s',
    async (status) => {
      const api = await realApi();
      const old = await given(
        api,
        ended(status, {
          acceptedAt: 1_000,
          notBefore: 61_000,
          deadline: 91_000,
          orderKey: 'mine',
          priority: 4,
          attempts: 2,
          ackTimeoutMs: 700,
          backoffMs: 10,
          params: { socket: 1 },
          command: 'port.query',
          onAmbiguous: 'stop',
        }),
      );
      const before = Date.now();
      const { status: code, json, headers } = await retry(api, old);
      expect(code).toBe(202);
      expect(headers['location']).toBe(`/v1/commands/${json.id}`);
      const made = await api.ledger.find(json.id);
      expect(made).toMatchObject({
        replayOf: old.id,
        status: 'queued',
        command: old.command,
        params: old.params,
        priority: 4,
        attempts: 2,
        ackTimeoutMs: 700,
        backoffMs: 10,
        onAmbiguous: 'stop',
        labels: old.labels,
        orderKey: 'mine',
        apiKey: 'send',
      });
      expect(made!.notBefore).toBeGreaterThanOrEqual(before);
      expect(made!.deadline - made!.notBefore).toBe(30_000);
      expect(await api.ledger.find(old.id)).toMatchObject({ status });
    },
  );

  it('answers as POST /v1/commands does', async () => {
    const api = await realApi();
    const { json } = await retry(api, await given(api, ended('expired')));
    expect(Value.Check(CommandAccepted, json)).toBe(true);
    expect(json).toMatchObject({ durability: 'both', final: false });
  });

  it('leaves the order key of the table to the table', async () => {
    const api = await realApi();
    const old = await given(api, ended('expired'));
    const made = await api.ledger.find((await retry(api, old)).json.id);
    expect(made?.orderKey).toBe(old.orderKey);
    const again = await retry(api, await given(api, ended('expired')));
    // Of the table's line: a start while a start is unfinished.
    expect([again.status, again.json.code]).toEqual([409, 'CONFLICT']);
  });

  it.each(['scheduled', 'queued', 'parked', 'sent'] as const)(
    'refuses one that is %s',
    async (status) => {
      const api = await realApi();
      const old = await given(api, newRecord({ status }));
      const { status: code, json } = await retry(api, old);
      expect([code, json.code, json.id]).toEqual([409, 'NOT_FINAL', old.id]);
      expect((await api.outbound.counts()).waiting).toBe(0);
    },
  );

  it.each(['succeeded', 'unacknowledged'] as const)('refuses one that is %s', async (status) => {
    const api = await realApi();
    const answer = await retry(api, await given(api, ended(status)), { acceptRisk: true });
    expect([answer.status, answer.json.code]).toEqual([409, 'ALREADY_SUCCEEDED']);
  });

  it('refuses what may have taken effect already, unless the risk is accepted', async () => {
    const api = await realApi();
    const old = await given(api, ended('unknown'));
    const refused = await retry(api, old);
    expect([refused.status, refused.json.code]).toEqual([409, 'AMBIGUOUS']);
    expect(refused.json.detail).toContain('port.query');
    expect((await retry(api, old, { acceptRisk: false })).status).toBe(409);
    expect((await api.outbound.counts()).waiting).toBe(0);
    expect((await retry(api, old, { acceptRisk: true })).status).toBe(202);
  });

  it.each([
    ['its table says so', { command: 'port.query', params: { socket: 1 }, orderKey: null }],
    ['its caller said so', { onAmbiguous: 'resend' as const }],
  ])('repeats an unknown one that may be repeated, since %s', async (_, wanted) => {
    const api = await realApi();
    expect((await retry(api, await given(api, ended('unknown', wanted)))).status).toBe(202);
  });

  it('takes the old one off the dead letters', async () => {
    const api = await realApi();
    const old = await given(api, ended('failed'));
    await retry(api, old);
    const { json } = await api.call('read', 'GET', '/v1/dead');
    expect(json.items).toEqual([]);
  });

  it('honours an Idempotency-Key, for this very command only', async () => {
    const api = await realApi();
    const query = { command: 'port.query', params: { socket: 1 }, orderKey: null };
    const old = await given(api, ended('unknown', query));
    const twin = await given(api, ended('unknown', query));
    const key = { 'idempotency-key': 'once' };
    const first = await retry(api, old, undefined, key);
    const second = await retry(api, old, undefined, key);
    expect(second.json.id).toBe(first.json.id);
    expect(second.headers['idempotency-replayed']).toBe('true');
    const other = await retry(api, twin, undefined, key);
    expect([other.status, other.json.code]).toEqual([409, 'IDEMPOTENCY_CONFLICT']);
  });

  it('knows no command that is not there', async () => {
    const api = await realApi();
    const answer = await retry(api, { id: '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10' });
    expect([answer.status, answer.json.code]).toEqual([404, 'COMMAND_NOT_FOUND']);
  });
});
