import { describe, expect, it } from 'vitest';
import type { SightedOrder } from '../../src/store/device-data.ts';
import { createOrders } from '../../src/store/orders.ts';
import { freshLedger } from './fixture.ts';

const deviceId = '82200520004869';
const dayMs = 86_400_000;
const t0 = 1_790_000_000_000;

function sighted(event: SightedOrder['event'], at: number, wanted: Partial<SightedOrder> = {}) {
  const sighting: SightedOrder = {
    kind: 'order',
    deviceId,
    orderKey: 'b:1:0:104',
    socket: 1,
    port: 0,
    event,
    businessNo: '104',
    orderNo: null,
    source: null,
    readings: {},
    at: t0 + at,
    ...wanted,
  };
  return sighting;
}

async function freshOrders() {
  const { database, pool } = await freshLedger();
  const orders = createOrders({ database });
  const all = async () => (await orders.list({ deviceId, limit: 100 })).items;
  return { orders, all, pool };
}

const session = [
  sighted('started', 0, { source: 'server', commandId: 'c1' }),
  sighted('charging', 60_000, { readings: { powerW: 210, energyWh: 3, durationS: 60 } }),
  sighted('charging', 120_000, { readings: { powerW: 190, energyWh: 7, durationS: 120 } }),
  sighted('ended', 180_000, {
    endedAt: t0 + 179_000,
    readings: { energyWh: 10, durationS: 179 },
    endReason: 'full',
    endCode: 2,
    amountCents: 15,
  }),
];

const sessionRow = {
  era: 1,
  status: 'ended',
  source: 'server',
  commandId: 'c1',
  businessNo: '104',
  startedAt: t0,
  createdAt: t0,
  endedAt: t0 + 179_000,
  energyWh: 10,
  durationS: 179,
  powerW: 190,
  maxPowerW: 210,
  endReason: 'full',
  endCode: 2,
  amountCents: 15,
};

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length === 0) return [[]];
  return items.flatMap((item, index) =>
    permutations(items.toSpliced(index, 1)).map((rest) => [item, ...rest]),
  );
}

describe('an order', () => {
  it('is one row of what a start, reports and the end told, found by its id too', async () => {
    const { orders, all } = await freshOrders();
    for (const sighting of session) await orders.note([sighting]);
    const [row, ...others] = await all();
    expect(others).toEqual([]);
    expect(row).toMatchObject(sessionRow);
    expect(await orders.find(row!.id)).toEqual(row);
    expect(await orders.find(row!.id + 1_000)).toBe(null);
  });

  it('is the same row whatever order its sightings come in, alone or in a batch, once or twice', async () => {
    const { orders, all } = await freshOrders();
    const shuffles = permutations(session);
    for (const [index, order] of shuffles.entries()) {
      const of = (sighting: SightedOrder, way: string) => ({
        ...sighting,
        orderKey: `${way}${index}`,
      });
      for (const sighting of [...order, ...order]) await orders.note([of(sighting, 'alone')]);
      await orders.note([...order, ...order].map((sighting) => of(sighting, 'batch')));
    }
    const rows = [];
    for (let cursor: string | undefined; ; ) {
      const page = await orders.list({ deviceId, limit: 20, ...(cursor && { cursor }) });
      rows.push(...page.items);
      if (page.nextCursor === null) break;
      cursor = page.nextCursor;
    }
    expect(rows).toHaveLength(2 * shuffles.length);
    for (const row of rows) expect(row).toMatchObject(sessionRow);
    expect(await all()).toHaveLength(2 * shuffles.length);
  });

  it('does not change when its settlement is repeated half an hour later', async () => {
    const { orders, all } = await freshOrders();
    await orders.note(session);
    const before = await all();
    await orders.note([
      sighted('ended', 1_980_000, {
        readings: { energyWh: 11, durationS: 200 },
        endReason: 'other',
        endCode: 9,
        amountCents: 20,
      }),
      sighted('charging', 2_000_000, { readings: { powerW: 400, energyWh: 90 } }),
    ]);
    expect(await all()).toEqual(before);
  });

  it('that nobody saw begin is counted back from its end', async () => {
    const { orders, all } = await freshOrders();
    await orders.note([
      sighted('ended', 500_000, { source: 'offline', readings: { durationS: 300 } }),
    ]);
    expect(await all()).toMatchObject([{ startedAt: t0 + 200_000, endedAt: t0 + 500_000 }]);
    await orders.note([sighted('started', 190_000)]);
    expect(await all()).toMatchObject([{ startedAt: t0 + 190_000, createdAt: t0 + 190_000 }]);
  });
});

describe('a business number', () => {
  it('names a new order when it was not heard of for seven days, and the old one just before', async () => {
    const { orders, all } = await freshOrders();
    await orders.note(session);
    await orders.note([sighted('ended', 180_000 + 7 * dayMs - 1, { readings: { energyWh: 99 } })]);
    expect(await all()).toMatchObject([sessionRow]);
    const second = [
      sighted('charging', 180_000 + 7 * dayMs, { readings: { energyWh: 1 } }),
      sighted('ended', 190_000 + 7 * dayMs, { readings: { energyWh: 2 } }),
    ];
    await orders.note(second);
    await orders.note([...session, ...second]);
    expect(await all()).toMatchObject([{ era: 2, status: 'ended', energyWh: 2 }, sessionRow]);
  });

  it('names a new order when a start comes more than a minute after the end', async () => {
    const { orders, all } = await freshOrders();
    await orders.note(session);
    await orders.note([sighted('started', 240_000)]);
    expect(await all()).toHaveLength(1);
    const again = sighted('started', 240_001);
    await orders.note([again, sighted('charging', 250_000, { readings: { powerW: 5 } })]);
    await orders.note([again, ...session]);
    expect(await all()).toMatchObject([
      { era: 2, status: 'charging', powerW: 5, startedAt: t0 + 240_001 },
      sessionRow,
    ]);
  });

  it('goes to the round that a late sighting belongs to', async () => {
    const { orders, all } = await freshOrders();
    const second = sighted('started', 10 * dayMs);
    await orders.note([session[0]!]);
    await orders.note([second]);
    await orders.note([session[3]!]);
    expect(await all()).toMatchObject([
      { era: 2, status: 'started' },
      { era: 1, status: 'ended', energyWh: 10 },
    ]);
  });

  it('opens one new order, however many writers open it at once', async () => {
    const { orders, all } = await freshOrders();
    await orders.note(session);
    const next = Array.from({ length: 8 }, (_, n) => [
      sighted('charging', 30 * dayMs + n, { readings: { energyWh: n } }),
      sighted('started', 30 * dayMs, { orderKey: 'b:1:1:9', port: 1 }),
    ]);
    await Promise.all(next.map((batch, n) => orders.note(n % 2 ? batch : batch.toReversed())));
    const rows = await all();
    expect(rows).toHaveLength(3);
    expect(rows.find(({ era }) => era === 2)).toMatchObject({
      orderKey: 'b:1:0:104',
      energyWh: 7,
      createdAt: t0 + 30 * dayMs,
      updatedAt: t0 + 30 * dayMs + 7,
    });
    expect(rows.find(({ port }) => port === 1)).toMatchObject({ orderKey: 'b:1:1:9', era: 1 });
  });
});

describe('an order number', () => {
  it('names one order for ever, so a settlement that waited for weeks finds it', async () => {
    const { orders, all } = await freshOrders();
    const named = { orderKey: 'o:3:A1', orderNo: 'A1', businessNo: null };
    await orders.note([sighted('started', 0, named)]);
    await orders.note([sighted('ended', 60 * dayMs, { ...named, readings: { energyWh: 4 } })]);
    expect(await all()).toMatchObject([{ orderNo: 'A1', status: 'ended', energyWh: 4 }]);
  });
});

describe('the orders of a device', () => {
  it('come newest first in pages, of a time and of a status', async () => {
    const { orders } = await freshOrders();
    await orders.note(
      Array.from({ length: 25 }, (_, n) =>
        sighted(n % 5 === 0 ? 'ended' : 'charging', Math.floor(n / 2), { orderKey: `k${n}` }),
      ),
    );
    const seen: number[] = [];
    let cursor: string | null = null;
    do {
      const page: Awaited<ReturnType<typeof orders.list>> = await orders.list({
        deviceId,
        limit: 10,
        ...(cursor && { cursor }),
      });
      seen.push(...page.items.map(({ id }) => id));
      cursor = page.nextCursor;
    } while (cursor);
    expect(new Set(seen).size).toBe(25);
    const range = await orders.list({ deviceId, from: t0 + 2, to: t0 + 4, limit: 50 });
    expect(range.items.map(({ createdAt }) => createdAt - t0)).toEqual([3, 3, 2, 2]);
    const ended = await orders.list({ deviceId, status: 'ended', limit: 50 });
    expect(ended.items.map(({ orderKey }) => orderKey)).toEqual(['k20', 'k15', 'k10', 'k5', 'k0']);
    await expect(orders.list({ deviceId, limit: 201 })).rejects.toMatchObject({
      code: 'BAD_REQUEST',
    });
    await expect(orders.list({ deviceId, limit: 1, cursor: 'x' })).rejects.toMatchObject({
      code: 'BAD_REQUEST',
    });
  });

  it('are noted also when one sighting among them can never be', async () => {
    const { orders, all } = await freshOrders();
    const poison = sighted('charging', 0, { orderKey: 'bad', endCode: 0.5 });
    await expect(
      orders.note([sighted('started', 0), poison, sighted('started', 1, { orderKey: 'z' })]),
    ).rejects.toMatchObject({ code: 'INTERNAL', message: expect.stringContaining('order bad') });
    expect(await all()).toHaveLength(2);
  });
});
