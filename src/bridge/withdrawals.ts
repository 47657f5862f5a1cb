/** Takes deliveries back from gateways, from any process. */
import type { Keys } from './keys.ts';
import type { Receipt } from './messages.ts';
import type { Outbox } from './outbox.ts';

/** `withdrawn`: surely not written. `written`: too late. `ended`: its outcome was known. `silent`: nobody answered. */
export type Withdrawal = 'withdrawn' | 'written' | 'ended' | 'silent';

export type Withdrawals = {
  withdraw(target: {
    gatewayId: string;
    deviceId: string;
    id: string;
    attempt: number;
  }): Promise<Withdrawal>;
  /** Whoever listens on the answers' channel gives every receipt to this; true when it was for a withdrawal. */
  receive(receipt: Receipt): boolean;
};

export type WithdrawalsDeps = {
  /** Answers come to this id's worker channel. */
  from: string;
  outbox: Outbox;
  keys: Keys;
  timeoutMs?: number;
};

type Waiter = { resolve(withdrawal: Withdrawal): void; timer: NodeJS.Timeout };

export function createWithdrawals(deps: WithdrawalsDeps): Withdrawals {
  const { from, outbox, keys, timeoutMs = 1_500 } = deps;
  const waiters = new Map<string, Waiter[]>();

  function end(key: string, withdrawal: Withdrawal): boolean {
    const waiting = waiters.get(key);
    waiters.delete(key);
    for (const { resolve, timer } of waiting ?? []) {
      clearTimeout(timer);
      resolve(withdrawal);
    }
    return waiting !== undefined;
  }

  return {
    withdraw: ({ gatewayId, deviceId, id, attempt }) =>
      new Promise((resolve) => {
        const key = `${id}#${attempt}`;
        const timer = setTimeout(() => end(key, 'silent'), timeoutMs);
        waiters.set(key, [...(waiters.get(key) ?? []), { resolve, timer }]);
        const message = { t: 'withdraw', id, attempt, workerId: from, deviceId };
        outbox.send(keys.gatewayChannel(gatewayId), message, (sent) => {
          if ('receivers' in sent && sent.receivers === 0) end(key, 'silent');
        });
      }),
    receive({ t, id, attempt, ...rest }) {
      if (waiters.size === 0) return false;
      const key = `${id}#${attempt}`;
      if (t === 'lined') return false;
      if (t === 'written') return end(key, 'written');
      const { outcome } = rest as Extract<Receipt, { t: 'ended' }>;
      const unwritten = outcome.kind === 'unwritten' || outcome.kind === 'refused';
      return end(key, unwritten ? 'withdrawn' : 'ended');
    },
  };
}
