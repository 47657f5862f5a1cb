import { Value } from 'typebox/value';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DevicePage, DeviceShown, ProtocolList, Stats } from '../../src/api/schemas.ts';
import { protocols } from '../../src/protocols/index.ts';
import { ap3000Id, bkvId, buildApi, stop } from './build.ts';

let api: ReturnType<typeof buildApi>;

beforeEach(() => {
  api = buildApi();
});
afterEach(() => api.app.close());

const put = (id: string, body?: unknown) => api.call('admin', 'PUT', `/v1/devices/${id}`, body);

describe('PUT /v1/devices/:id', () => {
  it.each([
    [bkvId, 'bkv', bkvId],
    ['04AB373B', 'ap3000', ap3000Id],
  ])('knows the protocol of %s by its form', async (id, protocol, deviceId) => {
    const first = await put(id);
    expect(first.status).toBe(201);
    expect(first.json).toEqual({
      deviceId,
      protocol,
      online: false,
      gatewayId: null,
      lastSeenAt: null,
      firstSeenAt: null,
      facts: {},
      paused: null,
    });
    expect(Value.Check(DeviceShown, first.json)).toBe(true);
    expect((await put(id, {})).status).toBe(200);
  });

  it('takes the protocol that fits, and refuses one that does not', async () => {
    const wrong = await put(bkvId, { protocol: 'ap3000' });
    expect([wrong.status, wrong.json.code]).toEqual([422, 'INVALID_PARAMS']);
    expect(wrong.json.errors[0].path).toBe('protocol');
    expect(api.memory.known.size).toBe(0);
    expect((await put(bkvId, { protocol: 'bkv' })).status).toBe(201);
  });

  it.each(['xyz', '00000000000000', 'ffffffffffffff'])('refuses the id %s', async (id) => {
    const answer = await put(id);
    expect([answer.status, answer.json.code]).toEqual([400, 'INVALID_DEVICE_ID']);
  });

  it('refuses fields it does not know', async () => {
    const answer = await put(bkvId, { protocol: 'bkv', owner: 'me' });
    expect([answer.status, answer.json.code]).toEqual([400, 'BAD_REQUEST']);
    expect(answer.json.errors[0].path).toBe('owner');
  });

  it('makes a device that can be commanded at once', async () => {
    await put(bkvId);
    expect((await api.call('send', 'POST', '/v1/commands', stop)).status).toBe(202);
  });
});

describe('GET /v1/devices', () => {
  beforeEach(async () => {
    await put(bkvId);
    await put(ap3000Id);
    api.memory.present.set(ap3000Id, { gatewayId: 'gw-1', epoch: 1, protocol: 'ap3000' });
    const seen = api.memory.known.get(ap3000Id);
    if (seen) seen.lastSeenAt = Date.now();
  });
  const ids = (items: { deviceId: string }[]) => items.map(({ deviceId }) => deviceId);

  it('shows who is online, and where', async () => {
    const { json } = await api.call('read', 'GET', '/v1/devices');
    expect(Value.Check(DevicePage, json)).toBe(true);
    expect(json.items).toMatchObject([
      { deviceId: bkvId, online: false, gatewayId: null },
      { deviceId: ap3000Id, online: true, gatewayId: 'gw-1' },
    ]);
  });

  it('filters by presence', async () => {
    const online = await api.call('read', 'GET', '/v1/devices?online=true');
    const offline = await api.call('read', 'GET', '/v1/devices?online=false');
    expect([ids(online.json.items), ids(offline.json.items)]).toEqual([[ap3000Id], [bkvId]]);
  });

  it('says that nobody can tell while Redis is away', async () => {
    api.memory.state.redis = 'away';
    const all = await api.call('read', 'GET', '/v1/devices');
    expect(all.json.items).toMatchObject([{ online: null }, { online: null }]);
    const online = await api.call('read', 'GET', '/v1/devices?online=true');
    expect([online.status, online.json.code]).toEqual([503, 'STORE_UNAVAILABLE']);
  });
});

describe('GET /v1/devices/:id', () => {
  it('knows a connected device that the ledger has not seen, or cannot show', async () => {
    api.memory.present.set(bkvId, { gatewayId: 'gw-1', epoch: 1, protocol: 'bkv' });
    const unseen = await api.call('read', 'GET', `/v1/devices/${bkvId}`);
    expect(unseen.json).toMatchObject({ protocol: 'bkv', online: true, gatewayId: 'gw-1' });
    api.memory.state.ledger = 'away';
    expect((await api.call('read', 'GET', `/v1/devices/${bkvId}`)).status).toBe(200);
  });

  it('does not call a device unknown while the ledger is away', async () => {
    api.memory.state.ledger = 'away';
    const answer = await api.call('read', 'GET', `/v1/devices/${bkvId}`);
    expect([answer.status, answer.json.code]).toEqual([503, 'LEDGER_UNAVAILABLE']);
  });
});

describe('GET /v1/protocols', () => {
  it('shows every command of every protocol with the schema of its params', async () => {
    const { json } = await api.call('read', 'GET', '/v1/protocols');
    expect(Value.Check(ProtocolList, json)).toBe(true);
    expect(json.items.map(({ name }: { name: string }) => name)).toEqual(['bkv', 'ap3000']);
    for (const [i, { commands }] of protocols.entries()) {
      const shown = json.items[i].commands as { name: string; params: { type: string } }[];
      expect(shown.map(({ name }) => name)).toEqual(Object.keys(commands));
      for (const { params } of shown) expect(params.type).toBe('object');
    }
  });
});

describe('operation', () => {
  it('GET /v1/stats counts the queue', async () => {
    await put(bkvId);
    await api.call('send', 'POST', '/v1/commands', stop);
    const { json } = await api.call('read', 'GET', '/v1/stats');
    expect(json).toEqual({
      queue: { waiting: 1, pending: 0, dead: 0, paused: false },
      devices: { paused: 0 },
    });
    expect(Value.Check(Stats, json)).toBe(true);
  });

  it('is ready while one store takes commands, and lives in any case', async () => {
    const health = async () => {
      const fresh = buildApi();
      fresh.book.state.condition = api.book.state.condition;
      fresh.queue.state.condition = api.queue.state.condition;
      const [live, ready] = [
        await fresh.call('nobody', 'GET', '/health/live'),
        await fresh.call('nobody', 'GET', '/health/ready'),
      ];
      await fresh.app.close();
      expect([live.status, live.json]).toEqual([200, { alive: true }]);
      return [ready.status, ready.json];
    };
    const healthy = [200, { status: 'healthy', ready: true }];
    expect(await health()).toEqual(healthy);
    api.book.state.condition = 'away';
    expect(await health()).toEqual(healthy);
    api.queue.state.condition = 'away';
    expect(await health()).toEqual([503, { status: 'unhealthy', ready: false }]);
    api.book.state.condition = 'well';
    expect(await health()).toEqual(healthy);
  });

  it('GET /metrics counts requests by route, not by URL', async () => {
    await api.call('read', 'GET', `/v1/devices/${bkvId}`);
    const { text } = await api.call('nobody', 'GET', '/metrics');
    expect(text).toContain('route="/v1/devices/:id"');
    expect(text).not.toContain(bkvId);
  });
});
