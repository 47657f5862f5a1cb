import { afterEach, expect, test } from 'vitest';
import type { CloseReason } from '../../src/gateway/counts.ts';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import type { Protocol } from '../../src/protocols/protocol.ts';
import { eventually } from '../support/eventually.ts';
import { connectedDtu, type Device, dtu, frames, type Rig, socketA, startRig } from './rig.ts';

let rig: Rig;

afterEach(() => rig.close());

const impatient = (protocol: Protocol, limits: Partial<Protocol['limits']>): Protocol => ({
  ...protocol,
  limits: { ...protocol.limits, ...limits },
});

async function closesFor(device: Device, reason: CloseReason): Promise<void> {
  await eventually(() => expect(device.isClosed()).toBe(true));
  expect(rig.gateway.counts.closed[reason]).toBe(1);
}

test('each protocol is recognised by its first bytes, also behind noise and one byte at a time', async () => {
  rig = await startRig();
  const whole = await rig.device(bkv);
  whole.send(Buffer.from('AT+CSQ\r\n'), frames.heartbeat());
  await whole.hears('heartbeat.reply');
  const dripping = await rig.device(ap3000);
  for (const byte of Buffer.concat([frames.iccid(), frames.heartbeat21()])) {
    dripping.send(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  await dripping.hears('heartbeat.reply');
  expect(rig.bridge.logins).toEqual([dtu, socketA]);
});

test('a connection that says nothing is closed after the login timeout, others are not', async () => {
  rig = await startRig({ options: { loginTimeoutMs: 200 } });
  const device = await connectedDtu(rig);
  const silent = await rig.device();
  await closesFor(silent, 'login-timeout');
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply', 2);
});

test('a modem that introduced itself has a heartbeat of time for its device to speak', async () => {
  const protocols = [impatient(ap3000, { heartbeatMs: 300 })];
  rig = await startRig({ protocols, options: { loginTimeoutMs: 100, idleFactor: 3 } });
  const openedAt = performance.now();
  const modem = await rig.device(ap3000);
  modem.send(frames.iccid());
  const keptAlive = setInterval(() => modem.send(frames.link()), 50);
  await eventually(() => expect(modem.isClosed()).toBe(true));
  clearInterval(keptAlive);
  expect(performance.now() - openedAt).toBeGreaterThanOrEqual(900);
  expect(rig.gateway.counts.closed['login-timeout']).toBe(1);
});

test('a peer that speaks no protocol is closed after the first kilobyte', async () => {
  rig = await startRig();
  const browser = await rig.device();
  browser.send(Buffer.from(`GET / HTTP/1.1\r\nx: ${'y'.repeat(2_000)}\r\n\r\n`));
  await closesFor(browser, 'no-frame');
});

test('megabytes without a frame are dropped with their connection, wherever they come', async () => {
  rig = await startRig();
  const early = await rig.device();
  early.send(Buffer.from('fcfe', 'hex'), Buffer.alloc(4_000_000, 0xaa));
  await eventually(() => expect(early.isClosed()).toBe(true));
  const device = await connectedDtu(rig);
  device.send(Buffer.alloc(4_000_000, 0xaa));
  await closesFor(device, 'garbage');
  expect(rig.gateway.load()).toMatchObject({ connections: 0, sessions: 0 });
});

test('a device may send a little garbage between its frames', async () => {
  rig = await startRig();
  const device = await connectedDtu(rig);
  const broken = Buffer.from(frames.heartbeat());
  broken[20]! ^= 0xff;
  for (let i = 0; i < 5; i += 1) device.send(broken, Buffer.from('+++'), frames.heartbeat());
  await device.hears('heartbeat.reply', 6);
  expect(rig.gateway.counts.garbageBytes.checksum).toBeGreaterThan(0);
});

test('a frame that never becomes whole is given up, and the next one is heard', async () => {
  rig = await startRig({ protocols: [impatient(bkv, { partialFrameMs: 150 })] });
  const device = await connectedDtu(rig);
  // Announces 3000 bytes that never come; the frame behind it would count as part of them.
  device.send(Buffer.from('fcfe0bb8000000000000018220052000', 'hex'), frames.heartbeat());
  await device.hears('heartbeat.reply', 2);
  expect(rig.gateway.counts.garbageBytes['partial-timeout']).toBeGreaterThan(0);
});

test('a peer that drips a frame for ever is closed by the login timeout', async () => {
  const protocols = [impatient(bkv, { partialFrameMs: 100 })];
  rig = await startRig({ protocols, options: { loginTimeoutMs: 500 } });
  const slow = await rig.device();
  slow.send(Buffer.from('fcfe0100', 'hex'));
  const drip = setInterval(() => slow.send(Buffer.from([0])), 40);
  await closesFor(slow, 'login-timeout');
  clearInterval(drip);
});

test('a device that fell silent is closed after some heartbeats, and its presence removed', async () => {
  const protocols = [impatient(bkv, { heartbeatMs: 100 })];
  rig = await startRig({ protocols, options: { idleFactor: 3 } });
  const device = await connectedDtu(rig);
  for (let i = 2; i < 8; i += 1) {
    await new Promise((resolve) => setTimeout(resolve, 80));
    device.send(frames.heartbeat());
    await device.hears('heartbeat.reply', i);
  }
  await closesFor(device, 'idle');
  await eventually(() => expect(rig.bridge.logouts).toHaveLength(1));
});

test('a device behind a host that fell silent loses its session, the host keeps its connection', async () => {
  const protocols = [impatient(ap3000, { heartbeatMs: 100 })];
  rig = await startRig({ protocols, options: { idleFactor: 2 } });
  const host = await rig.device(ap3000);
  host.send(frames.heartbeat21('04ab3701', 1), frames.heartbeat21('04ab3702', 2));
  await host.hears('heartbeat.reply', 2);
  let beats = 2;
  await eventually(
    async () => {
      host.send(frames.heartbeat21('04ab3702', 3));
      beats += 1;
      await host.hears('heartbeat.reply', beats);
      expect(rig.gateway.load().sessions).toBe(1);
    },
    { everyMs: 60 },
  );
  expect(rig.bridge.logouts).toMatchObject([{ deviceId: '04ab3701' }]);
  expect(host.isClosed()).toBe(false);
});

test('a peer that does not read is closed when too much is unsent, and the frame was not written', async () => {
  rig = await startRig({ options: { unsentBytes: 100 } });
  const device = await connectedDtu(rig);
  // Answers of 28 bytes that one turn of the event loop keeps together.
  device.send(...Array.from({ length: 5 }, () => frames.heartbeat()));
  await closesFor(device, 'slow-reader');
});

test('frames that are split and joined at will are all heard', async () => {
  rig = await startRig();
  const device = await connectedDtu(rig);
  const stream = Buffer.concat(Array.from({ length: 40 }, () => frames.heartbeat()));
  for (let at = 0; at < stream.length; at += 33) {
    device.send(stream.subarray(at, at + 33));
    await new Promise((resolve) => setImmediate(resolve));
  }
  await device.hears('heartbeat.reply', 41);
  expect(Object.values(rig.gateway.counts.garbageBytes).reduce((a, b) => a + b)).toBe(0);
});
