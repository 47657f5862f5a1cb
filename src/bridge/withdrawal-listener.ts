/** Hears what gateways answer to the withdrawals of a process that delivers nothing itself. */
import type { Redis } from 'ioredis';
import type { Log } from '../log/log.ts';
import { parseBatch } from './messages.ts';
import type { Withdrawals } from './withdrawals.ts';

export type WithdrawalListener = { start(): Promise<void>; close(): Promise<void> };

export type WithdrawalListenerDeps = {
  /** A `subscriber` client; others may listen on it too. */
  redis: Pick<Redis, 'subscribe' | 'unsubscribe' | 'on' | 'off'>;
  /** The worker channel of the id that withdraws. */
  channel: string;
  withdrawals: Pick<Withdrawals, 'receive'>;
  log: Log;
  timeoutMs?: number;
};

/** Without its answers a withdrawal counts as unanswered, so a Redis that is away keeps nobody from starting. */
export function createWithdrawalListener(deps: WithdrawalListenerDeps): WithdrawalListener {
  const { redis, channel, withdrawals, log, timeoutMs = 2_000 } = deps;

  function onMessage(from: string, text: string): void {
    if (from !== channel) return;
    const { messages, faults } = parseBatch('receipt', text);
    for (const fault of faults) log.warn({ fault }, 'receipt unreadable');
    for (const receipt of messages) withdrawals.receive(receipt);
  }

  async function within(step: Promise<unknown>): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const pause = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([step.catch(() => undefined), pause]);
    clearTimeout(timer);
  }

  return {
    async start() {
      redis.on('message', onMessage);
      const subscribed = redis.subscribe(channel);
      subscribed.catch((error: unknown) => log.warn({ error }, 'withdrawals cannot be heard'));
      await within(subscribed);
    },
    async close() {
      redis.off('message', onMessage);
      await within(redis.unsubscribe(channel));
    },
  };
}
