/** Writes what became of commands: to the ledger, or to the stream that stands in for it while it is away. */
import type { Redis } from 'ioredis';
import type { Report } from '../src/bridge/gateway-bridge.ts';
import type { Keys } from '../src/bridge/keys.ts';
import type { Command, CommandRecord } from '../src/command.ts';
import { isRedisOutage } from '../src/connections/outage.ts';
import { messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Protocol } from '../src/protocols/protocol.ts';
import type { Ledger } from '../src/store/contract.ts';

export type Recorder = {
  /** Resolves once the record is in the ledger or in its stand-in. */
  record(record: CommandRecord): Promise<void>;
  /** For steps that need not be waited for. What the ledger misses here comes with the settlement. */
  recordLater(record: CommandRecord): void;
  /** Tells the API process that waits for this command's end, if one does. */
  notifyWaiter(command: Command): void;
  /** Repeats a step that needs Redis while Redis is away, until the worker closes. */
  untilDone<T>(step: () => Promise<T>): Promise<T>;
};

export type RecorderDeps = {
  ledger: Pick<Ledger, 'write'>;
  redis: Redis;
  keys: Keys;
  protocols: readonly Protocol[];
  log: Log;
  /** Aborted when the worker must end. */
  closing: AbortSignal;
};

const firstPauseMs = 50;
const maxPauseMs = 2_000;

export function createRecorder(deps: RecorderDeps): Recorder {
  const { ledger, redis, keys, protocols, log, closing } = deps;

  async function untilDone<T>(step: () => Promise<T>): Promise<T> {
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, maxPauseMs)) {
      try {
        return await step();
      } catch (error) {
        if (closing.aborted || !isRedisOutage(error)) throw error;
        log.debug({ error: messageOf(error) }, 'step repeated');
        await pause(pauseMs * (0.5 + Math.random() / 2));
      }
    }
  }

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        closing.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      closing.addEventListener('abort', done, { once: true });
    });
  }

  async function record(settlement: CommandRecord): Promise<void> {
    const report = orderReport(settlement, protocols);
    // First: a settlement that is recorded is not looked at again, and telling of an order twice is harmless.
    if (report) await untilDone(() => redis.xadd(keys.uplink(), '*', 'r', JSON.stringify(report)));
    await untilDone(async () => {
      try {
        await ledger.write(settlement);
      } catch (error) {
        log.debug({ commandId: settlement.id, error: messageOf(error) }, 'ledger stood in for');
        await redis.xadd(keys.settlements(), '*', 's', JSON.stringify(settlement));
      }
    });
  }

  return {
    record,
    recordLater(step) {
      ledger.write(step).catch((error) => {
        log.debug({ commandId: step.id, error: messageOf(error) }, 'step not in the ledger');
      });
    },
    notifyWaiter({ id, waiter }) {
      if (waiter === null) return;
      // The waiter also asks the ledger by itself; a lost word costs it a second.
      redis.publish(keys.apiChannel(waiter), JSON.stringify({ id })).catch(() => undefined);
    },
    untilDone,
  };
}

/** What the uplink writer makes an order of: a start that the device acknowledged. Null for everything else. */
function orderReport(record: CommandRecord, protocols: readonly Protocol[]): Report | null {
  const { id, deviceId, status, command, params, result, settledAt } = record;
  const protocol = protocols.find(({ name }) => name === record.protocol);
  if (status !== 'succeeded' || !protocol) return null;
  const at = settledAt ?? Date.now();
  const done = { command, params, result, at, commandId: id };
  if (!protocol.sightingsOfResult(done).some(({ kind }) => kind === 'order')) return null;
  const fields = { commandId: id, command, params, result };
  const said = { name: 'command.succeeded', weight: 'money' as const, at, msgId: 0, frame: '' };
  return { deviceId, protocol: protocol.name, ...said, fields };
}
