import type { TSchema } from 'typebox';
import { Value } from 'typebox/value';
import { beforeEach, describe, expect, it } from 'vitest';
import { LogPage, OrderPage, OrderShown, PortPage } from '../../src/api/device-data-schemas.ts';
import { CommandPage, DevicePage } from '../../src/api/schemas.ts';
import { DownlinkError } from '../../src/errors.ts';
import type { LogRow, SightedOrder } from '../../src/store/device-data.ts';
import { ap3000Id, bkvId, buildApi, stop } from './build.ts';
import { type RealApi, realApi } from './real-api.ts';

const now = Date.now();
const iso = (ms: number) => new Date(ms).toISOString();
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

let api: RealApi;
beforeEach(async () => {
  api = await realApi();
});

async function get(path: string, schema?: TSchema) {
  const answer = await api.call('read', 'GET', path);
  if (schema) {
    expect([answer.status, [...Value.Errors(schema, answer.json)]]).toEqual([200, []]);
  }
  return answer;
}

/** All pages, by the cursor of the one before. */
async function pages(path: string, schema: TSchema) {
  const found: Record<string, unknown>[][] = [];
  for (let cursor = ''; found.length < 50; ) {
    const { json } = await get(`${path}${cursor}`, schema);
    found.push(json.items);
    if (json.nextCursor === null) return found;
    cursor = `&cursor=${json.nextCursor}`;
  }
  throw new Error('the pages have no end');
}

const order = (n: number, more: Partial<SightedOrder> = {}): SightedOrder => ({
  kind: 'order',
  deviceId: bkvId,
  orderKey: `key-${n}`,
  socket: 1,
  port: n % 2,
  event: 'started',
  businessNo: String(n),
  orderNo: null,
  source: 'server',
  readings: {},
  at: now - n * 60_000,
  ...more,
});

const entry = (n: number, more: Partial<LogRow> = {}): LogRow => ({
  entryId: `e-${n}`,
  at: now - n * 60_000,
  deviceId: bkvId,
  direction: n % 2 ? 'up' : 'down',
  protocol: 'bkv',
  name: n % 3 ? 'status.report' : 'charge.end',
  weight: 'money',
  msgId: n,
  commandId: null,
  fields: { socket: 1, nested: { n } },
  frame: 'fcff00aa',
  ...more,
});

describe('GET /v1/devices/:id/ports', () => {
  it('tells every port with what was measured last, in its unit', async () => {
    const sighting = { kind: 'port', deviceId: bkvId, socket: 1, code: 1, at: now } as const;
    await api.ports.note([
      { ...sighting, port: 1, state: 'idle', businessNo: null, readings: {} },
      { ...sighting, port: 0, state: 'charging', businessNo: '17', readings: { energyWh: 140 } },
    ]);
    const { json } = await get(`/v1/devices/${bkvId}/ports`, PortPage);
    expect(json.nextCursor).toBeNull();
    expect(json.items).toEqual([
      {
        deviceId: bkvId,
        socket: 1,
        port: 0,
        state: 'charging',
        code: 1,
        businessNo: '17',
        orderNo: null,
        powerW: null,
        voltageV: null,
        currentA: null,
        energyWh: 140,
        durationS: null,
        temperatureC: null,
        updatedAt: iso(now),
      },
      expect.objectContaining({ port: 1, state: 'idle', businessNo: null, energyWh: null }),
    ]);
  });
});

describe('GET /v1/devices/:id/orders and /v1/orders/:id', () => {
  it('come newest first, page by page, each once', async () => {
    await api.orders.note(Array.from({ length: 7 }, (_, n) => order(n)));
    await api.orders.note([order(99, { deviceId: '82200520004870' })]);
    const found = await pages(`/v1/devices/${bkvId}/orders?limit=3`, OrderPage);
    expect(found.map((page) => page.map(({ businessNo }) => businessNo))).toEqual([
      ['0', '1', '2'],
      ['3', '4', '5'],
      ['6'],
    ]);
  });

  it('are filtered by time and status, and show how the charge ended', async () => {
    await api.orders.note(Array.from({ length: 5 }, (_, n) => order(n)));
    await api.orders.note([
      order(2, {
        event: 'ended',
        at: now,
        startedAt: now - hourMs,
        endedAt: now,
        endReason: 'full',
        endCode: 3,
        readings: { energyWh: 512, durationS: 3_600 },
      }),
    ]);
    const range = `from=${iso(now - 3 * 60_000)}&to=${iso(now)}`;
    const some = await get(`/v1/devices/${bkvId}/orders?${range}`, OrderPage);
    expect(some.json.items.map((item: { businessNo: string }) => item.businessNo)).toEqual([
      '1',
      '2',
      '3',
    ]);
    const { json } = await get(`/v1/devices/${bkvId}/orders?status=ended`, OrderPage);
    expect(json.items).toMatchObject([
      {
        businessNo: '2',
        status: 'ended',
        energyWh: 512,
        durationS: 3_600,
        endReason: 'full',
        endCode: 3,
        endedAt: iso(now),
        startedAt: iso(now - hourMs),
      },
    ]);
    const [ended] = json.items;
    expect(ended).not.toHaveProperty('orderKey');
    expect((await get(`/v1/orders/${ended.id}`, OrderShown)).json).toEqual(ended);
    const none = await get('/v1/orders/999999');
    expect([none.status, none.json.code]).toEqual([404, 'NOT_FOUND']);
    expect((await get('/v1/orders/first')).status).toBe(400);
  });
});

describe('GET /v1/devices/:id/log', () => {
  it('tells the frames of the last day, newest first, page by page, with all their bytes', async () => {
    const rows = Array.from({ length: 7 }, (_, n) => entry(n + 1));
    await api.commandLog.add([...rows, entry(0, { entryId: 'old', at: now - dayMs - hourMs })]);
    const found = await pages(`/v1/devices/${bkvId}/log?limit=4`, LogPage);
    expect(found.map((page) => page.map(({ id }) => id))).toEqual([
      ['e-1', 'e-2', 'e-3', 'e-4'],
      ['e-5', 'e-6', 'e-7'],
    ]);
    expect(found[0]?.[0]).toEqual({
      id: 'e-1',
      at: iso(now - 60_000),
      deviceId: bkvId,
      direction: 'up',
      protocol: 'bkv',
      name: 'status.report',
      weight: 'money',
      msgId: 1,
      commandId: null,
      fields: { socket: 1, nested: { n: 1 } },
      frame: 'fcff00aa',
    });
    const before = await get(`/v1/devices/${bkvId}/log?to=${iso(now - dayMs)}`, LogPage);
    expect(before.json.items.map(({ id }: { id: string }) => id)).toEqual(['old']);
  });

  it('is filtered by direction and name', async () => {
    await api.commandLog.add(Array.from({ length: 6 }, (_, n) => entry(n + 1)));
    const path = `/v1/devices/${bkvId}/log?direction=up&name=charge.end`;
    const { json } = await get(path, LogPage);
    expect(json.items.map(({ id }: { id: string }) => id)).toEqual(['e-3']);
  });

  it.each([
    ['a range too long', `from=${iso(now - 40 * dayMs)}`, /from must be at most 31 days before to/],
    ['a range backwards', `from=${iso(now)}&to=${iso(now - 1)}`, /from must be before to/],
    ['what has not come yet', `from=${iso(now + dayMs)}`, /from must be before to/],
    ['no moment', 'from=yesterday', /from must be a moment such as/],
    ['a direction that there is not', 'direction=sideways', /direction/],
    ['too many', 'limit=201', /limit/],
    ['a cursor of another list', 'cursor=WyJhIl0', /cursor is not one of this list/],
  ])('refuses %s with a sentence', async (_name, query, sentence) => {
    const { status, json } = await get(`/v1/devices/${bkvId}/log?${query}`);
    expect([status, json.code]).toEqual([400, 'BAD_REQUEST']);
    expect(json.detail).toMatch(sentence);
  });
});

describe('GET /v1/devices/:id/commands', () => {
  it('lists them as GET /v1/commands does', async () => {
    await api.devices.register(ap3000Id, 'ap3000');
    const sent = await api.call('send', 'POST', '/v1/commands', stop);
    const other = { deviceId: ap3000Id, cmd: '82', payload: '00' };
    expect((await api.call('send', 'POST', '/v1/commands', other)).status).toBe(202);
    await api.ledger.flush();
    const { json } = await get(`/v1/devices/${bkvId.toUpperCase()}/commands?limit=10`, CommandPage);
    expect(json.items).toMatchObject([{ id: sent.json.id, deviceId: bkvId }]);
    expect(json).toEqual((await get(`/v1/commands?deviceId=${bkvId}&limit=10`)).json);
    expect((await get(`/v1/devices/${bkvId}/commands?status=succeeded`)).json.items).toEqual([]);
    expect((await get(`/v1/devices/${bkvId}/commands?status=lost`)).status).toBe(400);
  });
});

describe('GET /v1/devices?online=true', () => {
  it('lists those seen of late that are connected, the latest first, page by page', async () => {
    const id = (n: number) => `822005200048${String(n).padStart(2, '0')}`;
    const seen = (n: number, at: number) => ({ deviceId: id(n), protocol: 'bkv', at, facts: {} });
    await api.devices.seen([
      ...Array.from({ length: 12 }, (_, n) => seen(n, now - n * 1_000)),
      seen(80, now - 6 * 60_000),
    ]);
    const present = [1, 4, 5, 6, 7, 10, 80];
    const beat = JSON.stringify({ at: Date.now(), leaseMs: 60_000 });
    await api.redis.hset(api.keys.gateways(), 'gw-1', beat);
    for (const n of present) {
      const presence = { gatewayId: 'gw-1', epoch: '1', protocol: 'bkv', since: '1' };
      await api.redis.hset(api.keys.presence(id(n)), presence);
    }
    const found = await pages('/v1/devices?online=true&limit=2', DevicePage);
    expect(found.flat().map(({ deviceId }) => deviceId)).toEqual([1, 4, 5, 6, 7, 10].map(id));
    expect(found.every((page) => page.length <= 2)).toBe(true);
    expect(found.flat().every(({ online }) => online === true)).toBe(true);
    const others = await get('/v1/devices?online=true&protocol=ap3000', DevicePage);
    expect(others.json.items).toEqual([]);
  });
});

describe.each(['ports', 'orders', 'log', 'commands'])('what is known of a device: %s', (part) => {
  it('is not told of a device that nobody knows', async () => {
    const { status, json } = await get(`/v1/devices/82200520009999/${part}`);
    expect([status, json.code]).toEqual([404, 'DEVICE_UNKNOWN']);
    const odd = await get(`/v1/devices/nonsense/${part}`);
    expect([odd.status, odd.json.code]).toEqual([400, 'INVALID_DEVICE_ID']);
  });

  it('is empty of one that has just connected', async () => {
    const fresh = buildApi();
    fresh.memory.present.set(bkvId, { gatewayId: 'gw-1', epoch: 1, protocol: 'bkv' });
    const { status, json } = await fresh.call('read', 'GET', `/v1/devices/${bkvId}/${part}`);
    expect([status, json]).toEqual([200, { items: [], nextCursor: null }]);
    await fresh.app.close();
  });

  it('cannot be told while PostgreSQL is away', async () => {
    const away = async () => {
      throw new DownlinkError('LEDGER_UNAVAILABLE', 'PostgreSQL is away');
    };
    const fresh = buildApi({
      ports: { list: away },
      orders: { list: away, find: away },
      commandLog: { list: away },
    });
    await fresh.memory.devices.register(bkvId, 'bkv');
    fresh.book.state.condition = 'away';
    const ask = async () => {
      const { status, json } = await fresh.call('read', 'GET', `/v1/devices/${bkvId}/${part}`);
      return [status, json.code];
    };
    expect(await ask()).toEqual([503, 'LEDGER_UNAVAILABLE']);
    fresh.memory.state.ledger = 'away';
    expect(await ask()).toEqual([503, 'LEDGER_UNAVAILABLE']);
    await fresh.app.close();
  });
});
