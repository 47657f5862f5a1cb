/** Charges from the frames of their devices to the rows that operators read: whole sessions, repetitions included. */

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Json } from '../support/api-client.ts';
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
import { vendor } from '../support/vendor-frames.ts';

let stack: Stack;
const devices: PlainDevice[] = [];

beforeAll(async () => {
  stack = await startStack();
});

afterEach(async () => {
  await Promise.all(devices.splice(0).map((device) => device.close()));
});

afterAll(() => stack?.stop());

const ms = (time: unknown) => Date.parse(String(time));

async function items(path: string): Promise<Json[]> {
  const { status, body } = await stack.reader.request('GET', path);
  expect(status).toBe(200);
  return body['items'];
}

const ordersOf = (deviceId: string) => items(`/v1/devices/${deviceId}/orders?limit=200`);

async function portOf(deviceId: string, socket: number, port: number): Promise<Json | undefined> {
  const ports = await items(`/v1/devices/${deviceId}/ports`);
  return ports.find((one) => one['socket'] === socket && one['port'] === port);
}

/** The frames of a device in the command log under this name. */
const logged = (deviceId: string, name: string) =>
  items(`/v1/devices/${deviceId}/log?limit=200&name=${name}`);

function word(value: number): string {
  return value.toString(16).padStart(4, '0');
}

describe('a BKV device', () => {
  const socket = 2;
  const businessNo = '0068';
  let number = 0;

  async function loggedIn() {
    const deviceId = `8220052100${String(++number).padStart(4, '0')}`;
    const device = await connectPlain(stack.tcp, bkvSize);
    devices.push(device);
    device.send(bkvPatched(vendor('heartbeat.up'), deviceId));
    await device.frame();
    return { device, deviceId };
  }

  /** The vendor's status report, of socket 2, with the first hole as it is given here. */
  function statusReport(
    deviceId: string,
    hole: { status: string; businessNo: string; deciW: number; wh: number; min: number },
  ): string {
    const frame = vendor('status_report_1017.up')
      .replaceAll('82231214002700', deviceId)
      .replace('03014a01', `03014a${socket.toString(16).padStart(2, '0')}`)
      .replace(
        '030108000301098004010a000004019508e304010b000004010c000104010d000004010e0000',
        `03010800030109${hole.status}04010a${hole.businessNo}04019508e304010b${word(hole.deciW)}` +
          `04010c000104010d${word(hole.wh)}04010e${word(hole.min)}`,
      );
    return bkvSealed(frame);
  }

  /** Sends a report that has to be answered, and takes the answer off the socket. */
  async function answered(device: PlainDevice, frame: string): Promise<string> {
    device.send(frame);
    return device.frame();
  }

  test('a charge is one order, whatever is repeated: energy, duration, end, number and command', async () => {
    const { device, deviceId } = await loggedIn();
    const start = { socket, port: 0, mode: 'time', minutes: 240 };
    const asked = stack.api.send({ deviceId, command: 'charge.start', params: start }, 10_000);
    const order = await device.frame();
    device.send(bkvPatched(vendor('control_07.reply'), deviceId, order.slice(12, 20)));
    const { id, status } = await asked;
    expect(status).toBe('succeeded');

    // The start alone makes the order.
    await eventually(async () => {
      const shown = await ordersOf(deviceId);
      expect(shown).toMatchObject([
        { status: 'started', businessNo: '104', orderNo: null, commandId: id, source: 'server' },
      ]);
    });

    const charging = { status: '90', businessNo, deciW: 1234, wh: 61, min: 30 };
    await answered(device, statusReport(deviceId, charging));
    await eventually(async () => {
      expect(await portOf(deviceId, socket, 0)).toMatchObject({
        state: 'charging',
        businessNo: '104',
        powerW: 123.4,
        voltageV: 227.5,
        energyWh: 61,
        durationS: 1800,
      });
      expect(await ordersOf(deviceId)).toMatchObject([{ status: 'charging', energyWh: 61 }]);
    });

    // The vendor's end: socket 2, hole A, number 0068, 80 Wh in 45 minutes, no load.
    const end = bkvPatched(vendor('charge_end_02.up'), deviceId);
    const repeated = bkvPatched(vendor('charge_end_02.up'), deviceId, '0000002a');
    const acks = [];
    for (const frame of [end, end, repeated]) acks.push(await answered(device, frame));
    // 0002 0C: the socket, and that it is stored.
    for (const ack of acks) expect(ack.slice(36, 46)).toBe('00020c0201');
    await eventually(async () => expect(await logged(deviceId, 'charge.end')).toHaveLength(3));

    const idle = { status: '80', businessNo: '0000', deciW: 0, wh: 0, min: 0 };
    await answered(device, statusReport(deviceId, idle));
    await eventually(async () => {
      expect(await portOf(deviceId, socket, 0)).toMatchObject({ state: 'idle', businessNo: null });
    });

    const [shown, ...others] = await ordersOf(deviceId);
    expect(others).toEqual([]);
    expect(shown).toMatchObject({
      deviceId,
      socket,
      port: 0,
      businessNo: '104',
      orderNo: null,
      status: 'ended',
      source: 'server',
      energyWh: 80,
      durationS: 2_700,
      maxPowerW: 123.4,
      endReason: 'no-load',
      endCode: 0x98,
      commandId: id,
    });
    // The end of the charge is that of its first report, and its beginning the one that the device counts from.
    const reports = await logged(deviceId, 'charge.end');
    expect(ms(shown!['endedAt'])).toBe(Math.min(...reports.map(({ at }) => ms(at))));
    expect(ms(shown!['endedAt']) - ms(shown!['startedAt'])).toBe(2_700_000);
  });

  test('an end whose start nobody told is an order too, and the next number is the next order', async () => {
    const { device, deviceId } = await loggedIn();
    const first = bkvPatched(vendor('charge_end_02.up'), deviceId);
    const second = bkvSealed(first.replace('980068', '980069'));
    expect(second).not.toBe(first);
    await answered(device, first);
    await answered(device, second);
    await answered(device, first);
    await eventually(async () => expect(await logged(deviceId, 'charge.end')).toHaveLength(3));
    const shown = await ordersOf(deviceId);
    expect(shown.map((order) => order['businessNo']).sort()).toEqual(['104', '105']);
    for (const order of shown) {
      expect(order).toMatchObject({
        status: 'ended',
        energyWh: 80,
        durationS: 2_700,
        endReason: 'no-load',
        source: null,
        commandId: null,
      });
    }
  });
});

describe('an AP3000 device', () => {
  const orderNo = '20190901180000130030380102030405';
  let number = 0;

  async function registered() {
    const deviceId = `04ab39${(++number).toString(16).padStart(2, '0')}`;
    const device = await connectPlain(stack.tcp, ap3000Size);
    devices.push(device);
    device.send(ap3000Patched(vendor('register_20.up'), deviceId));
    await device.frame();
    return { device, deviceId };
  }

  /** Sends a settlement and takes its answer, which has to carry the same message id. */
  async function settle(device: PlainDevice, frame: string): Promise<void> {
    device.send(frame);
    const ack = await device.frame();
    expect(ack.slice(18, -4)).toBe(`${frame.slice(18, 22)}0300`);
  }

  test('a charge is one order, whatever is repeated: energy, duration, end, number and command', async () => {
    const { device, deviceId } = await registered();
    // Port and number are those of the vendor's reports.
    const params = { port: 1, mode: 'time', seconds: 3600, orderNo };
    const asked = stack.api.send({ deviceId, command: 'charge.start', params }, 10_000);
    const order = await device.frame();
    const answer = ap3000Patched(vendor('charge_82.ack'), deviceId, order.slice(18, 22));
    device.send(ap3000Sealed(`${answer.slice(0, 26)}${orderNo}${answer.slice(58)}`));
    const { id, status, result } = await asked;
    expect(status).toBe('succeeded');
    expect(result).toMatchObject({ orderNo, port: 1 });
    await eventually(async () => {
      expect(await ordersOf(deviceId)).toMatchObject([
        { status: 'started', orderNo, businessNo: null, commandId: id, source: 'server', port: 1 },
      ]);
    });

    device.send(ap3000Patched(vendor('power_06.up'), deviceId));
    await eventually(async () => {
      expect(await portOf(deviceId, 0, 1)).toMatchObject({
        state: 'charging',
        orderNo,
        powerW: 100,
        voltageV: 220,
        currentA: 0.455,
        energyWh: 480,
        durationS: 3600,
        temperatureC: 20,
      });
      expect(await ordersOf(deviceId)).toMatchObject([{ status: 'charging', maxPowerW: 120 }]);
    });

    const settlement = ap3000Patched(vendor('settlement_03.up'), deviceId);
    const again = ap3000Patched(vendor('settlement_03.up'), deviceId, '0900');
    for (const frame of [settlement, settlement, again]) await settle(device, frame);
    await eventually(async () => expect(await logged(deviceId, 'settlement')).toHaveLength(3));

    device.send(ap3000Patched(vendor('heartbeat_21.up'), deviceId));
    await eventually(async () => {
      expect(await portOf(deviceId, 0, 1)).toMatchObject({ state: 'idle' });
    });

    const [shown, ...others] = await ordersOf(deviceId);
    expect(others).toEqual([]);
    expect(shown).toMatchObject({
      deviceId,
      socket: 0,
      port: 1,
      orderNo,
      businessNo: null,
      status: 'ended',
      source: 'server',
      card: null,
      energyWh: 480,
      durationS: 3_600,
      endReason: 'full',
      endCode: 1,
      commandId: id,
    });
    const reports = await logged(deviceId, 'settlement');
    expect(ms(shown!['endedAt'])).toBe(Math.min(...reports.map(({ at }) => ms(at))));
    // The vendor's power report, too, says that the charge has lasted an hour, and it came first.
    const [power] = await logged(deviceId, 'power');
    expect(ms(shown!['startedAt'])).toBe(ms(power!['at']) - 3_600_000);
  });

  test('a charge by an offline card, which nobody here started, is one order with its card', async () => {
    const { device, deviceId } = await registered();
    const deviceOrder = '7a8d05dd650a1b2c0001000200030004';
    const nowS = Math.floor(Date.now() / 1000);

    /** As the vendor lays it out, with the time at which the device says it was. */
    function settlement(msgId: string, atS: number): string {
      const time = Buffer.alloc(4);
      time.writeUInt32LE(atS);
      // 1200 s, 88.8 W at most, 0.30 kWh, port 0, by offline card, its number, unplugged
      const told = 'b0047803' + '1e00' + '00' + '00' + '7a8d05dd' + '05';
      const payload = `${told}${deviceOrder}7803${time.toString('hex')}`;
      const length = 9 + payload.length / 2;
      const physical = Buffer.from(deviceId, 'hex').reverse().toString('hex');
      const head = `444e59${length.toString(16).padStart(2, '0')}00${physical}${msgId}03`;
      return ap3000Sealed(`${head}${payload}0000`);
    }

    // It repeats what was not answered half an hour later, with a new message id and a new time.
    const endedS = nowS - 1_900;
    await settle(device, settlement('0100', endedS));
    await settle(device, settlement('0100', endedS));
    await settle(device, settlement('0200', endedS + 1_800));
    await eventually(async () => expect(await logged(deviceId, 'settlement')).toHaveLength(3));
    const [shown, ...others] = await ordersOf(deviceId);
    expect(others).toEqual([]);
    expect(shown).toMatchObject({
      socket: 0,
      port: 0,
      orderNo: deviceOrder,
      status: 'ended',
      source: 'offline',
      card: '7a8d05dd',
      energyWh: 300,
      durationS: 1_200,
      maxPowerW: 88.8,
      endReason: 'unplugged',
      endCode: 5,
      commandId: null,
    });
    expect(ms(shown!['endedAt'])).toBe(endedS * 1000);
    expect(ms(shown!['startedAt'])).toBe((endedS - 1_200) * 1000);
  });
});
