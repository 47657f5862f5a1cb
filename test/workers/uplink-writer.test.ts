import { describe, expect, it } from 'vitest';
import type { Report } from '../../src/bridge/gateway-bridge.ts';
import type { StreamEntry } from '../../src/bridge/stream-reader.ts';
import { DownlinkError } from '../../src/errors.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import type { DoneCommand, Observation } from '../../src/protocols/protocol.ts';
import type { Sighting } from '../../src/protocols/sighting.ts';
import { createCommandLog } from '../../src/store/command-log.ts';
import { createDevices } from '../../src/store/devices.ts';
import { createOrders } from '../../src/store/orders.ts';
import { createPorts } from '../../src/store/ports.ts';
import { createReports } from '../../src/store/reports.ts';
import { createUplinkWriter, type UplinkWriterDeps } from '../../workers/uplink-writer.ts';
import { freshLedger, quietLog } from '../store/fixture.ts';

const deviceId = '82200520004869';
const t0 = 1_790_000_000_000;

/** Tells of port and order whatever its reports say in so many words. */
const plain = {
  name: 'plain',
  sightings: ({ fields }: Observation) => (fields['tells'] ?? []) as Sighting[],
  sightingsOfResult: ({ commandId, params, at }: DoneCommand): Sighting[] => [
    {
      kind: 'order',
      orderKey: String(params['key']),
      socket: 0,
      port: 1,
      event: 'started',
      businessNo: null,
      orderNo: String(params['key']),
      source: 'server',
      startedAt: at,
      readings: {},
      commandId,
    },
  ],
};

function entry(n: number, wanted: Partial<Report> = {}): StreamEntry {
  const report: Report = {
    deviceId,
    protocol: 'plain',
    name: 'status',
    weight: 'state',
    at: t0 + n,
    msgId: n,
    fields: {},
    frame: 'fcfe',
    ...wanted,
  };
  return { entryId: `${t0}-${n}`, text: JSON.stringify(report) };
}

async function rig(wanted: (deps: UplinkWriterDeps) => Partial<UplinkWriterDeps> = () => ({})) {
  const { database } = await freshLedger();
  const deps: UplinkWriterDeps = {
    devices: createDevices({ database }),
    reports: createReports({ database }),
    ports: createPorts({ database }),
    orders: createOrders({ database }),
    protocols: [plain],
    metrics: createMetrics('worker'),
    log: quietLog,
  };
  const writer = createUplinkWriter({ ...deps, ...wanted(deps) });
  const log = createCommandLog({ database });
  return {
    handle: (entries: StreamEntry[]) => writer.handle(entries),
    device: () => createDevices({ database }).find(deviceId),
    ports: () => createPorts({ database }).list(deviceId),
    orders: async () => (await createOrders({ database }).list({ deviceId, limit: 50 })).items,
    log: async () =>
      (await log.list({ deviceId, from: t0 - 1, to: t0 + 1e9, limit: 200 })).items.map(
        ({ msgId }) => msgId,
      ),
  };
}

const port = { kind: 'port', socket: 0, port: 1, state: 'charging', code: 1, readings: {} };
const order = {
  kind: 'order',
  orderKey: 'A1',
  socket: 0,
  port: 1,
  businessNo: null,
  orderNo: 'A1',
  source: null,
};

describe('the uplink writer', () => {
  it('makes log, device, ports and orders of a batch, and the same of the same batch again', async () => {
    const { handle, device, ports, orders, log } = await rig();
    const batch = [
      entry(1, { weight: 'heartbeat', fields: { iccid: '89', noise: 1, tells: [port] } }),
      entry(2, {
        name: 'command.succeeded',
        weight: 'money',
        frame: '',
        fields: { commandId: 'c1', command: 'charge.start', params: { key: 'A1' }, result: null },
      }),
      entry(3, { fields: { tells: [{ ...order, event: 'charging', readings: { powerW: 90 } }] } }),
      entry(4, {
        weight: 'money',
        fields: { tells: [{ ...order, event: 'ended', readings: { energyWh: 40 } }] },
      }),
    ];
    const expected = async () => {
      expect(await log()).toEqual([4, 3]);
      expect(await device()).toMatchObject({ lastSeenAt: t0 + 4, facts: { iccid: '89' } });
      expect(await ports()).toMatchObject([{ state: 'charging', updatedAt: t0 + 1 }]);
      expect(await orders()).toMatchObject([
        {
          status: 'ended',
          commandId: 'c1',
          startedAt: t0 + 2,
          endedAt: t0 + 4,
          energyWh: 40,
          maxPowerW: 90,
        },
      ]);
    };
    expect(await handle(batch)).toEqual(new Set());
    await expected();
    await handle(batch);
    for (const one of batch.toReversed()) await handle([one]);
    await expected();
  });

  it('passes over what it cannot read, and what a command says that it cannot', async () => {
    const { handle, log, orders } = await rig();
    const strange = { entryId: '1-1', text: '{"deviceId":' };
    const half = entry(2, { name: 'command.succeeded', weight: 'money', fields: { command: 5 } });
    await handle([strange, half, entry(3), entry(4, { protocol: 'unheard-of' })]);
    expect(await log()).toEqual([4, 3]);
    expect(await orders()).toEqual([]);
  });

  it('gives the whole batch back while the ledger is away, whichever part of it failed', async () => {
    let away = true;
    const { handle, orders, log } = await rig(({ orders: held }) => ({
      orders: {
        async note(sightings) {
          if (away) throw new DownlinkError('LEDGER_UNAVAILABLE', 'PostgreSQL is away');
          await held?.note(sightings);
        },
      },
    }));
    const batch = [entry(1, { fields: { tells: [{ ...order, event: 'started', readings: {} }] } })];
    await expect(handle(batch)).rejects.toMatchObject({ code: 'LEDGER_UNAVAILABLE' });
    away = false;
    await handle(batch);
    expect(await orders()).toHaveLength(1);
    expect(await log()).toEqual([1]);
  });

  it('stores all but what can never be stored', async () => {
    const { handle, ports, log } = await rig();
    const impossible = { ...port, socket: 0.5 };
    await handle([entry(1, { fields: { tells: [impossible, port] } }), entry(2)]);
    expect(await ports()).toHaveLength(1);
    expect(await log()).toEqual([2, 1]);
  });

  it('writes a device that keeps talking every half minute, not every time', async () => {
    const written: number[] = [];
    const { handle } = await rig(({ devices }) => ({
      devices: {
        async seen(sightings) {
          written.push(...sightings.map(({ at }) => at - t0));
          await devices.seen(sightings);
        },
      },
    }));
    for (let at = 0; at <= 65_000; at += 5_000) {
      await handle([entry(at, { weight: 'heartbeat', fields: { csq: 20 } })]);
    }
    expect(written).toEqual([0, 30_000, 60_000]);
  });
});
