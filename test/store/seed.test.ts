import { describe, expect, it } from 'vitest';
import { createCommandLog } from '../../src/store/command-log.ts';
import { createDevices } from '../../src/store/devices.ts';
import { createOrders } from '../../src/store/orders.ts';
import { createPorts } from '../../src/store/ports.ts';
import { type SeedProgress, seed } from '../../src/store/seed.ts';
import { freshDatabase } from '../support/stores.ts';
import { freshLedger, ledgerAt } from './fixture.ts';

const now = Date.now();
const dayMs = 86_400_000;

async function counts(url: string) {
  const { pool } = ledgerAt(url);
  const { rows } = await pool.query(
    `SELECT (SELECT count(*) FROM devices)::int AS devices, (SELECT count(*) FROM ports)::int AS ports,
       (SELECT count(*) FROM orders)::int AS orders, (SELECT count(*) FROM command_log)::int AS log,
       (SELECT count(*) FROM command_log_default)::int AS strays`,
  );
  return rows[0];
}

describe('seeding', () => {
  it('makes what was asked for, spread over devices and days, and the same again adds nothing', async () => {
    const { url } = await freshDatabase();
    const wanted = { url, devices: 200, orders: 3_000, log: 6_000, now, days: 10 };
    const progress: SeedProgress[] = [];
    await seed({ ...wanted, onProgress: (step) => progress.push(step) });
    const made = { devices: 200, ports: 1_400, orders: 3_000, log: 6_000, strays: 0 };
    expect(await counts(url)).toEqual(made);
    expect(progress).toContainEqual({ table: 'command_log', done: 6_000, of: 6_000 });
    await seed(wanted);
    expect(await counts(url)).toEqual(made);

    const { database } = ledgerAt(url);
    const recent = await createDevices({ database }).recentlySeen({
      since: now - 300_000,
      limit: 200,
    });
    expect(recent.items.length).toBeGreaterThan(40);
    expect(recent.items.length).toBeLessThan(120);
    const deviceId = '82990000000000';
    expect(await createPorts({ database }).list(deviceId)).toHaveLength(4);
    const orders = await createOrders({ database }).list({ deviceId, limit: 200 });
    expect(orders.items.length).toBeGreaterThan(3_000 / 200);
    const day = { deviceId, from: now - 4 * dayMs, to: now - 3 * dayMs, limit: 200 };
    expect((await createCommandLog({ database }).list(day)).items.length).toBeGreaterThan(0);
  });

  it('refuses a database that is in use, unless told', async () => {
    const { url, database } = await freshLedger();
    await createDevices({ database }).register('82200520004869', 'bkv');
    const wanted = { url, devices: 10, orders: 0, log: 0, now };
    await expect(seed(wanted)).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining('devices'),
    });
    expect(await counts(url)).toMatchObject({ devices: 1 });
    await seed({ ...wanted, besideForeign: true });
    expect(await counts(url)).toMatchObject({ devices: 11 });
  });

  it('refuses numbers that make no sense', async () => {
    const { url } = await freshDatabase();
    const wanted = { url, devices: 10, orders: 0, log: 0, now };
    for (const wrong of [{ devices: 0 }, { orders: -1 }, { log: 0.5 }, { days: 31 }]) {
      await expect(seed({ ...wanted, ...wrong })).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    }
  });
});
