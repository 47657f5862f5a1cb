/** Charging sessions, frame by frame over real sockets, and the orders and ports that they leave behind. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import {
  ap3000Patched,
  ap3000Sealed,
  ap3000Size,
  bkvPatched,
  bkvSealed,
  bkvSize,
  connectPlain,
  type PlainDevice,
} from '../support/plain-device.ts';
import { type Stack, startStack } from '../support/stack.ts';

const vendorFrames = JSON.parse(
  readFileSync(join(import.meta.dirname, '../frames/vendor_frames.json'), 'utf8'),
) as { name: string; hex: string }[];
const vendor = (name: string) => vendorFrames.find((frame) => frame.name === name)!.hex;

let stack: Stack;
const devices: PlainDevice[] = [];

beforeAll(async () => {
  stack = await startStack();
});
afterEach(async () => {
  await Promise.all(devices.splice(0).map((device) => device.close()));
});
afterAll(() => stack?.stop());

type Shown = { items: Record<string, unknown>[] };

async function list(path: string): Promise<Record<string, unknown>[]> {
  const { status, body } = await stack.api.request('GET', path);
  expect(status).toBe(200);
  return (body as Shown).items;
}

/** The device's orders, once they are as many and the newest is of that status. */
function ordersOf(deviceId: string, count: number, status: string) {
  return eventually(async () => {
    const orders = await list(`/v1/devices/${deviceId}/orders`);
    expect(orders).toHaveLength(count);
    expect(orders[0]?.['status']).toBe(status);
    return orders;
  });
}

/** How often a report of that name stands in the device's log. */
async function logged(deviceId: string, name: string): Promise<number> {
  return (await list(`/v1/devices/${deviceId}/log?name=${name}`)).length;
}

test('a BKV charge, started over the API and told twice at its end, is one order', async () => {
  const deviceId = '82200520007001';
  const device = await connectPlain(stack.tcp, bkvSize);
  devices.push(device);
  device.send(bkvPatched(vendor('heartbeat.up'), deviceId));
  await device.frame();
  const params = { socket: 2, port: 0, mode: 'time', minutes: 240 };
  const asked = stack.api.send({ deviceId, command: 'charge.start', params }, 10_000);
  const frame = await device.frame();
  device.send(bkvSealed(bkvPatched(vendor('control_07.reply'), deviceId, frame.slice(12, 20))));
  const { id, status } = await asked;
  expect(status).toBe('succeeded');
  const [begun] = await ordersOf(deviceId, 1, 'started');
  expect(begun).toMatchObject({ businessNo: '104', socket: 2, port: 0, commandId: id });

  const end = bkvPatched(vendor('charge_end_02.up'), deviceId);
  device.send(end);
  await device.frame();
  device.send(end);
  await device.frame();
  const [order] = await ordersOf(deviceId, 1, 'ended');
  // 0x0050 Wh and 0x002d minutes; status 98: no load.
  expect(order).toMatchObject({
    id: begun!['id'],
    businessNo: '104',
    energyWh: 80,
    durationS: 45 * 60,
    endReason: 'no-load',
    commandId: id,
    source: 'server',
  });
  await eventually(async () => expect(await logged(deviceId, 'charge.end')).toBe(2));
  expect(await list(`/v1/devices/${deviceId}/orders`)).toHaveLength(1);
});

test('an AP3000 charge, with power reports and a settlement that is repeated, is one order', async () => {
  const deviceId = '04ab3771';
  const orderNo = '20190901180000130030380102030405';
  const device = await connectPlain(stack.tcp, ap3000Size);
  devices.push(device);
  device.send(ap3000Patched(vendor('register_20.up'), deviceId));
  await device.frame();
  const params = { port: 1, mode: 'time', seconds: 3600, orderNo, balanceCents: 356 };
  const asked = stack.api.send({ deviceId, command: 'charge.start', params }, 15_000);
  const frame = await device.frame();
  const answer = ap3000Patched(vendor('charge_82.ack'), deviceId, frame.slice(18, 22));
  // cmd, then result, order number, port, pending ports
  device.send(ap3000Sealed(`${answer.slice(0, 24)}00${orderNo}01${answer.slice(60)}`));
  const { id, status } = await asked;
  expect(status).toBe('succeeded');
  const [begun] = await ordersOf(deviceId, 1, 'started');
  expect(begun).toMatchObject({ orderNo, port: 1, commandId: id });

  device.send(ap3000Patched(vendor('power_06.up'), deviceId));
  await ordersOf(deviceId, 1, 'charging');
  device.send(ap3000Patched(vendor('settlement_03.up'), deviceId));
  await device.frame();
  // Its repetition half an hour later has a message id of its own.
  device.send(ap3000Patched(vendor('settlement_03.up'), deviceId, '7777'));
  await device.frame();
  const [order] = await ordersOf(deviceId, 1, 'ended');
  // 0x0e10 s, 0x0030 × 10 Wh, 0x03e8 × 0.1 W; stop reason 01: full.
  expect(order).toMatchObject({
    id: begun!['id'],
    orderNo,
    port: 1,
    energyWh: 480,
    durationS: 3_600,
    maxPowerW: 100,
    endReason: 'full',
    commandId: id,
    source: 'server',
  });
  await eventually(async () => expect(await logged(deviceId, 'settlement')).toBe(2));
  expect(await list(`/v1/devices/${deviceId}/orders`)).toHaveLength(1);
});

test('a charge that nobody here started is an order all the same, and the ports are known', async () => {
  const deviceId = '04ab3772';
  const device = await connectPlain(stack.tcp, ap3000Size);
  devices.push(device);
  device.send(ap3000Patched(vendor('register_20.up'), deviceId));
  await device.frame();
  device.send(ap3000Patched(vendor('heartbeat_21.up'), deviceId));
  await device.frame();
  // Start source 0: a card, offline.
  const settlement = vendor('settlement_03.up').replace('0330000101', '0330000100');
  expect(settlement).not.toBe(vendor('settlement_03.up'));
  device.send(ap3000Patched(settlement, deviceId));
  await device.frame();
  const [order] = await ordersOf(deviceId, 1, 'ended');
  expect(order).toMatchObject({ source: 'offline', energyWh: 480, commandId: null });
  const ports = await eventually(async () => {
    const shown = await list(`/v1/devices/${deviceId}/ports`);
    expect(shown.length).toBeGreaterThan(1);
    return shown;
  });
  expect(ports.map(({ port, state }) => [port, state])).toEqual([
    [0, 'idle'],
    [1, 'idle'],
  ]);
});
