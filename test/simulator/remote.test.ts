import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { type RemoteFleet, startRemoteFleet } from '../../src/simulator/remote.ts';
import { type CodecServer, startCodecServer } from './server.ts';

const bkvId = '82200520004869';
const bound = { timeout: 5000, interval: 10 };

let server: CodecServer;
let fleet: RemoteFleet | undefined;

beforeEach(async () => {
  server = await startCodecServer();
});

afterEach(async () => {
  await fleet?.stop();
  fleet = undefined;
  await server.close();
});

function started() {
  return startRemoteFleet({
    host: '127.0.0.1',
    port: server.port,
    devices: [{ deviceId: bkvId, protocol: 'bkv' }],
    startTimeoutMs: 5000,
  });
}

it('runs a fleet in a process of its own, steered and read over its standard streams', async () => {
  fleet = await started();
  expect(fleet.deviceIds).toEqual([bkvId]);
  await fleet.steer(bkvId, { what: 'refuseNext', count: 1 });
  const removed = { socket: 3 };
  expect(await server.send(bkvId, 'network.delete', removed, 1)).toMatchObject({ accepted: false });
  expect(await server.send(bkvId, 'network.delete', removed, 2)).toMatchObject({ accepted: true });
  expect(await fleet.entries()).toMatchObject([
    { seq: 1, wireId: 1, intended: 'nack' },
    { seq: 2, wireId: 2, intended: 'ack' },
  ]);
  expect(await fleet.entries(2)).toHaveLength(1);
  expect(await fleet.stats()).toMatchObject({ loggedIn: 1, acks: 1, nacks: 1 });
  expect(await fleet.device(bkvId)).toMatchObject({ loggedIn: true, ports: [] });
});

it('says what is wrong with a request', async () => {
  fleet = await started();
  await expect(fleet.device('nobody')).rejects.toThrow('device nobody is not in the fleet');
});

it('leaves with its devices when it is stopped, and says so to whoever asks afterwards', async () => {
  fleet = await started();
  const { pid } = fleet;
  await fleet.stop();
  await vi.waitFor(() => expect(server.sockets.size).toBe(0), bound);
  expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  await expect(fleet.stats()).rejects.toThrow('is gone');
  fleet = undefined;
});
