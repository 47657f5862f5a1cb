import { Value } from 'typebox/value';
import { describe, expect, it } from 'vitest';
import { CancelRequested, CommandShown } from '../../src/api/schemas.ts';
import type { Attempt, CommandRecord } from '../../src/command.ts';
import { DownlinkError } from '../../src/errors.ts';
import { bkvId, queryBody, startBody, stopBody } from '../queues/accept-fixture.ts';
import { eventually } from '../support/eventually.ts';
import { type CommandApp, freshCommandApp } from './command-app.ts';

const accepted = async (app: CommandApp, body: unknown = startBody()) =>
  (await app.accept({ body, apiKey: 'app' })).record;

const cancel = (app: CommandApp, { id }: CommandRecord) => app.call('DELETE', `/commands/${id}`);

const attempt = (more: Partial<Attempt> = {}): Record<string, Attempt> => ({
  1: {
    attempt: 1,
    at: 1_000,
    gatewayId: 'gw-1',
    epoch: 1,
    wireId: 7,
    frameOut: 'fc',
    writtenAt: null,
    frameIn: null,
    ms: null,
    outcome: null,
    ...more,
  },
});

/** What a worker would have written. */
async function change(app: CommandApp, record: CommandRecord, more: Partial<CommandRecord>) {
  const row = (await app.ledger.find(record.id)) ?? record;
  await app.ledger.write({ ...row, version: row.version + 1, ...more });
}

/** A job that a worker holds. */
function holdActive(app: CommandApp): void {
  app.outbound.take = async () => 'active';
}

/** The command is with the gateway of its device. */
async function underWay(app: CommandApp): Promise<CommandRecord> {
  await app.connectDevice('gw-1');
  const record = await accepted(app);
  expect((await app.route(record)).kind).toBe('go');
  holdActive(app);
  return record;
}

describe('DELETE /v1/commands/:id before the write', () => {
  it.each([
    ['queued', startBody(), 'queued'],
    ['scheduled', startBody({ delayMs: 60_000 }), 'scheduled'],
    ['without an order key', queryBody(), 'queued'],
  ])('cancels what is %s', async (_name, body, status) => {
    const app = await freshCommandApp();
    const record = await accepted(app, body);
    expect(record.status).toBe(status);
    const answer = await cancel(app, record);
    expect(answer.status).toBe(200);
    expect(answer.json).toMatchObject({ status: 'cancelled', code: 'CANCELLED', final: true });
    expect(answer.json.reason).toContain('app');
    expect(Value.Check(CommandShown, answer.json)).toBe(true);
    expect(await app.jobOf(bkvId, record.id)).toBeUndefined();
    expect((await app.ledger.find(record.id))?.status).toBe('cancelled');
    const again = await cancel(app, record);
    expect([again.status, again.json.code]).toEqual([409, 'ALREADY_FINAL']);
  });

  it('cancels what waits behind another, and what waited behind the cancelled goes', async () => {
    const app = await freshCommandApp();
    await app.connectDevice('gw-1');
    const own = queryBody({ orderKey: 'mine' });
    const [first, second, third] = [
      await accepted(app, own),
      await accepted(app, own),
      await accepted(app, own),
    ];
    expect((await cancel(app, second)).json.status).toBe('cancelled');
    expect((await app.jobOf(bkvId, third.id))?.delay).toBeGreaterThan(0);
    expect((await cancel(app, first)).json.status).toBe('cancelled');
    await eventually(async () => {
      expect(await (await app.jobOf(bkvId, third.id))?.getState()).toBe('prioritized');
    });
  });

  it('cancels a command whose attempts surely wrote nothing', async () => {
    const app = await freshCommandApp();
    const record = await accepted(app);
    await change(app, record, { status: 'parked', trail: attempt({ outcome: 'offline' }) });
    expect((await cancel(app, record)).json.status).toBe('cancelled');
  });

  it('cancels one that came back unwritten a moment ago, though its trail does not say so yet', async () => {
    const app = await freshCommandApp();
    const record = await accepted(app);
    await change(app, record, { trail: attempt() });
    const cancelling = cancel(app, record);
    await change(app, record, { status: 'parked', trail: attempt({ outcome: 'offline' }) });
    expect((await cancelling).json.status).toBe('cancelled');
  });

  it('cancels what only the ledger has', async () => {
    const app = await freshCommandApp();
    const record = await accepted(app);
    await (await app.jobOf(bkvId, record.id))?.remove();
    expect((await cancel(app, record)).json.status).toBe('cancelled');
  });

  it('does not end a command whose own end is still travelling', async () => {
    const app = await freshCommandApp();
    const record = await accepted(app);
    await (await app.jobOf(bkvId, record.id))?.remove();
    await app.redis.xadd(app.keys.settlements(), '*', 's', '{}');
    const cancelling = cancel(app, record);
    await change(app, record, { status: 'succeeded', settledAt: 5 });
    const answer = await cancelling;
    expect([answer.status, answer.json.code]).toEqual([409, 'ALREADY_FINAL']);
  });

  it('frees the line for a start that was refused before', async () => {
    const app = await freshCommandApp();
    const record = await accepted(app);
    await cancel(app, record);
    expect((await accepted(app)).status).toBe('queued');
  });
});

describe('DELETE /v1/commands/:id while a worker or a gateway has it', () => {
  it('is answered with cancelled when the gateway gives it back and its worker ends it', async () => {
    const app = await freshCommandApp();
    const record = await underWay(app);
    const asked = await app.gateway('gw-1', 'withdrawn');
    const cancelling = cancel(app, record);
    await eventually(() => expect(asked).toEqual([record.id]));
    await change(app, record, { status: 'cancelled', code: 'CANCELLED', settledAt: 5 });
    const answer = await cancelling;
    expect([answer.status, answer.json.status]).toEqual([200, 'cancelled']);
  });

  it('is answered with ALREADY_SENT when it is written, and its further attempts are not touched', async () => {
    const app = await freshCommandApp();
    const record = await underWay(app);
    await app.gateway('gw-1', 'written');
    const answer = await cancel(app, record);
    expect([answer.status, answer.json.code]).toEqual([409, 'ALREADY_SENT']);
    expect(await app.routes.revocation(bkvId, record.id)).toBeNull();
  });

  it('is answered with ALREADY_SENT when its outcome is known', async () => {
    const app = await freshCommandApp();
    const record = await underWay(app);
    const outcome = { kind: 'acked', result: {}, writtenAt: 1, endedAt: 2, frameIn: null } as const;
    await app.gateway('gw-1', outcome);
    const answer = await cancel(app, record);
    expect([answer.status, answer.json.code]).toEqual([409, 'ALREADY_SENT']);
    expect(await app.routes.revocation(bkvId, record.id)).toBeNull();
  });

  it.each([
    ['says nothing', null],
    ['is gone', undefined],
  ])('is answered with 202 when the gateway %s, and no attempt follows', async (_name, says) => {
    const app = await freshCommandApp();
    const record = await underWay(app);
    if (says === null) await app.gateway('gw-1', says);
    const answer = await cancel(app, record);
    expect([answer.status, answer.json.cancelRequested]).toEqual([202, true]);
    expect(Value.Check(CancelRequested, answer.json)).toBe(true);
    expect(await app.routes.revocation(bkvId, record.id)).toEqual({ kind: 'cancelled', by: 'app' });
  });

  it('waits for the worker that holds it without having sent it', async () => {
    const app = await freshCommandApp();
    const record = await accepted(app);
    holdActive(app);
    const cancelling = cancel(app, record);
    await eventually(async () => expect((await app.route(record)).kind).toBe('revoked'));
    await change(app, record, { status: 'cancelled', code: 'CANCELLED', settledAt: 5 });
    expect((await cancelling).status).toBe(200);
  });

  it('is answered with 202 when that worker takes long', async () => {
    const app = await freshCommandApp();
    const record = await accepted(app);
    holdActive(app);
    const answer = await cancel(app, record);
    expect([answer.status, answer.json.cancelRequested]).toEqual([202, true]);
    expect((await app.route(record)).kind).toBe('revoked');
  });
});

describe('DELETE /v1/commands/:id after the write', () => {
  it.each([
    ['was written', { status: 'sent' }],
    [
      'was written and waits for another try',
      { trail: attempt({ writtenAt: 1, outcome: 'no-ack' }) },
    ],
    ['was possibly written, by a gateway that is forgotten', { trail: attempt() }],
  ] as const)('refuses what %s', async (_name, more) => {
    const app = await freshCommandApp();
    const record = await accepted(app);
    await change(app, record, more);
    const answer = await cancel(app, record);
    expect([answer.status, answer.json.code]).toEqual([409, 'ALREADY_SENT']);
    expect(await app.routes.revocation(bkvId, record.id)).toBeNull();
  });

  it('refuses what waits for its next attempt, though the ledger does not know of the first', async () => {
    const app = await freshCommandApp();
    await app.connectDevice('gw-1');
    const record = await accepted(app);
    await app.route(record);
    const { id, deviceId } = record;
    await app.routes.release({
      deviceId,
      id,
      line: 't:port:1:0',
      mode: 'rest',
      wake: 0,
      again: true,
      attempt: 1,
    });
    const answer = await cancel(app, record);
    expect([answer.status, answer.json.code]).toEqual([409, 'ALREADY_SENT']);
  });

  it.each(['succeeded', 'rejected', 'expired', 'failed', 'unknown'] as const)(
    'refuses what has ended as %s',
    async (status) => {
      const app = await freshCommandApp();
      const record = await accepted(app);
      await change(app, record, { status, settledAt: 5 });
      const answer = await cancel(app, record);
      expect([answer.status, answer.json.code]).toEqual([409, 'ALREADY_FINAL']);
      expect(answer.json.detail).toContain(status);
    },
  );
});

describe('DELETE /v1/commands/:id of a command that a stop has replaced', () => {
  it('ends it as superseded and says so', async () => {
    const app = await freshCommandApp();
    const record = await accepted(app);
    const stop = await accepted(app, stopBody);
    const answer = await cancel(app, record);
    expect([answer.status, answer.json.code]).toEqual([409, 'ALREADY_FINAL']);
    const row = await app.ledger.find(record.id);
    expect(row).toMatchObject({ status: 'superseded', code: 'SUPERSEDED' });
    expect(row?.reason).toContain(stop.id);
  });
});

describe('DELETE /v1/commands/:id with a store away', () => {
  it('does nothing while the ledger is away, so that the command cannot come back', async () => {
    const app = await freshCommandApp({ postgres: 'away' });
    const record = await accepted(app);
    const answer = await cancel(app, record);
    expect([answer.status, answer.json.code]).toEqual([503, 'LEDGER_UNAVAILABLE']);
    expect(await app.routes.revocation(bkvId, record.id)).toBeNull();
    expect(await (await app.jobOf(bkvId, record.id))?.getState()).toBe('prioritized');
  });

  it('puts the command back, never to be written, when nobody can say whether its end is stored', async () => {
    const app = await freshCommandApp();
    const record = await accepted(app);
    app.ledger.write = async () => {
      throw new DownlinkError('LEDGER_UNAVAILABLE', 'the ledger is away');
    };
    const answer = await cancel(app, record);
    expect([answer.status, answer.json.cancelRequested]).toEqual([202, true]);
    expect(await (await app.jobOf(bkvId, record.id))?.getState()).toBe('prioritized');
    expect(await app.routes.revocation(bkvId, record.id)).toMatchObject({ kind: 'cancelled' });
  });

  it('cannot judge while the queue is away', async () => {
    const app = await freshCommandApp({ redis: 'away' });
    const record = await accepted(app);
    const answer = await cancel(app, record);
    expect([answer.status, answer.json.code]).toEqual([503, 'QUEUE_UNAVAILABLE']);
    expect((await app.ledger.find(record.id))?.status).toBe('queued');
  });
});
