/** Real stores for the tests of the worker's duties, under names of their own; closed when the test ends. */
import { type Processor, Worker } from 'bullmq';
import { onTestFinished } from 'vitest';
import type { OutboundJob } from '../../queues/job.ts';
import { joinOf } from '../../queues/line.ts';
import { createOutbound } from '../../queues/outbound.ts';
import { createTakeBack } from '../../queues/take-back.ts';
import { createKeys } from '../../src/bridge/keys.ts';
import { createRoutes } from '../../src/bridge/routes.ts';
import type { JoinRequest } from '../../src/bridge/routes-contract.ts';
import type { Command, CommandRecord } from '../../src/command.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { protocolNamed, protocols } from '../../src/protocols/index.ts';
import { freshLedger, quietLog as log } from '../store/fixture.ts';
import { newRecord } from '../store/records.ts';
import { eventually } from '../support/eventually.ts';
import { freshRedis } from '../support/stores.ts';

export async function dutyStores({ shards = 2 } = {}) {
  const { ledger, database } = await freshLedger();
  const { url, prefix } = await freshRedis();
  const redis = connectRedis({ url, purpose: 'commands', name: 'test' });
  const keys = createKeys(prefix, shards);
  const outbound = createOutbound({ redis, keys, onError: () => undefined });
  const routes = createRoutes({ redis, keys, log });
  const notified: string[] = [];
  const takeBack = createTakeBack({
    outbound,
    routes,
    ledger,
    protocols,
    notify: ({ id }) => notified.push(id),
  });
  onTestFinished(async () => {
    await outbound.close();
    await closeRedis(redis);
  });

  /** Stores the command in ledger and queue, as accept does. */
  async function accept(wanted: Partial<CommandRecord> = {}): Promise<CommandRecord> {
    const record = query(wanted);
    await Promise.all([ledger.write(record), outbound.enqueue({ command: record })]);
    return record;
  }

  /** The same, in its line. */
  async function acceptInLine(wanted: Partial<CommandRecord> = {}): Promise<CommandRecord> {
    const record = newRecord(wanted);
    const joined = await join(record);
    const blocked = joined.kind === 'joined' && joined.blockedBy !== null;
    await Promise.all([ledger.write(record), outbound.enqueue({ command: record, blocked })]);
    return record;
  }

  function join(command: Command, mode: JoinRequest['mode'] = 'accept') {
    const spec = protocolNamed(command.protocol)!.commands[command.command]!;
    return routes.join(joinOf(command, spec, mode, { maxPerKey: 50, maxPerDevice: 500 }));
  }

  /** Gives the shard of a device to a consumer; resolves once it has taken so many jobs. */
  async function consume(
    deviceId: string,
    process: Processor<OutboundJob>,
    { jobs }: { jobs: number },
  ): Promise<void> {
    let taken = 0;
    const shard = keys.shardOf(deviceId);
    const connection = connectRedis({ url, purpose: 'blocking', name: 'consumer' });
    const worker = new Worker<OutboundJob>(
      keys.queueName(shard),
      (job, token) => {
        taken += 1;
        return process(job, token);
      },
      { connection, prefix: keys.queuePrefix(shard), concurrency: 50 },
    );
    onTestFinished(async () => {
      await worker.close(true);
      await closeRedis(connection);
    });
    await eventually(() => {
      if (taken < jobs) throw new Error(`${taken} of ${jobs} jobs were taken`);
    });
  }

  return {
    redis,
    keys,
    outbound,
    routes,
    ledger,
    database,
    takeBack,
    notified,
    accept,
    acceptInLine,
    join,
    consume,
    log,
  };
}

/** A command that keeps no order. */
export function query(wanted: Partial<CommandRecord> = {}): CommandRecord {
  return newRecord({
    command: 'port.query',
    params: { socket: 1 },
    orderKey: null,
    onAmbiguous: 'resend',
    ...wanted,
  });
}
