import { Value } from 'typebox/value';
import { describe, expect, it } from 'vitest';
import { createPausing } from '../../src/api/pauses.ts';
import { DevicePage, DeviceShown, Stats } from '../../src/api/schemas.ts';
import { parseBatch, wholeLane } from '../../src/bridge/messages.ts';
import { createOutbox } from '../../src/bridge/outbox.ts';
import { createRoutes } from '../../src/bridge/routes.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { createLog } from '../../src/log/log.ts';
import { eventually } from '../support/eventually.ts';
import { bkvId } from './build.ts';
import { realApi } from './real-api.ts';

const device = `/v1/devices/${bkvId}`;

describe('a paused device', () => {
  it('is shown with who paused it, since when and why', async () => {
    const api = await realApi();
    expect((await api.call('read', 'GET', device)).json.paused).toBeNull();
    const before = Date.now();
    const body = { reason: 'electrician on site' };
    const { status, json } = await api.call('admin', 'POST', `${device}/pause`, body);
    expect(status).toBe(200);
    expect(Value.Check(DeviceShown, json)).toBe(true);
    expect(json.paused).toMatchObject({ by: 'admin', reason: 'electrician on site' });
    expect(Date.parse(json.paused.since)).toBeGreaterThanOrEqual(before);
    expect((await api.call('read', 'GET', device)).json).toEqual(json);
    const list = await api.call('read', 'GET', '/v1/devices');
    expect(Value.Check(DevicePage, list.json)).toBe(true);
    const stats = await api.call('read', 'GET', '/v1/stats');
    expect(stats.json.devices).toEqual({ paused: 1 });
  });

  it('is known to the workers, and the first pause stands', async () => {
    const api = await realApi();
    const first = await api.call('admin', 'POST', `${device}/pause`);
    await api.call('admin', 'POST', `${device}/pause`, { reason: 'later' });
    const { pausedAt } = await api.routes.inspect(bkvId, 'any', null);
    expect(pausedAt).toBe(Date.parse(first.json.paused.since));
    expect((await api.call('read', 'GET', device)).json.paused.reason).toBeNull();
  });

  it('goes on when it is resumed, and its parked commands are woken', async () => {
    const api = await realApi();
    const listener = connectRedis({ url: api.redisUrl, purpose: 'subscriber', name: 'test' });
    const heard: string[] = [];
    listener.on('message', (_, text) => heard.push(text));
    await listener.subscribe(api.keys.eventsChannel());
    await api.call('admin', 'POST', `${device}/pause`);
    const { status, json } = await api.call('admin', 'POST', `${device}/resume`);
    expect([status, json.paused]).toEqual([200, null]);
    expect((await api.routes.inspect(bkvId, 'any', null)).pausedAt).toBeNull();
    const wake = { t: 'wake', deviceId: bkvId, room: wholeLane };
    await eventually(() =>
      expect(heard.flatMap((text) => parseBatch('event', text).messages)).toMatchObject([wake]),
    );
    await closeRedis(listener);
  });

  it('is paused for good though Redis is away, and the answer says that it does not hold yet', async () => {
    const api = await realApi();
    const log = createLog({ level: 'silent', role: 'test' });
    const away = connectRedis({
      url: 'redis://127.0.0.1:1',
      purpose: 'commands',
      name: 'away',
      onError: () => undefined,
    });
    const pausing = createPausing({
      pauses: api.pauses,
      routes: createRoutes({ redis: away, keys: api.keys, log }),
      outbox: createOutbox({ redis: away, from: 'test' }),
      keys: api.keys,
      log,
      now: Date.now,
    });
    expect(await pausing.pause(bkvId, 'admin', null)).toBe(false);
    expect(await api.pauses.find(bkvId)).toMatchObject({ by: 'admin' });
    expect(await pausing.resume(bkvId)).toBe(false);
    expect(await api.pauses.find(bkvId)).toBeNull();
    await closeRedis(away);
  });

  it.each(['pause', 'resume'])('%s is for admins and for known devices', async (verb) => {
    const api = await realApi();
    expect((await api.call('send', 'POST', `${device}/${verb}`)).status).toBe(403);
    const unknown = await api.call('admin', 'POST', `/v1/devices/82200520004870/${verb}`);
    expect([unknown.status, unknown.json.code]).toEqual([404, 'DEVICE_UNKNOWN']);
  });
});

describe('the paused queue', () => {
  it('is paused and resumed as a whole, and the stats say so', async () => {
    const api = await realApi();
    const paused = async () => {
      const { json } = await api.call('read', 'GET', '/v1/stats');
      expect(Value.Check(Stats, json)).toBe(true);
      return json.queue.paused;
    };
    const states = () => Promise.all(api.outbound.queues.map((queue) => queue.isPaused()));
    expect(await paused()).toBe(false);
    expect((await api.call('admin', 'POST', '/v1/queue/pause')).json).toEqual({ paused: true });
    expect([await paused(), await states()]).toEqual([true, [true, true]]);
    expect((await api.call('admin', 'POST', '/v1/queue/resume')).json).toEqual({ paused: false });
    expect([await paused(), await states()]).toEqual([false, [false, false]]);
  });

  it.each(['pause', 'resume'])('%s is for admins', async (verb) => {
    const api = await realApi();
    expect((await api.call('send', 'POST', `/v1/queue/${verb}`)).status).toBe(403);
  });
});
