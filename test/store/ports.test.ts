import { describe, expect, it } from 'vitest';
import type { SightedPort } from '../../src/store/device-data.ts';
import { createPorts } from '../../src/store/ports.ts';
import { freshLedger } from './fixture.ts';

const deviceId = '82200520004869';

function sighted(at: number, wanted: Partial<SightedPort> = {}): SightedPort {
  return {
    kind: 'port',
    deviceId,
    socket: 1,
    port: 0,
    state: 'charging',
    code: 0x90,
    readings: {},
    at,
    ...wanted,
  };
}

async function freshPorts() {
  const { database, pool } = await freshLedger();
  return { ports: createPorts({ database }), pool };
}

describe('the ports of a device', () => {
  it('stand by socket and port, null where nobody told', async () => {
    const { ports } = await freshPorts();
    await ports.note([
      sighted(5, { socket: 2, readings: { powerW: 120.5, durationS: 60 }, businessNo: '104' }),
      sighted(5, { port: 1, state: 'idle', code: null }),
      sighted(5, { deviceId: 'another' }),
    ]);
    const unknown = {
      businessNo: null,
      orderNo: null,
      powerW: null,
      voltageV: null,
      currentA: null,
      energyWh: null,
      durationS: null,
      temperatureC: null,
    };
    const common = { ...unknown, deviceId, updatedAt: 5 };
    expect(await ports.list(deviceId)).toEqual([
      { ...common, socket: 1, port: 1, state: 'idle', code: null },
      {
        ...common,
        socket: 2,
        port: 0,
        state: 'charging',
        code: 0x90,
        businessNo: '104',
        powerW: 120.5,
        durationS: 60,
      },
    ]);
  });

  it('show the newest sighting, whatever order and batches they come in', async () => {
    const history = [
      sighted(1, { readings: { powerW: 90, voltageV: 229 }, businessNo: '7' }),
      sighted(2, { state: 'idle', code: 1 }),
      sighted(3, { businessNo: '8' }),
      sighted(4, { readings: { powerW: 100 } }),
    ];
    const expected = {
      state: 'charging',
      powerW: 100,
      voltageV: null,
      businessNo: '8',
      updatedAt: 4,
    };
    for (const order of [history, history.toReversed(), [...history, ...history]]) {
      const { ports } = await freshPorts();
      await ports.note(order);
      expect(await ports.list(deviceId)).toMatchObject([expected]);
      await ports.note(order);
      expect(await ports.list(deviceId)).toMatchObject([expected]);
    }
    const { ports } = await freshPorts();
    for (const sighting of history) await ports.note([sighting]);
    expect(await ports.list(deviceId)).toMatchObject([expected]);
    for (const sighting of history.slice(0, 3).toReversed()) await ports.note([sighting]);
    expect(await ports.list(deviceId)).toMatchObject([expected]);
  });

  it('forget a number when the device says that there is none, not when it does not say', async () => {
    const { ports } = await freshPorts();
    await ports.note([sighted(1, { businessNo: '7', orderNo: 'A' })]);
    await ports.note([sighted(2, { businessNo: null })]);
    expect(await ports.list(deviceId)).toMatchObject([{ businessNo: null, orderNo: 'A' }]);
  });

  it('are noted by many writers at once', async () => {
    const { ports } = await freshPorts();
    const many = Array.from({ length: 600 }, (_, n) =>
      sighted(1_000 + n, { socket: 1 + (n % 250), port: n % 2, readings: { powerW: n } }),
    );
    await Promise.all([
      ports.note(many),
      ports.note(many.toReversed()),
      ports.note(many.slice(300)),
    ]);
    const listed = await ports.list(deviceId);
    expect(listed).toHaveLength(250);
    expect(Math.max(...listed.map(({ updatedAt }) => updatedAt))).toBe(1_599);
  });

  it('are noted also when one sighting among them can never be', async () => {
    const { ports } = await freshPorts();
    const poison = sighted(2, { port: 1.5 });
    await expect(ports.note([sighted(1), poison, sighted(1, { socket: 9 })])).rejects.toMatchObject(
      {
        code: 'INTERNAL',
        message: expect.stringContaining('port 1/1.5'),
      },
    );
    expect((await ports.list(deviceId)).map(({ socket }) => socket)).toEqual([1, 9]);
  });
});
