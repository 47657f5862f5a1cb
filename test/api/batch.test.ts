import { Value } from 'typebox/value';
import { describe, expect, it } from 'vitest';
import { BatchVerdicts } from '../../src/api/schemas.ts';
import { bkvId, queryBody, startBody } from '../queues/accept-fixture.ts';
import { freshCommandApp } from './command-app.ts';

const batch = '/commands/batch';

describe('POST /v1/commands/batch', () => {
  it.each([
    ['a list', (items: unknown[]) => items],
    ['{items}', (items: unknown[]) => ({ items })],
  ])('takes %s and answers with one verdict each, in order', async (_name, wrap) => {
    const app = await freshCommandApp();
    const answer = await app.call(
      'POST',
      batch,
      wrap([queryBody(), startBody(), startBody(), { deviceId: 'x' }, 7]),
    );
    expect(answer.status).toBe(200);
    expect(answer.json).toMatchObject([
      { index: 0, httpStatus: 202, status: 'queued', durability: 'both', replayed: false },
      { index: 1, httpStatus: 202, command: 'charge.start' },
      { index: 2, httpStatus: 409, code: 'CONFLICT', id: answer.json[1].id },
      { index: 3, httpStatus: 400, code: 'BAD_REQUEST' },
      { index: 4, httpStatus: 400, code: 'BAD_REQUEST' },
    ]);
    expect(Value.Check(BatchVerdicts, answer.json)).toBe(true);
    const shown = await app.call('GET', `/commands/${answer.json[0].id}`);
    expect(shown.json).toMatchObject({ id: answer.json[0].id, deviceId: bkvId });
  });

  it('honours a key of each item', async () => {
    const app = await freshCommandApp();
    const item = { ...queryBody(), idempotencyKey: 'k1' };
    const first = await app.call('POST', batch, [item]);
    const again = await app.call('POST', batch, [item, { ...item, priority: 1 }]);
    expect(again.json).toMatchObject([
      { httpStatus: 202, id: first.json[0].id, replayed: true },
      { httpStatus: 409, code: 'IDEMPOTENCY_CONFLICT', id: first.json[0].id },
    ]);
  });

  it.each([7, {}, '', 'tab\t'])('calls %j no key', async (idempotencyKey) => {
    const app = await freshCommandApp();
    const answer = await app.call('POST', batch, [{ ...queryBody(), idempotencyKey }]);
    expect(answer.json).toMatchObject([{ httpStatus: 400, code: 'BAD_REQUEST' }]);
  });

  it('takes a thousand items and refuses one more', async () => {
    const app = await freshCommandApp();
    const items = Array.from({ length: 1_000 }, () =>
      queryBody({ labels: { n: 'x'.repeat(100) } }),
    );
    const answer = await app.call('POST', batch, items);
    expect(answer.status).toBe(200);
    expect(answer.json).toHaveLength(1_000);
    expect(answer.json.every((item: { httpStatus: number }) => item.httpStatus === 202)).toBe(true);
    const over = await app.call('POST', batch, [...items, queryBody()]);
    expect([over.status, over.json.code]).toEqual([413, 'BODY_TOO_LARGE']);
    expect(over.json.detail).toContain('1000');
  });

  it('names its own limit when the body is too large', async () => {
    const app = await freshCommandApp();
    const answer = await app.call('POST', batch, `["${'x'.repeat(2 * 1024 * 1024)}"]`);
    expect([answer.status, answer.json.code]).toEqual([413, 'BODY_TOO_LARGE']);
    expect(answer.json.detail).toContain('2097152');
  });

  it('of nothing is answered with nothing', async () => {
    const app = await freshCommandApp();
    expect(await app.call('POST', batch, [])).toMatchObject({ status: 200, json: [] });
  });

  it.each([{}, { items: 7 }, { items: {} }, 7, { items: [], wait: 5 }])(
    'refuses %j with what to change',
    async (body) => {
      const app = await freshCommandApp();
      const answer = await app.call('POST', batch, body);
      expect([answer.status, answer.json.code]).toEqual([400, 'BAD_REQUEST']);
      expect(answer.json.errors).toHaveLength(1);
    },
  );
});

describe('POST /v1/commands', () => {
  it('answers 429 with a time to come back when too many wait', async () => {
    const app = await freshCommandApp({ accept: { caps: { maxPerKey: 1, maxPerDevice: 500 } } });
    const body = queryBody({ orderKey: 'mine' });
    expect((await app.call('POST', '/commands', body)).status).toBe(202);
    const answer = await app.call('POST', '/commands', body);
    expect([answer.status, answer.json.code]).toEqual([429, 'TOO_MANY_WAITING']);
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
  });
});
