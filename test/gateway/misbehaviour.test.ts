import { afterEach, describe, expect, test } from 'vitest';
import { bkv } from '../../src/protocols/bkv/index.ts';
import type { Protocol } from '../../src/protocols/protocol.ts';
import { eventually } from '../support/eventually.ts';
import { createConnectionRig, PeerSocket, turn } from './connection-rig.ts';
import { connectedDtu, dtu, frames, type Rig, startRig } from './rig.ts';

const otherDtu = '82200520004870';

function opened(given: Parameters<typeof createConnectionRig>[0] = {}, fixedDeviceId?: string) {
  const rig = createConnectionRig(given);
  const peer = new PeerSocket();
  const connection = rig.open(peer.socket, fixedDeviceId);
  return { rig, peer, connection };
}

describe('the host hears', () => {
  test('of the first login alone', async () => {
    const { rig, peer } = opened();
    peer.arrives(frames.heartbeat());
    peer.arrives(frames.heartbeat());
    await turn();
    expect(rig.heard).toHaveLength(2);
    expect(rig.told).toEqual(['loggedIn']);
  });

  test.each([
    ['no-frame', Buffer.alloc(2_000, 0xaa)],
    ['garbage', Buffer.concat([frames.iccid(), Buffer.alloc(20_000, 0xaa)])],
  ] as const)('once of a peer that ended as %s without a login', async (reason, bytes) => {
    const { rig, peer } = opened();
    peer.arrives(bytes);
    await turn();
    expect(rig.told).toEqual(['misbehaved', `closed ${reason}`, 'released']);
    expect(rig.counts.loginFailures[reason]).toBe(1);
  });

  test('of a silent peer after the login timeout', async () => {
    const { rig } = opened({ options: { loginTimeoutMs: 500 } });
    rig.clock.pass(700);
    expect(rig.told).toEqual(['misbehaved', 'closed login-timeout']);
    expect(rig.counts.loginFailures['login-timeout']).toBe(1);
  });

  test('nothing of the garbage of a device that had logged in', async () => {
    const { rig, peer } = opened();
    peer.arrives(frames.heartbeat());
    peer.arrives(Buffer.alloc(20_000, 0xaa));
    await turn();
    expect(rig.told).toEqual(['loggedIn', 'closed garbage', 'released']);
    expect(rig.counts.loginFailures.garbage).toBe(0);
  });
});

describe('a connection that may speak for one device only', () => {
  test('is closed at the first word of another', async () => {
    const { rig, peer } = opened({}, dtu);
    peer.arrives(frames.heartbeat(dtu));
    peer.arrives(frames.heartbeat(otherDtu));
    peer.arrives(frames.heartbeat(dtu));
    await turn();
    expect(rig.heard.map(({ deviceId }) => deviceId)).toEqual([dtu]);
    expect(rig.told).toEqual(['loggedIn', 'closed wrong-device', 'released']);
    expect(rig.counts.loginFailures['wrong-device']).toBe(1);
  });

  test('has misbehaved when it never spoke for its own', async () => {
    const { rig, peer } = opened({}, dtu);
    peer.arrives(frames.heartbeat(otherDtu));
    await turn();
    expect(rig.heard).toEqual([]);
    expect(rig.told).toEqual(['misbehaved', 'closed wrong-device', 'released']);
  });
});

describe('an error of ours', () => {
  let rig: Rig | null = null;
  afterEach(async () => {
    await rig?.close();
    rig = null;
  });

  test('while hearing a frame ends that connection', async () => {
    const { rig: own, peer } = opened();
    own.onMessage = () => {
      throw new Error('a bug');
    };
    peer.arrives(frames.heartbeat());
    await turn();
    expect(own.told).toEqual(['broke', 'closed internal', 'released']);
    expect(peer.destroyed).toBe(true);
  });

  test('in its timer ends that connection', () => {
    const { rig: own } = opened();
    own.host.checkSessions = () => {
      throw new Error('a bug');
    };
    own.clock.pass(30_000);
    expect(own.told).toEqual(['broke', 'closed internal']);
  });

  test('in its closing frees its socket all the same', async () => {
    const { rig: own, peer, connection } = opened();
    own.host.closed = () => {
      throw new Error('a bug');
    };
    connection.end();
    await turn();
    expect(peer.destroyed).toBe(true);
    expect(own.told).toEqual(['broke', 'released']);
  });

  test('leaves the other devices alone', async () => {
    const broken: Protocol = {
      ...bkv,
      answer(message, nowMs) {
        if (message.deviceId === otherDtu) throw new Error('a bug');
        return bkv.answer(message, nowMs);
      },
    };
    rig = await startRig({ protocols: [broken] });
    const device = await connectedDtu(rig);
    const unlucky = await rig.device();
    unlucky.send(frames.heartbeat(otherDtu));
    await eventually(() => expect(unlucky.isClosed()).toBe(true));
    expect(rig.gateway.counts.closed.internal).toBe(1);
    device.send(frames.heartbeat());
    await device.hears('heartbeat.reply', 2);
    expect(rig.gateway.load()).toMatchObject({ connections: 1, sessions: 1 });
  });
});

test('what goes out is counted by its name', async () => {
  const rig = await startRig();
  const device = await connectedDtu(rig);
  device.send(frames.chargeEnd());
  await device.hears('charge.end.ack');
  expect(rig.gateway.counts.framesIn['bkv']).toEqual({ heartbeat: 1, 'charge.end': 1 });
  expect(rig.gateway.counts.framesOut['bkv']).toEqual({
    'heartbeat.reply': 1,
    'charge.end.ack': 1,
  });
  await rig.close();
});
