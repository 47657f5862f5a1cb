import { describe, expect, it, onTestFinished } from 'vitest';
import { createGatewayBridge } from '../../src/bridge/redis-gateway-bridge.ts';
import { closeRedis, connectRedis, type RedisPurpose } from '../../src/connections/redis.ts';
import { createLog } from '../../src/log/log.ts';
import { eventually } from '../support/eventually.ts';
import { bkvId, buildApi, stop } from './build.ts';
import { type RealApi, realApi } from './real-api.ts';

const device = `/v1/devices/${bkvId}`;
const isCopied = ({ redis, keys }: RealApi) =>
  redis.sismember(keys.knownDevices(keys.shardOf(bkvId)), bkvId);

/** A gateway that holds the device. */
async function connected({ redisUrl, keys }: RealApi) {
  const log = createLog({ level: 'silent', role: 'test' });
  const client = (purpose: RedisPurpose) => {
    const redis = connectRedis({ url: redisUrl, purpose, name: 'test' });
    onTestFinished(() => closeRedis(redis));
    return redis;
  };
  const bridge = createGatewayBridge({
    gatewayId: 'g1',
    redis: client('commands'),
    subscriber: client('subscriber'),
    keys,
    log,
  });
  const evicted: object[] = [];
  await bridge.start({
    deliver: () => undefined,
    withdraw: () => undefined,
    settled: () => undefined,
    remember: () => undefined,
    evict: (evict) => evicted.push(evict),
    sessions: () => [],
    load: () => ({ connections: 0, sessions: 0 }),
  });
  onTestFinished(() => bridge.stop());
  const login = await bridge.login(bkvId, 'bkv');
  if (!login.granted) throw new Error(login.reason);
  return { evicted, epoch: login.epoch };
}

describe('DELETE /v1/devices/:id', () => {
  it('makes the device unknown and ends its session', async () => {
    const api = await realApi();
    const { evicted, epoch } = await connected(api);
    await api.call('admin', 'PUT', device);
    expect(await isCopied(api)).toBe(1);
    const answer = await api.call('admin', 'DELETE', device);
    expect([answer.status, answer.text]).toEqual([204, '']);
    await eventually(() =>
      expect(evicted).toEqual([{ t: 'evict', deviceId: bkvId, epoch: epoch + 1, removed: true }]),
    );
    expect(await isCopied(api)).toBe(0);
    expect(await api.devices.find(bkvId)).toBeNull();
    expect((await api.call('read', 'GET', device)).status).toBe(404);
    const refused = await api.call('send', 'POST', '/v1/commands', stop);
    expect([refused.status, refused.json.code]).toEqual([404, 'DEVICE_UNKNOWN']);
  });

  it('answers 404 for a device that nobody knows, the second time too', async () => {
    const api = await realApi();
    expect((await api.call('admin', 'DELETE', device)).status).toBe(204);
    const again = await api.call('admin', 'DELETE', device);
    expect([again.status, again.json.code]).toEqual([404, 'DEVICE_UNKNOWN']);
  });

  it('is refused while a command is unfinished, says which, and leaves its ended ones', async () => {
    const api = await realApi();
    const { json: command } = await api.call('send', 'POST', '/v1/commands', stop);
    const refused = await api.call('admin', 'DELETE', device);
    expect([refused.status, refused.json.code]).toEqual([409, 'CONFLICT']);
    expect(refused.json).toMatchObject({ id: command.id });
    expect(refused.json.detail).toContain('cancel them first');
    expect(await api.devices.find(bkvId)).not.toBeNull();
    await api.call('send', 'DELETE', `/v1/commands/${command.id}`);
    expect((await api.call('admin', 'DELETE', device)).status).toBe(204);
    expect((await api.call('read', 'GET', `/v1/commands/${command.id}`)).json.status).toBe(
      'cancelled',
    );
  });

  it('finishes what an earlier removal left: a session of a device without a row', async () => {
    const api = await realApi();
    await api.call('admin', 'DELETE', device);
    const { evicted } = await connected(api);
    expect((await api.call('admin', 'DELETE', device)).status).toBe(204);
    await eventually(() => expect(evicted).toHaveLength(1));
  });

  it('changes nothing while Redis is away', async () => {
    const api = buildApi();
    await api.call('admin', 'PUT', device);
    api.memory.state.redis = 'away';
    const answer = await api.call('admin', 'DELETE', device);
    expect([answer.status, answer.json.code]).toEqual([503, 'STORE_UNAVAILABLE']);
    expect(api.memory.known.has(bkvId)).toBe(true);
    await api.app.close();
  });

  it('refuses what is no device id', async () => {
    const api = buildApi();
    expect((await api.call('admin', 'DELETE', '/v1/devices/xyz')).status).toBe(400);
    await api.app.close();
  });
});

describe('PUT /v1/devices/:id', () => {
  it('registers for good though the gateways cannot be told yet', async () => {
    const admit = () => Promise.reject(new Error('redis is away'));
    const api = buildApi({ admit });
    expect((await api.call('admin', 'PUT', device)).status).toBe(201);
    expect(api.memory.known.has(bkvId)).toBe(true);
    await api.app.close();
  });
});
