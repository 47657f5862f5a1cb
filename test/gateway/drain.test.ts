import { connect } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { connectedDtu, type Device, dtu, frames, type Rig, startRig } from './rig.ts';

let rig: Rig;
let device: Device;

beforeEach(async () => {
  rig = await startRig();
  device = await connectedDtu(rig);
});

afterEach(() => rig.close());

test('a drain lets what is in flight be answered and refuses the rest', async () => {
  rig.bridge.settles = true;
  const { wireId } = rig.deliver('in-flight');
  rig.deliver('waiting');
  await device.hears('port.query');
  const drained = rig.gateway.drain(10_000);
  expect(rig.bridge.draining).toBe(true);
  expect(rig.gateway.isReady()).toBe(false);
  rig.deliver('new');
  expect(rig.bridge.endsOf('waiting')).toEqual([{ kind: 'unwritten', reason: 'draining' }]);
  expect(rig.bridge.endsOf('new')).toEqual([{ kind: 'unwritten', reason: 'draining' }]);
  expect(rig.bridge.endsOf('in-flight')).toEqual([]);
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply', 2);
  device.send(frames.queryReply(wireId));
  await drained;
  expect(rig.bridge.endsOf('in-flight')).toMatchObject([{ kind: 'acked' }]);
  expect(rig.bridge.kept).toEqual([]);
  expect(rig.bridge.logouts).toMatchObject([{ deviceId: dtu }]);
  await eventually(() => expect(device.isClosed()).toBe(true));
  await rig.gateway.stop();
  expect(rig.bridge.stopped).toBe(true);
});

test('a drain is bounded, and ends that nobody settled are kept', async () => {
  rig.deliver('never-answered');
  await device.hears('port.query');
  await rig.gateway.drain(100);
  expect(rig.bridge.kept).toMatchObject([
    {
      delivery: { id: 'never-answered' },
      late: false,
      outcome: { kind: 'ambiguous', reason: 'connection-lost' },
    },
  ]);
  expect(rig.gateway.load()).toMatchObject({ deliveries: 0, unsettled: 0, sessions: 0 });
});

test('a gateway that drains takes no new connections', async () => {
  await rig.gateway.drain(100);
  const [, host, port] = /^(.*):(\d+)$/.exec(rig.addr)!;
  const refused = await new Promise<boolean>((resolve) => {
    const socket = connect({ host: host!, port: Number(port) });
    socket.once('error', () => resolve(true));
    socket.once('close', () => resolve(true));
    socket.once('data', () => resolve(false));
  });
  expect(refused).toBe(true);
});
