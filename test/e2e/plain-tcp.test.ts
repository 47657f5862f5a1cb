/** What the vendors print, on a socket, against the whole of downlink. */

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
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

describe('a BKV device on a plain socket', () => {
  const start = {
    command: 'charge.start',
    params: { socket: 2, port: 0, mode: 'time', minutes: 240 },
  };
  let number = 0;

  /** Sends the vendor's heartbeat under an id of its own and takes the answer off the socket. */
  async function loggedIn(deviceId = `8220052000${String(++number).padStart(4, '0')}`) {
    const device = await connectPlain(stack.tcp, bkvSize);
    devices.push(device);
    device.send(bkvPatched(vendor('heartbeat.up'), deviceId));
    const reply = await device.frame();
    return { device, deviceId, reply };
  }

  /** The vendor's answer to a start, under the message id of the frame that it answers. */
  function answerTo(frame: string, deviceId: string, result = '01'): string {
    const answer = bkvPatched(vendor('control_07.reply'), deviceId, frame.slice(12, 20));
    // 0005 07 <result> 02 00 0068
    return bkvSealed(`${answer.slice(0, 42)}${result}${answer.slice(44)}`);
  }

  test("gets a well-formed answer to the vendor's heartbeat", async () => {
    const device = await connectPlain(stack.tcp, bkvSize);
    devices.push(device);
    device.send(
      'fcfe002e0000000000000182200520004869383938363034363331313230373033313934313763562e31723436001fcafcee',
    );
    const reply = await device.frame();
    expect(reply).toMatch(/^fcff00180000000000000082200520004869\d{14}[\da-f]{2}fcee$/);
    const time = reply.slice(36, 50);
    const [, year, month, day, hour, minute, second] = /^(....)(..)(..)(..)(..)(..)$/.exec(time)!;
    const shown = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}+08:00`);
    expect(Math.abs(shown - Date.now())).toBeLessThan(5_000);
    expect(reply).toBe(bkvSealed(reply));
  });

  test('receives a start as the vendor prints it, and its answer makes the command succeed', async () => {
    const { device, deviceId } = await loggedIn();
    const { id, status } = await stack.api.send({ deviceId, ...start });
    expect(status).toBe('queued');
    const frame = await device.frame();
    expect(frame.slice(0, 12)).toBe('fcff001c0015');
    expect(frame.slice(20, 36)).toBe(`00${deviceId}`);
    expect(frame.slice(36, 58)).toBe('0008070200010100f00000');
    expect(frame).toBe(bkvSealed(frame));
    expect(frame.slice(-4)).toBe('fcee');
    const answer = answerTo(frame, deviceId);
    device.send(answer);
    const command = await eventually(async () => {
      const shown = await stack.api.command(id);
      expect(shown.status).toBe('succeeded');
      return shown;
    });
    expect(command).toMatchObject({
      final: true,
      late: false,
      result: { businessNo: 104, socket: 2, port: 0 },
      attempts: [{ attempt: 1, frameOut: frame, frameIn: answer, outcome: 'acked' }],
    });
    expect(command.attempts[0]?.wireId).toBe(Number.parseInt(frame.slice(12, 20), 16));
  });

  test('a caller who waits is answered with the end', async () => {
    const { device, deviceId } = await loggedIn();
    const asked = stack.api.request('POST', '/v1/commands?wait=10000', { deviceId, ...start });
    device.send(answerTo(await device.frame(), deviceId));
    const { status, body } = await asked;
    expect(status).toBe(200);
    expect(body).toMatchObject({ status: 'succeeded', final: true, result: { businessNo: 104 } });
  });

  test('a refusal ends the command as rejected, with the code of the device', async () => {
    const { device, deviceId } = await loggedIn();
    const asked = stack.api.send({ deviceId, ...start }, 10_000);
    device.send(answerTo(await device.frame(), deviceId, '00'));
    const command = await asked;
    expect(command).toMatchObject({ status: 'rejected', final: true, code: '0' });
    expect(command.reason).toMatch(/\w+ \w+/);
    expect(device.unread).toEqual([]);
  });

  test('a command without an answer stays sent and shows what was written', async () => {
    const { device, deviceId } = await loggedIn();
    const { id } = await stack.api.send({ deviceId, ...start });
    const frame = await device.frame();
    const shown = await eventually(async () => {
      const command = await stack.api.command(id);
      expect(command.status).toBe('sent');
      return command;
    });
    expect(shown.final).toBe(false);
    expect(shown.attempts).toMatchObject([{ frameOut: frame, frameIn: null, outcome: null }]);
    expect(shown.attempts[0]?.writtenAt).not.toBeNull();
    const answer = answerTo(frame, deviceId);
    device.send(answer);
    await eventually(async () => {
      const [attempt] = (await stack.api.command(id)).attempts;
      expect(attempt).toMatchObject({ frameIn: answer, outcome: 'acked' });
      expect(attempt?.ms).toBeGreaterThan(0);
    });
  });

  test('another message id, or another device, answers nothing', async () => {
    const { device, deviceId } = await loggedIn();
    const { id } = await stack.api.send({ deviceId, ...start });
    const frame = await device.frame();
    const answer = answerTo(frame, deviceId);
    const wrongId = bkvSealed(`${answer.slice(0, 12)}7fffffff${answer.slice(20)}`);
    const wrongSum = `${answer.slice(0, 52)}${answer.slice(52, 54) === '00' ? '01' : '00'}${answer.slice(54)}`;
    device.send(wrongId, wrongSum, bkvPatched(vendor('heartbeat.up'), deviceId));
    // The heartbeat's answer shows that all before it was read.
    await device.frame();
    expect((await stack.api.command(id)).final).toBe(false);
    device.send(answer);
    await eventually(async () => expect((await stack.api.command(id)).status).toBe('succeeded'));
  });
});

describe('an AP3000 device on a plain socket', () => {
  const orderNo = '20230503234223414193991312684105';
  const start = {
    command: 'charge.start',
    params: { port: 0, mode: 'time', seconds: 3600, orderNo, balanceCents: 356 },
  };
  let number = 0;
  const newId = () => `04ab37${(++number).toString(16).padStart(2, '0')}`;

  /** Sends the vendor's register frame under these ids, on one connection. */
  async function registered(...deviceIds: string[]) {
    const device = await connectPlain(stack.tcp, ap3000Size);
    devices.push(device);
    for (const deviceId of deviceIds) {
      device.send(ap3000Patched(vendor('register_20.up'), deviceId));
      await device.frame();
    }
    return device;
  }

  /** The vendor's answer to 82, for this order. */
  function startAnswer(frame: string, deviceId: string, result = '00'): string {
    const answer = ap3000Patched(vendor('charge_82.ack'), deviceId, frame.slice(18, 22));
    // cmd, then result, order number, port, pending ports
    return ap3000Sealed(
      `${answer.slice(0, 24)}${result}${frame.slice(42, 74)}00${answer.slice(60)}`,
    );
  }

  test('is registered: its 20 is answered with the same message id', async () => {
    const device = await connectPlain(stack.tcp, ap3000Size);
    devices.push(device);
    device.send('444e5913003b37ab04b900207e00021421000000e4009104');
    expect(await device.frame()).toBe('444e590a003b37ab04b9002000ef02');
  });

  test('receives a start as 82, and its answer makes the command succeed', async () => {
    const deviceId = newId();
    const device = await registered(deviceId);
    const { id } = await stack.api.send({ deviceId, ...start });
    const frame = await device.frame();
    expect(frame.slice(0, 10)).toBe('444e592600');
    expect(frame.slice(10, 18)).toBe(Buffer.from(deviceId, 'hex').reverse().toString('hex'));
    expect(frame.slice(22, -4)).toBe(`8200640100000001100e${orderNo}00000000`);
    expect(frame).toBe(ap3000Sealed(frame));
    const answer = startAnswer(frame, deviceId);
    device.send(answer);
    const command = await eventually(async () => {
      const shown = await stack.api.command(id);
      expect(shown.status).toBe('succeeded');
      return shown;
    });
    expect(command).toMatchObject({
      result: { orderNo, port: 0 },
      attempts: [{ frameOut: frame, frameIn: answer, outcome: 'acked' }],
    });
    const wireId = Buffer.from(frame.slice(18, 22), 'hex').readUInt16LE();
    expect(command.attempts[0]?.wireId).toBe(wireId);
  });

  test('receives a locate as 96; a caller who waits is answered with the end', async () => {
    const deviceId = newId();
    const device = await registered(deviceId);
    const command = { deviceId, command: 'device.locate', params: { seconds: 5 } };
    const asked = stack.api.request('POST', '/v1/commands?wait=10000', command);
    const frame = await device.frame();
    expect(frame.slice(22, -4)).toBe('9605');
    device.send(ap3000Patched(vendor('locate_96.ack'), deviceId, frame.slice(18, 22)));
    const { status, body } = await asked;
    expect(status).toBe(200);
    expect(body).toMatchObject({ status: 'succeeded', final: true });
  });

  test('a refusal ends the command as rejected, with the code and what it means', async () => {
    const deviceId = newId();
    const device = await registered(deviceId);
    const asked = stack.api.send({ deviceId, ...start }, 10_000);
    device.send(startAnswer(await device.frame(), deviceId, '01'));
    const command = await asked;
    expect(command).toMatchObject({ status: 'rejected', code: '1' });
    expect(command.reason).toContain('no charger is plugged in');
  });

  test('a command without an answer stays sent and shows what was written', async () => {
    const deviceId = newId();
    const device = await registered(deviceId);
    const { id } = await stack.api.send({ deviceId, ...start });
    const frame = await device.frame();
    await eventually(async () => {
      const { status, attempts } = await stack.api.command(id);
      expect(status).toBe('sent');
      expect(attempts).toMatchObject([{ frameOut: frame, frameIn: null, outcome: null }]);
    });
    const answer = startAnswer(frame, deviceId);
    device.send(answer);
    await eventually(async () => {
      const { status, attempts } = await stack.api.command(id);
      expect(status).toBe('succeeded');
      expect(attempts).toMatchObject([{ frameOut: frame, frameIn: answer, outcome: 'acked' }]);
    });
  });

  test('two ids on one connection each get their own commands and give their own answers', async () => {
    const [first, second] = [newId(), newId()];
    const device = await registered(first, second);
    const locate = (deviceId: string, seconds: number) =>
      stack.api.send({ deviceId, command: 'device.locate', params: { seconds } });
    const [toFirst, toSecond] = await Promise.all([locate(first, 11), locate(second, 22)]);
    const frames = [await device.frame(), await device.frame()];
    const physical = (deviceId: string) => Buffer.from(deviceId, 'hex').reverse().toString('hex');
    const frameOf = (deviceId: string) =>
      frames.find((frame) => frame.slice(10, 18) === physical(deviceId))!;
    expect(frameOf(first).slice(22, -4)).toBe('960b');
    expect(frameOf(second).slice(22, -4)).toBe('9616');

    const ack = vendor('locate_96.ack');
    device.send(ap3000Patched(ack, second, frameOf(second).slice(18, 22)));
    await eventually(async () =>
      expect((await stack.api.command(toSecond.id)).status).toBe('succeeded'),
    );
    expect((await stack.api.command(toFirst.id)).final).toBe(false);
    device.send(ap3000Patched(ack, first, frameOf(first).slice(18, 22)));
    await eventually(async () =>
      expect((await stack.api.command(toFirst.id)).status).toBe('succeeded'),
    );
  });
});
