/** What follows when a command replaced older ones of its line: their frames are taken back, their ends hastened. */
import type { Routes } from '../src/bridge/routes-contract.ts';
import type { Withdrawals } from '../src/bridge/withdrawals.ts';
import type { Log } from '../src/log/log.ts';
import { bounded } from './bounded.ts';
import type { Outbound } from './contract.ts';

export type Supersede = {
  /** Resolves when none of them can be written any more, as far as their gateway can be reached. Never rejects. */
  withdraw(deviceId: string, ids: readonly string[]): Promise<void>;
  /** Lets a worker end them before it does anything else. Not waited for. */
  hasten(deviceId: string, ids: readonly string[]): void;
};

export type SupersedeDeps = {
  routes: Pick<Routes, 'mark'>;
  withdrawals: Pick<Withdrawals, 'withdraw'>;
  outbound: Pick<Outbound, 'hasten'>;
  log: Log;
  timeoutMs?: number;
};

export function createSupersede(deps: SupersedeDeps): Supersede {
  const { routes, withdrawals, outbound, log, timeoutMs = 2_000 } = deps;

  /** A mark that was written after the revocation cannot be: what has none now is never published. */
  async function withdrawOne(deviceId: string, id: string): Promise<void> {
    const mark = await routes.mark(deviceId, id);
    if (!mark?.gatewayId) return;
    const { gatewayId, attempt } = mark;
    const withdrawal = await withdrawals.withdraw({ gatewayId, deviceId, id, attempt });
    if (withdrawal === 'silent') {
      log.warn({ commandId: id, deviceId, gatewayId }, 'replaced command not taken back');
    }
  }

  return {
    async withdraw(deviceId, ids) {
      if (ids.length === 0) return;
      const late = () => new Error(`no answer within ${timeoutMs} ms`);
      await Promise.all(
        ids.map((id) =>
          bounded(withdrawOne(deviceId, id), timeoutMs, late).catch((error: unknown) => {
            log.warn({ error, commandId: id, deviceId }, 'replaced command not taken back');
          }),
        ),
      );
    },
    hasten(deviceId, ids) {
      for (const id of ids) {
        outbound.hasten(deviceId, id).catch((error: unknown) => {
          log.debug({ error, commandId: id }, 'replaced command ends in its turn');
        });
      }
    },
  };
}
