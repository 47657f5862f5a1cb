/** Accept, cancel and all they stand on, over real stores. Closed at the end of the test that asked. */

import { v7 as uuidV7 } from 'uuid';
import { onTestFinished } from 'vitest';
import { type AcceptDeps, createAccept } from '../../queues/accept.ts';
import { createOutbound } from '../../queues/outbound.ts';
import { createTakeBack } from '../../queues/take-back.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import { encodeBatch, parseBatch } from '../../src/bridge/messages.ts';
import { createOutbox } from '../../src/bridge/outbox.ts';
import { createRoutes } from '../../src/bridge/routes.ts';
import { createWithdrawalListener } from '../../src/bridge/withdrawal-listener.ts';
import { createWithdrawals } from '../../src/bridge/withdrawals.ts';
import type { Command } from '../../src/command.ts';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { closeRedis, connectRedis, type RedisPurpose } from '../../src/connections/redis.ts';
import { createLog } from '../../src/log/log.ts';
import type { Outcome } from '../../src/outcome.ts';
import { protocols } from '../../src/protocols/index.ts';
import { createLedger } from '../../src/store/ledger.ts';
import { freshDatabase, freshRedis } from '../support/stores.ts';

export const bkvId = '82200520004869';
export const ap3000Id = '04ab373b';
const closedPort = 'redis://127.0.0.1:1';
const noDatabase = 'postgres://nobody@127.0.0.1:1/none';

export type World = Awaited<ReturnType<typeof freshWorld>>;

export async function freshWorld(
  options: { redis?: 'away'; postgres?: 'away'; accept?: Partial<AcceptDeps> } = {},
) {
  const [{ url, prefix }, database] = await Promise.all([freshRedis(), freshDatabase()]);
  const log = createLog({ level: 'silent', role: 'test' });
  const keys = createKeys(prefix, 4);
  const from = `api-${uuidV7().slice(-8)}`;

  function connect(purpose: RedisPurpose, at = url) {
    const redis = connectRedis({ url: at, purpose, name: 'test', onError: () => undefined });
    onTestFinished(() => closeRedis(redis));
    return redis;
  }

  const pool = connectPostgres({
    url: options.postgres ? noDatabase : database.url,
    applicationName: 'accept-test',
    max: 4,
  });
  const ledger = createLedger({ pool, log });
  onTestFinished(async () => {
    await ledger.close();
    await pool.end();
  });

  const redis = connect('commands', options.redis ? closedPort : url);
  const outbound = createOutbound({ redis, keys, onError: () => undefined, timeoutMs: 1_000 });
  onTestFinished(() => outbound.close());
  const routes = createRoutes({ redis, keys, log });
  const outbox = createOutbox({ redis, from });
  const withdrawals = createWithdrawals({ from, outbox, keys, timeoutMs: 400 });
  const subscriber = connect('subscriber');
  const listener = createWithdrawalListener({
    redis: subscriber,
    channel: keys.workerChannel(from),
    withdrawals,
    log,
  });
  await listener.start();
  onTestFinished(() => listener.close());

  const devices = {
    find: async (id: string) =>
      id === ap3000Id ? { protocol: 'ap3000' } : { protocol: 'bkv' as string },
  };
  const accept = createAccept({
    ledger,
    outbound,
    routes,
    withdrawals,
    caps: { maxPerKey: 50, maxPerDevice: 500 },
    devices,
    presence: { find: async () => null },
    protocols,
    log,
    newId: () => uuidV7(),
    ...options.accept,
  });
  const told: string[] = [];
  const takeBack = createTakeBack({
    outbound,
    routes,
    ledger,
    protocols,
    notify: ({ id }: Command) => told.push(id),
  });

  const world = {
    accept,
    ledger,
    outbound,
    routes,
    withdrawals,
    takeBack,
    redis,
    keys,
    log,
    told,
    /** Puts the device online at a gateway of this name. */
    async connectDevice(gatewayId: string, deviceId = bkvId) {
      const presence = { gatewayId, epoch: '1', protocol: 'bkv', since: '1' };
      await redis.hset(keys.presence(deviceId), presence);
    },
    /** What a worker does before it publishes a delivery of the command. */
    route: ({ id, deviceId, orderKey, priority }: Command, attempt = 1) =>
      routes.route({
        id,
        deviceId,
        line: orderKey === null ? null : `t:${orderKey}`,
        priority,
        attempt,
        maxAttempt: 4,
        maxWireId: 0xffff,
        again: true,
        probing: false,
      }),
    /** A gateway that answers every withdrawal like this; what it was asked. */
    async gateway(gatewayId: string, answer: 'withdrawn' | 'written' | Outcome | null) {
      const asked: string[] = [];
      const ear = connect('subscriber');
      await ear.subscribe(keys.gatewayChannel(gatewayId));
      ear.on('message', (_channel, text) => {
        for (const message of parseBatch('toGateway', text).messages) {
          if (message.t !== 'withdraw') continue;
          asked.push(message.id);
          if (answer === null) continue;
          const { id, attempt, deviceId, workerId } = message;
          const receipt =
            answer === 'written'
              ? { t: 'written', id, attempt, at: Date.now() }
              : { t: 'ended', id, attempt, deviceId, outcome: outcomeOf(answer) };
          const batch = encodeBatch(gatewayId, [JSON.stringify(receipt)]);
          void redis.publish(keys.workerChannel(workerId), batch);
        }
      });
      return asked;
    },
    jobOf: async (deviceId: string, id: string) =>
      outbound.queues[keys.shardOf(deviceId)]!.getJob(id),
  };
  return world;
}

function outcomeOf(answer: 'withdrawn' | Outcome | 'written') {
  if (typeof answer !== 'string') return answer;
  return { kind: 'refused', reason: 'withdrawn', detail: 'withdrawn before it was written' };
}

export const port = { socket: 1, port: 0 };
export const startBody = (more: object = {}) => ({
  deviceId: bkvId,
  command: 'charge.start',
  params: { ...port, mode: 'time', minutes: 60 },
  ...more,
});
export const stopBody = { deviceId: bkvId, command: 'charge.stop', params: port };
export const queryBody = (more: object = {}) => ({
  deviceId: bkvId,
  command: 'port.query',
  params: { socket: 1 },
  ...more,
});
