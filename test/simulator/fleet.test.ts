import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createFleet, type Fleet, type FleetOptions } from '../../src/simulator/fleet.ts';
import { type CodecServer, startCodecServer } from './server.ts';

const bkvId = '82200520004869';
const apId = '04ab373b';
const orderNo = 'ORDER-1';
const bound = { timeout: 5000, interval: 5 };

let server: CodecServer;
let fleet: Fleet | undefined;

beforeEach(async () => {
  server = await startCodecServer();
});

afterEach(async () => {
  await fleet?.stop();
  fleet = undefined;
  await server.close();
});

async function started(options: Partial<FleetOptions> = {}): Promise<Fleet> {
  fleet = createFleet({
    host: '127.0.0.1',
    port: server.port,
    devices: [
      { deviceId: bkvId, protocol: 'bkv' },
      { deviceId: apId, protocol: 'ap3000' },
    ],
    startTimeoutMs: 5000,
    ...options,
  });
  await fleet.start();
  return fleet;
}

const start = { socket: 2, port: 0, mode: 'time', minutes: 240 };

describe('a fleet', () => {
  it('logs in devices of both protocols and counts them', async () => {
    const { stats, deviceIds } = await started({ devices: 20, mix: { bkv: 3, ap3000: 1 } });
    expect(stats()).toMatchObject({ devices: 20, connected: 20, loggedIn: 20, socketErrors: 0 });
    expect(server.sessions().sort()).toEqual([...deviceIds].sort());
    expect(deviceIds.filter((id) => id.length === 14)).toHaveLength(15);
  });

  it('holds back connections while as many as it may have wait for their login', async () => {
    server.ignore('heartbeat');
    fleet = createFleet({
      host: '127.0.0.1',
      port: server.port,
      devices: 9,
      mix: { bkv: 1 },
      connectingAtOnce: 3,
      knobs: { loginRepeatMs: 40 },
      startTimeoutMs: 5000,
    });
    const everyone = fleet.start();
    // each of them repeats its login before another one comes
    await vi.waitFor(() => expect(server.heard.length).toBeGreaterThan(6), bound);
    expect(server.sockets.size).toBe(3);
    server.heed();
    await everyone;
    expect(fleet.stats()).toMatchObject({ connects: 9, loggedIn: 9 });
  });

  it('opens an AP3000 connection with the ICCID, then registers and asks for the time', async () => {
    await started({ devices: [{ deviceId: apId, protocol: 'ap3000' }] });
    await vi.waitFor(() => expect(server.heard).toHaveLength(3), bound);
    expect(server.heard.map(({ name }) => name)).toEqual(['iccid', 'register', 'time']);
  });

  it('carries several AP3000 ids on one connection and keeps them apart', async () => {
    const { deviceIds } = await started({ devices: 6, mix: { ap3000: 1 }, perHost: 3 });
    expect(server.sockets.size).toBe(2);
    const [first, second] = deviceIds as [string, string];
    expect(await server.send(second, 'device.locate', { seconds: 3 }, 7)).toMatchObject({
      accepted: true,
    });
    expect(fleet!.log.frames().map(({ deviceId }) => deviceId)).toEqual([second]);
    expect(fleet!.device(first).connection).toBe(fleet!.device(second).connection);
  });

  it('repeats a login until it is answered', async () => {
    server.ignore('heartbeat', 'register');
    const starting = started({ knobs: { loginRepeatMs: 30 } });
    const logins = (name: string) => server.heard.filter((one) => one.name === name).length;
    await vi.waitFor(() => {
      expect(logins('heartbeat')).toBeGreaterThan(1);
      expect(logins('register')).toBeGreaterThan(1);
    }, bound);
    server.heed();
    await starting;
    expect(fleet!.stats().loggedIn).toBe(2);
  });

  it('says which share is missing when a start takes too long', async () => {
    server.ignore('register');
    await expect(started({ startTimeoutMs: 200 })).rejects.toMatchObject({
      code: 'TIMEOUT',
      message: '1 of 2 simulated devices were not logged in within 200 ms',
    });
  });

  it('beats at the interval of its knob', async () => {
    await started({ knobs: { heartbeatMs: 40 } });
    await vi.waitFor(() => {
      const beats = server.heard.filter(({ name }) => name === 'heartbeat');
      expect(beats.filter(({ deviceId }) => deviceId === bkvId).length).toBeGreaterThan(3);
      expect(beats.filter(({ deviceId }) => deviceId === apId).length).toBeGreaterThan(3);
    }, bound);
  });

  it('comes back after the server closed its connections', async () => {
    await started({ knobs: { reconnectMs: [10, 30] } });
    for (const socket of server.sockets) socket.destroy();
    await vi.waitFor(
      () => expect(fleet!.stats()).toMatchObject({ connects: 4, loggedIn: 2 }),
      bound,
    );
    const closes = fleet!.log.entries().filter(({ kind }) => kind === 'close');
    expect(closes).toMatchObject([{ by: 'server' }, { by: 'server' }]);
  });
});

describe('a BKV device', () => {
  it('starts, refuses a second start, reports and stops', async () => {
    await started();
    const device = fleet!.device(bkvId);
    const ack = await server.send(bkvId, 'charge.start', start, 1);
    const businessNo = device.ports[0]!.businessNo;
    expect(ack).toEqual({ accepted: true, result: { businessNo, socket: 2, port: 0 } });
    expect(await server.send(bkvId, 'charge.start', start, 2)).toMatchObject({ accepted: false });
    const state = await server.send(bkvId, 'port.query', { socket: 2 }, 3);
    expect(state).toMatchObject({
      accepted: true,
      result: { socket: 2, holes: [{ port: 0, charging: true, businessNo }, { charging: false }] },
    });
    await vi.waitFor(
      () => expect(server.heard.map(({ name }) => name)).toContain('status.report'),
      bound,
    );
    expect(await server.send(bkvId, 'charge.stop', { socket: 2, port: 0 }, 4)).toMatchObject({
      accepted: true,
    });
    expect(device.ports).toMatchObject([{ socket: 2, port: 0, charging: false }]);
  });

  it.each([
    [
      'tiers.end',
      { mode: 'tiers', amountCents: 5, tiers: [{ powerDeciW: 2000, priceCents: 5, minutes: 9 }] },
    ],
    [
      'fee.end',
      {
        mode: 'fee',
        paidCents: 100,
        serviceFeeBy: 'energy',
        feeTiers: [{ until: '23:59', electricityCents: 50, serviceCents: 50 }],
      },
    ],
    ['charge.end', { mode: 'energy', energyWh: 500 }],
  ])('reports %s after a charge of that kind until it is acknowledged', async (name, mode) => {
    await started({ knobs: { settlementMs: 10, settlementRepeatMs: 40 } });
    server.ignore(name);
    const given = { socket: 1, port: 1, ...mode };
    expect(await server.send(bkvId, 'charge.start', given, 1)).toMatchObject({ accepted: true });
    const device = fleet!.device(bkvId);
    expect(device.endCharge(1, 1)).toBe(true);
    const reports = () => server.heard.filter((one) => one.name === name);
    await vi.waitFor(() => expect(reports().length).toBeGreaterThan(2), bound);
    expect(reports()[0]!.fault).toBeUndefined();
    expect(device.unsettled).toBe(1);
    server.heed();
    await vi.waitFor(() => expect(device.unsettled).toBe(0), bound);
    expect(fleet!.stats().settlementsAcked).toBe(1);
  });

  it('ends a charge by itself when its time is up', async () => {
    await started({ knobs: { chargeMs: 30, settlementMs: 10 } });
    await server.send(bkvId, 'charge.start', start, 1);
    await vi.waitFor(
      () => expect(server.heard.map(({ name }) => name)).toContain('charge.end'),
      bound,
    );
    expect(fleet!.device(bkvId).ports[0]!.charging).toBe(false);
  });

  it('keeps what was set and reads it back', async () => {
    await started();
    const set = { socket: 3, maxMinutes: 77 };
    expect(await server.send(bkvId, 'params.set', set, 1)).toMatchObject({ accepted: true });
    expect(await server.send(bkvId, 'params.read', { socket: 3 }, 2)).toMatchObject({
      accepted: true,
      result: { maxMinutes: 77, highTemperatureC: 85 },
    });
    expect(await server.send(bkvId, 'params.read', { socket: 4 }, 3)).toMatchObject({
      result: { maxMinutes: 600 },
    });
  });
});

describe('an AP3000 device', () => {
  const order = { port: 1, mode: 'time', seconds: 600, orderNo };

  it('starts, refuses the same state, and stops only the order that runs', async () => {
    await started();
    expect(await server.send(apId, 'charge.start', order, 1)).toEqual({
      accepted: true,
      result: { orderNo, port: 1, pendingPorts: 0 },
    });
    expect(await server.send(apId, 'charge.start', order, 2)).toMatchObject({ code: '2' });
    const other = { port: 1, orderNo: 'ANOTHER' };
    expect(await server.send(apId, 'charge.stop', other, 3, 200)).toBeNull();
    expect(fleet!.log.frames().at(-1)).toMatchObject({ intended: 'none', executed: false });
    expect(await server.send(apId, 'charge.stop', { port: 1, orderNo }, 4)).toMatchObject({
      accepted: true,
    });
    expect(fleet!.device(apId).ports).toMatchObject([{ port: 1, charging: false }]);
  });

  it('refuses a port that it does not have', async () => {
    await started();
    const beyond = { ...order, port: 2 };
    expect(await server.send(apId, 'charge.start', beyond, 1)).toMatchObject({ code: '4' });
  });

  it('answers a query with the state of its ports', async () => {
    await started();
    await server.send(apId, 'charge.start', order, 1);
    const state = await server.send(apId, 'port.query', {}, 2);
    expect(state).toMatchObject({ result: { ports: [{ status: 0 }, { status: 1 }] } });
    expect(fleet!.log.frames().at(-1)).toMatchObject({ name: 'port.query', intended: 'ack' });
  });

  it('settles one charge after the other, each until it is acknowledged', async () => {
    await started({ knobs: { settlementMs: 10, settlementRepeatMs: 40 } });
    server.ignore('settlement');
    for (const port of [0, 1]) {
      await server.send(
        apId,
        'charge.start',
        { ...order, port, orderNo: `ORDER-${port}` },
        1 + port,
      );
      fleet!.device(apId).endCharge(port);
    }
    const settled = () => server.heard.filter(({ name }) => name === 'settlement');
    await vi.waitFor(() => expect(settled().length).toBeGreaterThan(2), bound);
    expect(new Set(settled().map(({ fields }) => fields['port']))).toEqual(new Set([0]));
    server.heed();
    await vi.waitFor(() => expect(fleet!.device(apId).unsettled).toBe(0), bound);
    expect(settled().at(-1)!.fields).toMatchObject({ port: 1, stopReason: 3 });
  });

  it('restarts after it has said so', async () => {
    await started({ knobs: { reconnectMs: 10 } });
    expect(await server.send(apId, 'device.restart', {}, 1)).toMatchObject({ accepted: true });
    await vi.waitFor(
      () => expect(fleet!.stats()).toMatchObject({ connects: 3, loggedIn: 2 }),
      bound,
    );
    expect(fleet!.log.entries().at(-1)).toMatchObject({ kind: 'close', by: 'device' });
  });
});
