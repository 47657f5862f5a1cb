import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterEach, expect, test } from 'vitest';
import { defaultAdmission } from '../../src/gateway/options.ts';
import { createTls } from '../../src/gateway/tls.ts';
import { eventually } from '../support/eventually.ts';
import { dtu, frames, type Rig, startRig } from './rig.ts';
import { identity, tlsDeps } from './tls-rig.ts';

const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each.close();
});

async function rigWith(given: Parameters<typeof startRig>[0]): Promise<Rig> {
  const rig = await startRig(given);
  opened.push(rig);
  return rig;
}

type Peer = { socket: Socket; ended: string | null; bytes: number };

/** A bare socket; `ended` is null while it is open. */
function peer(addr: string): Peer {
  const [host = '', port = ''] = addr.split(':');
  const socket = connect(Number(port), host);
  const seen: Peer = { socket, ended: null, bytes: 0 };
  socket.on('data', (chunk) => {
    seen.bytes += chunk.length;
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    seen.ended = error.code ?? 'error';
  });
  socket.on('close', () => {
    seen.ended ??= 'closed';
  });
  opened.push({ close: () => socket.destroy() });
  return seen;
}

const oneWide = { ...defaultAdmission, maxConnections: 1, waitMs: 60_000 };

test('connections over the rate are reset at once and counted, those that stand go on', async () => {
  const rig = await rigWith({ admission: { ...defaultAdmission, rateLimit: 1, rateBurst: 1 } });
  const device = await rig.device();
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply');
  const refused = [peer(rig.addr), peer(rig.addr)];
  await eventually(() => expect(refused.every(({ ended }) => ended !== null)).toBe(true));
  expect(rig.gateway.counts.refused.rate).toBe(2);
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply', 2);
});

test('a peer without a place waits for one, and is served with what it said meanwhile', async () => {
  const rig = await rigWith({ admission: oneWide });
  const first = peer(rig.addr);
  await eventually(() => expect(rig.gateway.counts.accepted).toBe(1));
  const second = peer(rig.addr);
  second.socket.write(frames.heartbeat());
  second.socket.write(frames.heartbeat());
  await new Promise((resolve) => second.socket.once('connect', resolve));
  expect(rig.gateway.counts.accepted).toBe(1);
  first.socket.destroy();
  await eventually(() => expect(second.bytes).toBeGreaterThanOrEqual(2 * 28));
  expect(rig.gateway.counts.accepted).toBe(2);
});

test('who finds no place in time, or no room to wait in, is refused and counted', async () => {
  const admission = { ...oneWide, waitMs: 50, waitingRoom: 1 };
  const rig = await rigWith({ admission });
  const first = peer(rig.addr);
  await eventually(() => expect(rig.gateway.counts.accepted).toBe(1));
  const others = [peer(rig.addr), peer(rig.addr), peer(rig.addr)];
  await eventually(() => expect(others.every(({ ended }) => ended !== null)).toBe(true));
  const { refused } = rig.gateway.counts;
  expect(refused['wait-timeout']).toBeGreaterThanOrEqual(1);
  expect(refused['wait-timeout'] + refused['room-full']).toBe(3);
  expect(first.ended).toBeNull();
});

test('a peer that gives up waiting leaves the room', async () => {
  const rig = await rigWith({ admission: { ...oneWide, waitingRoom: 1 } });
  const first = peer(rig.addr);
  await eventually(() => expect(rig.gateway.counts.accepted).toBe(1));
  const impatient = peer(rig.addr);
  await new Promise((resolve) => impatient.socket.once('connect', resolve));
  const full = peer(rig.addr);
  await eventually(() => expect(full.ended).not.toBeNull());
  expect(rig.gateway.counts.refused['room-full']).toBe(1);
  impatient.socket.destroy();
  await eventually(() => {
    return new Promise<void>((resolve, reject) => {
      const next = peer(rig.addr);
      next.socket.once('close', () => reject(new Error('the room is full')));
      next.socket.once('connect', () => {
        // Refused peers are reset within the accept of their connection: the next one's is later.
        peer(rig.addr).socket.once('close', () => resolve());
      });
    });
  });
  first.socket.destroy();
  await eventually(() => expect(rig.gateway.counts.accepted).toBe(2));
});

test('at the limit a device that comes back takes the place of its own dead connection', async () => {
  const rig = await rigWith({ admission: { ...oneWide, maxConnections: 2 } });
  const dead = await rig.device();
  dead.send(frames.heartbeat());
  await dead.hears('heartbeat.reply');
  const other = peer(rig.addr);
  await eventually(() => expect(rig.gateway.counts.accepted).toBe(2));
  // In front of it in the waiting room, and saying nothing.
  peer(rig.addr);
  const back = await rig.device();
  back.send(frames.heartbeat());
  await back.hears('heartbeat.reply');
  await eventually(() => expect(dead.isClosed()).toBe(true));
  expect(other.ended).toBeNull();
  expect([...rig.bridge.handlers.sessions()].map(({ deviceId }) => deviceId)).toEqual([dtu]);
  expect(rig.gateway.counts.takeovers).toBe(1);
});

test('who waits when the gateway drains is refused', async () => {
  const rig = await rigWith({ admission: oneWide });
  peer(rig.addr);
  await eventually(() => expect(rig.gateway.counts.accepted).toBe(1));
  const waiting = peer(rig.addr);
  await new Promise((resolve) => waiting.socket.once('connect', resolve));
  await rig.gateway.drain(1_000);
  await eventually(() => expect(waiting.ended).not.toBeNull());
});

test('a device on the TLS port may only be whom its certificate names', async () => {
  const { deps } = tlsDeps({ clientCert: 'required', subjectDeviceId: true });
  const tls = createTls(deps);
  await tls.load();
  const rig = await rigWith({ tls: { addr: '127.0.0.1:0', tls } });
  const [host = '', port = ''] = rig.tlsAddr!.split(':');
  const open = () => {
    const socket = connectTls({
      host,
      port: Number(port),
      rejectUnauthorized: false,
      ...identity('client'),
    });
    socket.on('error', () => undefined);
    opened.push({ close: () => socket.destroy() });
    return socket;
  };
  const own = open();
  own.write(frames.heartbeat());
  const answer = await new Promise<Buffer>((resolve) => own.once('data', resolve));
  expect(answer.subarray(0, 2).toString('hex')).toBe('fcff');
  expect([...rig.bridge.handlers.sessions()].map(({ deviceId }) => deviceId)).toEqual([dtu]);

  const liar = open();
  liar.write(frames.heartbeat('82210225000520'));
  await new Promise((resolve) => liar.once('close', resolve));
  expect(rig.gateway.counts.closed['wrong-device']).toBe(1);
  expect(rig.gateway.counts.loginFailures['wrong-device']).toBe(1);
  expect([...rig.bridge.handlers.sessions()]).toHaveLength(1);
});
