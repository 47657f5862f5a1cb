import { Value } from 'typebox/value';
import { describe, expect, it } from 'vitest';
import { lineOf } from '../../queues/line.ts';
import { createExplain } from '../../src/api/explain.ts';
import { createLookup } from '../../src/api/lookup.ts';
import { CommandExplained } from '../../src/api/schemas.ts';
import { liveGateways } from '../../src/bridge/presence.ts';
import { beatWorker, liveWorkers } from '../../src/bridge/workers.ts';
import type { Command } from '../../src/command.ts';
import { DownlinkError } from '../../src/errors.ts';
import { protocolNamed, protocols } from '../../src/protocols/index.ts';
import { attemptOf } from '../store/records.ts';
import { bkvId, stop } from './build.ts';
import { type RealApi, realApi } from './real-api.ts';

const query = { deviceId: bkvId, command: 'port.query', params: { socket: 1 } };
const start = {
  deviceId: bkvId,
  command: 'charge.start',
  params: { socket: 1, port: 0, mode: 'time', minutes: 60 },
};
/** A gateway and a worker that live, and the device connected. */
async function alive(api: RealApi): Promise<void> {
  const { redis, keys } = api;
  const [s] = await redis.time();
  const beat = { at: Number(s) * 1_000, leaseMs: 60_000, draining: false };
  await Promise.all([
    redis.hset(keys.gateways(), 'gw-1', JSON.stringify(beat)),
    redis.hset(keys.presence(bkvId), { gatewayId: 'gw-1', epoch: '7', protocol: 'bkv' }),
    beatWorker(redis, keys, 'worker-1'),
  ]);
}

const accept = async ({ accept: take }: RealApi, body: object) =>
  (await take({ body, apiKey: 'app' })).record;

/** As the worker does before it publishes a delivery. */
const route = ({ routes }: RealApi, command: Command) =>
  routes.route({
    id: command.id,
    deviceId: command.deviceId,
    line: lineOf(command, protocolNamed('bkv')?.commands[command.command]),
    attempt: 1,
    priority: command.priority,
    maxAttempt: command.attempts,
    maxWireId: 1_000,
    again: false,
    probing: false,
  });

async function explained({ call }: RealApi, { id }: { id: string }) {
  const { status, json } = await call('read', 'GET', `/v1/commands/${id}/explain`);
  expect(status).toBe(200);
  expect(Value.Check(CommandExplained, json)).toBe(true);
  expect(json.id).toBe(id);
  return json;
}

describe('GET /v1/commands/:id/explain', () => {
  it('knows that nobody is there', async () => {
    const api = await realApi();
    const json = await explained(api, await accept(api, query));
    expect(json).toMatchObject({ because: 'no-worker', also: ['no-gateway'], status: 'queued' });
  });

  it('knows since when a device is offline', async () => {
    const api = await realApi();
    await alive(api);
    await api.redis.del(api.keys.presence(bkvId));
    const at = Date.now() - 60_000;
    await api.devices.seen([{ deviceId: bkvId, protocol: 'bkv', at, facts: {} }]);
    const json = await explained(api, await accept(api, query));
    expect(json).toMatchObject({
      because: 'offline',
      lastSeenAt: new Date(at).toISOString(),
      also: [],
    });
  });

  it('does not take the word of a gateway that is gone', async () => {
    const api = await realApi();
    await alive(api);
    await api.redis.hset(api.keys.presence(bkvId), { gatewayId: 'gw-gone' });
    expect((await explained(api, await accept(api, query))).because).toBe('offline');
  });

  it('says how many wait in the queue when nothing else hinders', async () => {
    const api = await realApi();
    await alive(api);
    await accept(api, query);
    const json = await explained(api, await accept(api, query));
    expect(json).toMatchObject({ because: 'queued', waiting: 1 });
  });

  it('says until when a command is scheduled', async () => {
    const api = await realApi();
    const record = await accept(api, { ...query, delayMs: 60_000 });
    const json = await explained(api, record);
    expect(json).toMatchObject({
      because: 'scheduled',
      status: 'scheduled',
      notBefore: new Date(record.notBefore).toISOString(),
      also: ['no-worker', 'no-gateway'],
    });
  });

  it('names the command ahead in its line, and when its answer is due', async () => {
    const api = await realApi();
    await alive(api);
    const first = await accept(api, { ...query, orderKey: 'mine', ackTimeoutMs: 60_000 });
    const second = await accept(api, { ...query, orderKey: 'mine' });
    const waiting = await explained(api, second);
    expect(waiting).toMatchObject({
      because: 'behind',
      status: 'parked',
      orderKey: 'mine',
      behind: { id: first.id, command: 'port.query', answerDueAt: null },
    });
    const routed = await route(api, first);
    expect(routed.kind).toBe('go');
    const writtenAt = Date.now();
    await api.ledger.write({
      ...first,
      status: 'sent',
      version: 5,
      trail: { '1': attemptOf(1, { writtenAt }) },
    });
    const answerDueAt = new Date(writtenAt + 60_000).toISOString();
    expect((await explained(api, second)).behind).toMatchObject({ id: first.id, answerDueAt });
    expect((await explained(api, second)).sentence).toMatch(/whose answer is due in \d+ s$/);
    const sent = await explained(api, first);
    expect(sent).toMatchObject({ because: 'sent', gatewayId: 'gw-1', attempt: 1, answerDueAt });
  });

  it('lets a stop wait for no start of its line', async () => {
    const api = await realApi();
    await alive(api);
    const begun = await accept(api, start);
    await route(api, begun);
    const halt = await accept(api, stop);
    expect((await explained(api, halt)).because).toBe('queued');
    const replaced = await explained(api, begun);
    expect(replaced).toMatchObject({ because: 'revoked', revokedAs: 'superseded', by: halt.id });
  });

  it('tells a lane that takes no more from one that is idle', async () => {
    const api = await realApi();
    await alive(api);
    const [one, two, three] = [
      await accept(api, query),
      await accept(api, query),
      await accept(api, query),
    ];
    await route(api, one);
    await route(api, two);
    await api.routes.park(bkvId, three.id, three.priority, false);
    expect(await explained(api, two)).toMatchObject({
      because: 'in-lane',
      behind: { id: one.id },
    });
    expect(await explained(api, three)).toMatchObject({ because: 'lane-full', inLane: 2 });
  });

  it('says when the next attempt follows', async () => {
    const api = await realApi();
    await alive(api);
    const record = await accept(api, query);
    await route(api, record);
    await api.routes.release({
      deviceId: bkvId,
      id: record.id,
      line: null,
      mode: 'rest',
      wake: 0,
      again: false,
      attempt: 1,
    });
    const job = await api.outbound.queues[api.keys.shardOf(bkvId)]!.getJob(record.id);
    await job!.remove();
    const dueAt = Date.now() + 30_000;
    await api.outbound.enqueue({ command: { ...record, notBefore: dueAt } });
    const reason = 'the device did not answer in time; attempt 2 follows';
    await api.ledger.write({
      ...record,
      version: 5,
      reason,
      trail: { '1': attemptOf(1, { outcome: 'no-ack' }) },
    });
    const json = await explained(api, record);
    expect(json).toMatchObject({ because: 'backoff', attempt: 1 });
    expect(json.sentence).toContain(`"${reason}"`);
    expect(Math.abs(Date.parse(json.nextAttemptAt) - dueAt)).toBeLessThan(2_000);
  });

  it('knows who paused the device, and that the queue is paused', async () => {
    const api = await realApi();
    await alive(api);
    const record = await accept(api, query);
    await api.call('admin', 'POST', `/v1/devices/${bkvId}/pause`, { reason: 'works' });
    await api.call('admin', 'POST', '/v1/queue/pause');
    const json = await explained(api, record);
    expect(json).toMatchObject({
      because: 'device-paused',
      pausedBy: 'admin',
      pauseReason: 'works',
      also: ['queue-paused'],
    });
  });

  it('knows a command that the queue has not got', async () => {
    const api = await realApi();
    await alive(api);
    const record = await accept(api, query);
    await api.outbound.take(bkvId, record.id);
    expect((await explained(api, record)).because).toBe('not-queued');
  });

  it('says how it ended', async () => {
    const api = await realApi();
    const record = await accept(api, query);
    await api.ledger.write({
      ...record,
      status: 'unknown',
      version: 9,
      code: 'NO_ACK',
      reason: 'the device did not answer in time',
      settledAt: Date.now(),
    });
    const json = await explained(api, record);
    expect(json).toMatchObject({ because: 'ended', status: 'unknown', code: 'NO_ACK' });
  });

  it('answers 404 for a command that is not there', async () => {
    const api = await realApi();
    const id = '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10';
    const { status, json } = await api.call('read', 'GET', `/v1/commands/${id}/explain`);
    expect([status, json.code]).toEqual([404, 'COMMAND_NOT_FOUND']);
  });
});

describe('an explanation', () => {
  const gather = (api: RealApi, more: object) =>
    createExplain({
      lookup: createLookup(api),
      ledger: api.ledger,
      devices: api.devices,
      pauses: api.pauses,
      routes: api.routes,
      outbound: api.outbound,
      liveGateways: () => liveGateways(api.redis, api.keys),
      liveWorkers: () => liveWorkers(api.redis, api.keys),
      protocols,
      now: Date.now,
      timeoutMs: 100,
      ...more,
    });

  it('says what cannot be known while Redis is away, or hangs', async () => {
    const api = await realApi();
    const record = await accept(api, query);
    for (const liveWorkersOf of [
      () => Promise.reject(new Error('away')),
      () => new Promise<number>(() => undefined),
    ]) {
      const { because, sentence } = await gather(api, { liveWorkers: liveWorkersOf })(record.id);
      expect(because).toBe('queue-store-away');
      expect(sentence).toContain('last saw it queued');
    }
  });

  it('goes without the ledger', async () => {
    const api = await realApi();
    await alive(api);
    const record = await accept(api, query);
    const away = async () => {
      throw new DownlinkError('LEDGER_UNAVAILABLE', 'the ledger is away');
    };
    await api.routes.setPaused(bkvId, 1_000);
    const { because, source, fields } = await gather(api, {
      lookup: createLookup({ ...api, ledger: { find: away } }),
      ledger: { findMany: away },
      devices: { find: away },
      pauses: { find: away },
    })(record.id);
    expect([because, source]).toEqual(['device-paused', 'queue']);
    expect(fields).toMatchObject({ pausedSince: new Date(1_000).toISOString(), pausedBy: null });
  });
});
