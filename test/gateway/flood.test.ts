import { afterEach, describe, expect, test } from 'vitest';
import type { Session } from '../../src/gateway/session.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { eventually } from '../support/eventually.ts';
import { createConnectionRig, PeerSocket, turn } from './connection-rig.ts';
import { connectedDtu, frames, type Rig, startRig } from './rig.ts';

const heartbeat = frames.heartbeat();
const many = (count: number, frame: Uint8Array = heartbeat) =>
  Buffer.concat(Array.from({ length: count }, () => frame));
/** Enough of a session for a connection that only counts them. */
const someSession = {} as Session;

describe('a device that sends faster than it may', () => {
  let rig: Rig;
  afterEach(() => rig.close());

  test('is heard to the last frame also when it hangs up behind it', async () => {
    rig = await startRig({ options: { deviceRate: 1_000, deviceBurst: 1_000 } });
    const device = await connectedDtu(rig);
    const others = [await rig.device()];
    const stranger = frames.heartbeat('82210225000520');
    for (const other of others) other.socket.write(many(900, stranger));
    device.socket.end(
      Buffer.concat([many(300), ...Array.from({ length: 20 }, () => frames.chargeEnd())]),
    );
    await eventually(() => {
      expect(rig.gateway.counts.framesIn['bkv']?.['charge.end']).toBe(20);
      expect(rig.gateway.load().connections).toBe(1);
    });
    const bytes = (301 + 900) * heartbeat.length + 20 * frames.chargeEnd().length;
    await eventually(() => expect(rig.gateway.counts.bytesIn).toBe(bytes));
  });

  test('is heard to the last frame, only more slowly', async () => {
    rig = await startRig({ options: { deviceRate: 400, deviceBurst: 50 } });
    const device = await connectedDtu(rig);
    const startedAt = performance.now();
    device.send(many(600));
    await device.hears('heartbeat.reply', 601);
    // What may come at once, and one slice on top of it, is free.
    expect(performance.now() - startedAt).toBeGreaterThan(((600 - 50 - 42) / 400) * 1_000);
    expect(rig.gateway.counts.throttled).toBeGreaterThan(1);
    expect(rig.gateway.counts.bytesIn).toBe(601 * heartbeat.length);
    expect(Object.values(rig.gateway.counts.garbageBytes).reduce((a, b) => a + b)).toBe(0);
  });

  test('leaves nothing behind when it goes away while it waits', async () => {
    rig = await startRig({ options: { deviceRate: 400, deviceBurst: 1 } });
    const device = await connectedDtu(rig);
    device.send(many(400));
    await eventually(() => expect(rig.gateway.counts.throttled).toBeGreaterThan(0));
    device.socket.destroy();
    await eventually(() =>
      expect(rig.gateway.load()).toMatchObject({ connections: 0, sessions: 0 }),
    );
  });

  test('does not make another wait', async () => {
    rig = await startRig({ options: { deviceRate: 1, deviceBurst: 5 } });
    const loud = await connectedDtu(rig);
    loud.send(many(2_000));
    await eventually(() => expect(rig.gateway.counts.throttled).toBe(1));
    const quiet = await connectedDtu(rig, '82200520004870');
    quiet.send(heartbeat);
    await quiet.hears('heartbeat.reply', 1);
  });
});

describe('while a connection is paused', () => {
  const slow = { deviceRate: 1, deviceBurst: 1 };

  test('neither the frame that it is in the middle of nor its silence is held against it', async () => {
    const impatient = { ...bkv, limits: { ...bkv.limits, heartbeatMs: 2_000 } };
    // A frame each 5 s: longer than the silence that ends it, and soon longer than a frame may take.
    const rig = createConnectionRig({
      options: { ...slow, deviceRate: 0.2 },
      protocols: [impatient],
    });
    rig.onMessage = (connection) => {
      connection.sessions = [someSession];
    };
    const peer = new PeerSocket();
    rig.open(peer.socket);
    peer.arrives(many(30));
    await turn();
    // The first slice, which ends within a frame: that frame is due within 10 s, silence ends it after 5 s.
    const first = Math.floor(256 / heartbeat.length);
    expect(256 % heartbeat.length).toBeGreaterThan(0);
    expect(rig.heard).toHaveLength(first);
    expect(rig.counts.throttled).toBe(1);
    rig.clock.pass((first - 2) * 5_000);
    await turn();
    expect(rig.heard).toHaveLength(first);
    for (let s = 0; s < 200 && rig.heard.length < 30; s += 1) {
      rig.clock.pass(1_000);
      await turn();
    }
    expect(rig.heard).toHaveLength(30);
    expect(rig.told).toEqual([]);
    expect(rig.counts.bytesIn).toBe(30 * heartbeat.length);
    rig.clock.pass(6_000);
    expect(rig.told).toEqual(['closed idle']);
  });

  test('a frame that stays incomplete after the pause is given up as ever', async () => {
    const rig = createConnectionRig({ options: slow });
    rig.onMessage = (connection) => {
      connection.sessions = [someSession];
    };
    const peer = new PeerSocket();
    rig.open(peer.socket);
    peer.arrives(
      Buffer.concat([many(20), Buffer.from('fcfe0bb8000000000000018220052000', 'hex'), many(2)]),
    );
    await turn();
    for (let s = 0; s < 26; s += 1) {
      rig.clock.pass(1_000);
      await turn();
    }
    expect(rig.heard).toHaveLength(20);
    expect(rig.counts.garbageBytes['partial-timeout']).toBe(0);
    rig.clock.pass(10_200);
    expect(rig.counts.garbageBytes['partial-timeout']).toBe(1);
    expect(rig.heard).toHaveLength(22);
  });

  test('who never logs in is closed all the same', async () => {
    const rig = createConnectionRig({
      options: { ...slow, loginTimeoutMs: 5_000, idleFactor: 0.1 },
    });
    rig.onMessage = () => {};
    const peer = new PeerSocket();
    rig.open(peer.socket);
    peer.arrives(many(100));
    await turn();
    rig.clock.pass(6_100);
    expect(rig.told).toEqual(['misbehaved', 'closed login-timeout']);
  });

  test('its closing frees its socket and all that waits in it', async () => {
    const rig = createConnectionRig({ options: slow });
    const peer = new PeerSocket();
    const connection = rig.open(peer.socket);
    peer.arrives(many(200));
    await turn();
    expect(peer.isPaused()).toBe(true);
    connection.close('taken-over');
    await turn();
    expect(peer.destroyed).toBe(true);
    rig.clock.pass(60_000);
    await turn();
    expect(rig.told).toEqual(['loggedIn', 'closed taken-over', 'released']);
    expect(rig.heard.length).toBeLessThan(25);
  });
});

test('a connection of many devices may send as much as they may together', async () => {
  const heardOf = async (devices: number) => {
    const rig = createConnectionRig({ options: { deviceRate: 10, deviceBurst: 20 } });
    rig.onMessage = (connection) => {
      connection.sessions = Array.from({ length: devices }, () => someSession);
    };
    const peer = new PeerSocket();
    rig.open(peer.socket);
    peer.arrives(many(5_000));
    await turn();
    for (let i = 0; i < 100; i += 1) {
      rig.clock.pass(100);
      await turn();
    }
    return rig.heard.length;
  };
  const one = await heardOf(1);
  const ten = await heardOf(10);
  // Ten seconds at ten a second, on top of the burst and at most one slice.
  expect(one).toBeGreaterThanOrEqual(10 * 10);
  expect(one).toBeLessThanOrEqual(10 * 10 + 20 + 22);
  expect(ten).toBeGreaterThanOrEqual(10 * one - 10 * 42);
  expect(ten).toBeLessThanOrEqual(10 * (10 * 10 + 20) + 22);
});
