import { afterEach, describe, expect, test } from 'vitest';
import type { Session } from '../../src/gateway/session.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import type { Protocol } from '../../src/protocols/protocol.ts';
import { eventually } from '../support/eventually.ts';
import { createConnectionRig, PeerSocket, turn } from './connection-rig.ts';
import { connectedDtu, frames, type Rig, startRig } from './rig.ts';

const stallTimeoutMs = 10_000;

function stalling(options = {}) {
  const rig = createConnectionRig({ options: { stallTimeoutMs, ...options } });
  rig.onMessage = (connection) => {
    connection.sessions = [{} as Session];
  };
  const peer = new PeerSocket();
  const connection = rig.open(peer.socket);
  peer.arrives(frames.heartbeat());
  return { rig, peer, connection };
}

describe('a connection whose socket takes none of what waits for it', () => {
  test('is closed after the stall timeout, and not before', async () => {
    const { rig, peer, connection } = stalling();
    await turn();
    peer.stopTaking();
    connection.write(Buffer.alloc(100));
    await turn();
    rig.clock.pass(stallTimeoutMs - 200);
    expect(rig.told).toEqual([]);
    rig.clock.pass(400);
    expect(rig.told).toEqual(['closed stalled']);
    await turn();
    expect(peer.destroyed).toBe(true);
  });

  test('is not closed while it takes a little now and then', async () => {
    const { rig, peer, connection } = stalling();
    await turn();
    peer.stopTaking();
    for (let i = 0; i < 10; i += 1) {
      connection.write(Buffer.alloc(100));
      connection.write(Buffer.alloc(100));
      await turn();
      rig.clock.pass(stallTimeoutMs / 2);
      peer.takeOne();
      await turn();
    }
    expect(peer.writableLength).toBeGreaterThan(0);
    expect(rig.told).toEqual([]);
    // From the last look that saw it take something.
    rig.clock.pass(stallTimeoutMs * 1.25 + 200);
    expect(rig.told).toEqual(['closed stalled']);
  });

  test('is watched no longer once it took all', async () => {
    const { rig, peer, connection } = stalling();
    await turn();
    peer.stopTaking();
    connection.write(Buffer.alloc(100));
    await turn();
    rig.clock.pass(stallTimeoutMs / 2);
    peer.takeAll();
    await turn();
    rig.clock.pass(stallTimeoutMs * 3);
    expect(rig.told).toEqual([]);
    // And again from the next time on.
    peer.stopTaking();
    connection.write(Buffer.alloc(100));
    await turn();
    rig.clock.pass(stallTimeoutMs - 200);
    expect(rig.told).toEqual([]);
    rig.clock.pass(400);
    expect(rig.told).toEqual(['closed stalled']);
  });

  test('is still closed at once when too much waits', async () => {
    const { rig, peer, connection } = stalling({ unsentBytes: 250 });
    await turn();
    peer.stopTaking();
    expect(connection.write(Buffer.alloc(200))).toBe(true);
    await turn();
    expect(connection.write(Buffer.alloc(100))).toBe(false);
    expect(rig.told).toEqual(['closed slow-reader']);
  });
});

describe('deliveries on a stalled socket', () => {
  let rig: Rig;
  afterEach(() => rig.close());

  // A megabyte in answer to each heartbeat fills the system's buffers soon.
  const wordy: Protocol = {
    ...bkv,
    answer: (message, nowMs) => {
      const answer = bkv.answer(message, nowMs);
      return answer && message.fields['csq'] === 1
        ? { ...answer, frame: new Uint8Array(1_000_000) }
        : answer;
    },
  };
  const loud = () =>
    bkv.encode({
      direction: 'up',
      name: 'heartbeat',
      deviceId: '82200520004869',
      msgId: 0,
      fields: { iccid: '89860463112070319417', version: 'cV.1r46', csq: 1 },
    });

  test('one that was written is ambiguous, one that waits behind it was not written', async () => {
    rig = await startRig({
      protocols: [wordy],
      options: { stallTimeoutMs: 1_000, unsentBytes: 100_000_000 },
    });
    const device = await connectedDtu(rig);
    device.socket.pause();
    device.send(...Array.from({ length: 40 }, loud));
    await eventually(() => expect(rig.gateway.counts.bytesOut).toBeGreaterThan(40_000_000));
    rig.deliver('written', { ackTimeoutMs: 60_000 });
    rig.deliver('waiting', { ackTimeoutMs: 60_000 });
    await eventually(() => expect(rig.gateway.counts.closed.stalled).toBe(1));
    // Whether the system got it cannot be seen from here: parts of one write are not told.
    expect(rig.bridge.endsOf('written')).toMatchObject([
      { kind: 'ambiguous', reason: 'connection-lost' },
    ]);
    expect(rig.bridge.endsOf('waiting')).toMatchObject([
      { kind: 'unwritten', reason: 'socket-closed' },
    ]);
    await eventually(() => expect(rig.gateway.load().connections).toBe(0));
  });
});
