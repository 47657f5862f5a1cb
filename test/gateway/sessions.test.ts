import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Login } from '../../src/bridge/gateway-bridge.ts';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { eventually } from '../support/eventually.ts';
import {
  connectedDtu,
  dtu,
  frames,
  type Rig,
  socketA,
  socketB,
  standing,
  startRig,
} from './rig.ts';

const otherDtu = '82200520004870';
let rig: Rig;

beforeEach(async () => {
  rig = await startRig({ options: { loginRetryMs: 100, slowLoginMs: 150, heldMessages: 4 } });
});

afterEach(() => rig.close());

const sessionIds = () => [...rig.bridge.handlers.sessions()].map(({ deviceId }) => deviceId);
const opened = (name = 'session.opened') =>
  rig.bridge.reports.filter((report) => report.name === name).map(({ deviceId }) => deviceId);

test('any sound frame opens a session, and the heartbeat is answered once it stands', async () => {
  const granted = Promise.withResolvers<Login>();
  rig.bridge.answerLogin = () => granted.promise;
  const device = await rig.device();
  device.send(frames.heartbeat());
  await eventually(() => expect(rig.bridge.logins).toEqual([dtu]));
  expect(sessionIds()).toEqual([]);
  expect(device.heard).toEqual([]);
  granted.resolve({ granted: true, epoch: 7, parked: 0 });
  await device.hears('heartbeat.reply');
  expect([...rig.bridge.handlers.sessions()]).toEqual([
    { deviceId: dtu, protocol: 'bkv', epoch: 7 },
  ]);
  expect(opened()).toEqual([dtu]);
});

test('a device that logs in is delivered to only after its login', async () => {
  const granted = Promise.withResolvers<Login>();
  rig.bridge.answerLogin = () => granted.promise;
  const device = await rig.device();
  device.send(frames.heartbeat());
  await eventually(() => expect(rig.bridge.logins).toEqual([dtu]));
  rig.deliver('too-early', { epoch: 7 });
  expect(rig.bridge.endsOf('too-early')).toEqual([{ kind: 'unwritten', reason: 'offline' }]);
  granted.resolve({ granted: true, epoch: 7, parked: 0 });
  await standing(rig);
  rig.deliver('in-time', { epoch: 7 });
  await device.hears('port.query');
});

test('a device whose delivery came before its login was answered is called once it stands', async () => {
  const granted = Promise.withResolvers<Login>();
  rig.bridge.answerLogin = () => granted.promise;
  const device = await rig.device();
  device.send(frames.heartbeat());
  await eventually(() => expect(rig.bridge.logins).toEqual([dtu]));
  rig.deliver('too-early', { epoch: 7 });
  rig.deliver('too-early', { epoch: 7, deviceId: otherDtu });
  granted.resolve({ granted: true, epoch: 7, parked: 0 });
  await eventually(() => expect(rig.bridge.rooms).toEqual([dtu]));
});

test('the first words on a new session wait until the frames it left unanswered are known', async () => {
  const recalled = Promise.withResolvers<void>();
  rig.bridge.answerLogin = async () => ({
    granted: true,
    epoch: 7,
    parked: 0,
    recalled: recalled.promise,
  });
  const device = await rig.device();
  device.send(frames.heartbeat());
  await standing(rig);
  device.send(frames.queryReply(4_711));
  await eventually(() => expect(rig.gateway.counts.framesIn['bkv']?.['port.query.reply']).toBe(1));
  rig.deliver('meanwhile');
  await device.hears('port.query');
  expect(device.heard.map(({ name }) => name)).toEqual(['port.query']);
  const delivery = rig.delivery('elsewhere', { epoch: 3, wireId: 4_711 });
  rig.bridge.handlers.remember({ t: 'remember', delivery, writtenAt: 1, forMs: 60_000 });
  recalled.resolve();
  await device.hears('heartbeat.reply');
  await eventually(() => expect(rig.bridge.kept).toHaveLength(1));
  expect(rig.bridge.kept[0]).toMatchObject({ late: true, delivery: { id: 'elsewhere', epoch: 3 } });
});

test('a device does not wait for long for frames that cannot be recalled', async () => {
  rig.bridge.answerLogin = async () => ({
    granted: true,
    epoch: 7,
    parked: 0,
    recalled: new Promise(() => {}),
  });
  const device = await rig.device();
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply');
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply', 2);
});

test('frames that arrive during the login keep their order, within a bound', async () => {
  const granted = Promise.withResolvers<Login>();
  rig.bridge.answerLogin = () => granted.promise;
  const device = await rig.device();
  device.send(frames.heartbeat(), frames.chargeEnd(), frames.statusReport(), frames.heartbeat());
  device.send(frames.heartbeat(), frames.heartbeat());
  await eventually(() => expect(rig.gateway.counts.droppedMessages).toBe(2));
  granted.resolve({ granted: true, epoch: 7, parked: 0 });
  await device.hears('status.report.ack');
  await device.hears('heartbeat.reply', 2);
  const reported = rig.bridge.reports.map(({ name }) => name);
  expect(reported).toEqual(['session.opened', 'heartbeat', 'charge.end', 'status.report']);
});

test('several ids share a connection, and closing one leaves the others', async () => {
  const host = await rig.device(ap3000);
  host.send(frames.iccid(), frames.heartbeat21(socketA, 1), frames.heartbeat21(socketB, 2));
  await host.hears('heartbeat.reply', 2);
  expect(host.heard.map(({ deviceId, msgId }) => [deviceId, msgId])).toEqual([
    [socketA, 1],
    [socketB, 2],
  ]);
  rig.bridge.handlers.evict({ t: 'evict', deviceId: socketA, epoch: 10 ** 15 });
  expect(sessionIds()).toEqual([socketB]);
  host.send(frames.heartbeat21(socketB, 3));
  await host.hears('heartbeat.reply', 3);
  expect(host.isClosed()).toBe(false);
  rig.bridge.handlers.evict({ t: 'evict', deviceId: socketB, epoch: 10 ** 15 });
  await eventually(() => expect(host.isClosed()).toBe(true));
  expect(rig.bridge.logouts).toEqual([]);
});

test('what the modem says in plain text is a fact of every device behind it', async () => {
  const host = await rig.device(ap3000);
  host.send(
    frames.iccid(),
    frames.link(),
    frames.heartbeat21(socketA),
    frames.heartbeat21(socketB),
  );
  await host.hears('heartbeat.reply', 2);
  const facts = rig.bridge.reports.filter(({ name }) => name === 'modem');
  expect(facts.map(({ deviceId, fields }) => [deviceId, fields['iccid']])).toEqual([
    [socketA, '89860463112070319417'],
    [socketB, '89860463112070319417'],
  ]);
});

test('the newest login wins: the older session of this gateway is closed with its connection', async () => {
  const old = await connectedDtu(rig);
  rig.deliver('in-flight');
  await old.hears('port.query');
  const fresh = await rig.device();
  fresh.send(frames.heartbeat());
  await fresh.hears('heartbeat.reply');
  await eventually(() => expect(old.isClosed()).toBe(true));
  expect(rig.bridge.endsOf('in-flight')).toMatchObject([
    { kind: 'ambiguous', reason: 'connection-lost' },
  ]);
  expect(rig.gateway.load().sessions).toBe(1);
  // The presence belongs to the newer session by then.
  expect(rig.bridge.logouts).toEqual([]);
});

test('of two logins that were answered in the wrong order the higher epoch wins', async () => {
  const answers = [Promise.withResolvers<Login>(), Promise.withResolvers<Login>()];
  let asked = 0;
  rig.bridge.answerLogin = () => answers[asked++]!.promise;
  const first = await rig.device();
  first.send(frames.heartbeat());
  await eventually(() => expect(asked).toBe(1));
  const second = await rig.device();
  second.send(frames.heartbeat());
  await eventually(() => expect(asked).toBe(2));
  answers[1]!.resolve({ granted: true, epoch: 8, parked: 0 });
  await second.hears('heartbeat.reply');
  answers[0]!.resolve({ granted: true, epoch: 7, parked: 0 });
  await eventually(() => expect(first.isClosed()).toBe(true));
  expect([...rig.bridge.handlers.sessions()]).toMatchObject([{ deviceId: dtu, epoch: 8 }]);
  expect(second.isClosed()).toBe(false);
});

test('an eviction of an older or equal epoch is ignored', async () => {
  const device = await connectedDtu(rig);
  const epoch = [...rig.bridge.handlers.sessions()][0]!.epoch;
  rig.bridge.handlers.evict({ t: 'evict', deviceId: dtu, epoch });
  rig.bridge.handlers.evict({ t: 'evict', deviceId: otherDtu, epoch: epoch + 1 });
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply', 2);
  expect(sessionIds()).toEqual([dtu]);
});

test('a closed connection removes its presence with its own epoch', async () => {
  const device = await connectedDtu(rig);
  const epoch = [...rig.bridge.handlers.sessions()][0]!.epoch;
  device.socket.end();
  await eventually(() => expect(rig.bridge.logouts).toEqual([{ deviceId: dtu, epoch }]));
  expect(sessionIds()).toEqual([]);
  expect(opened('session.closed')).toEqual([dtu]);
});

test('a login that is granted after its connection closed is taken back', async () => {
  const granted = Promise.withResolvers<Login>();
  rig.bridge.answerLogin = () => granted.promise;
  const device = await rig.device();
  device.send(frames.heartbeat());
  await eventually(() => expect(rig.bridge.logins).toEqual([dtu]));
  device.socket.destroy();
  await eventually(() => expect(rig.gateway.load().connections).toBe(0));
  granted.resolve({ granted: true, epoch: 9, parked: 0 });
  await eventually(() => expect(rig.bridge.logouts).toEqual([{ deviceId: dtu, epoch: 9 }]));
  expect(sessionIds()).toEqual([]);
});

test('a removal that Redis did not take is tried again', async () => {
  const device = await connectedDtu(rig);
  rig.bridge.answerLogout = async () => {
    throw new Error('redis is away');
  };
  device.socket.end();
  await eventually(() => expect(rig.bridge.logouts).toHaveLength(1));
  rig.bridge.answerLogout = async () => {};
  await eventually(() => expect(rig.bridge.logouts.length).toBeGreaterThan(1));
  expect(new Set(rig.bridge.logouts.map(({ deviceId }) => deviceId))).toEqual(new Set([dtu]));
});

test('while Redis is away heartbeats are answered all the same, and the login is tried again', async () => {
  let away = true;
  rig.bridge.answerLogin = async () => {
    if (away) throw new Error('redis is away');
    return { granted: true, epoch: 11, parked: 0 };
  };
  const device = await rig.device();
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply');
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply', 2);
  expect(sessionIds()).toEqual([]);
  await eventually(() => expect(rig.bridge.logins.length).toBeGreaterThan(1));
  away = false;
  await standing(rig);
  expect(device.isClosed()).toBe(false);
});

test('a login without any answer does not keep the device waiting for long', async () => {
  const granted = Promise.withResolvers<Login>();
  rig.bridge.answerLogin = () => granted.promise;
  const device = await rig.device();
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply');
  expect(rig.bridge.logins).toEqual([dtu]);
  granted.resolve({ granted: true, epoch: 12, parked: 0 });
  await standing(rig);
});

test('a flapping id closes its connection', async () => {
  rig.bridge.answerLogin = async () => ({
    granted: false,
    reason: 'flapping',
    retryAfterMs: 60_000,
  });
  const device = await rig.device();
  device.send(frames.heartbeat());
  await eventually(() => expect(device.isClosed()).toBe(true));
  expect(device.heard).toEqual([]);
  expect(rig.gateway.counts.logins.denied).toBe(1);
  expect(rig.gateway.counts.closed.flapping).toBe(1);
});

test('a flapping id behind a host is ignored for a while, and its neighbours are served', async () => {
  rig.bridge.answerLogin = async (deviceId) =>
    deviceId === socketA
      ? { granted: false, reason: 'flapping', retryAfterMs: 60_000 }
      : { granted: true, epoch: 5, parked: 0 };
  const host = await rig.device(ap3000);
  host.send(frames.heartbeat21(socketB, 1));
  await host.hears('heartbeat.reply');
  host.send(frames.heartbeat21(socketA, 2));
  await eventually(() => expect(rig.gateway.counts.logins.denied).toBe(1));
  host.send(frames.heartbeat21(socketA, 3), frames.heartbeat21(socketB, 4));
  await host.hears('heartbeat.reply', 2);
  expect(host.heard.map(({ deviceId }) => deviceId)).toEqual([socketB, socketB]);
  expect(rig.bridge.logins).toEqual([socketB, socketA]);
});

test('a factory default id gets no session', async () => {
  const device = await rig.device();
  device.send(frames.heartbeat('0'.repeat(14)), frames.heartbeat());
  await device.hears('heartbeat.reply');
  expect(bkv.isFactoryDefault('0'.repeat(14))).toBe(true);
  expect(rig.bridge.logins).toEqual([dtu]);
  expect(rig.gateway.counts.factoryDefaults).toBe(1);
});

test('a connection carries a bounded number of ids', async () => {
  await rig.close();
  rig = await startRig({ options: { maxSessions: 3 } });
  const host = await rig.device(ap3000);
  for (let i = 0; i < 5; i += 1) host.send(frames.heartbeat21(`04ab370${i}`, i));
  await host.hears('heartbeat.reply', 3);
  await eventually(() => expect(rig.gateway.counts.droppedMessages).toBe(2));
  expect(rig.gateway.load().sessions).toBe(3);
});
