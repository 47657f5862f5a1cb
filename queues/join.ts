/** Takes a place in a line, and looks twice before it says that somebody is in the way. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Joined, JoinRequest, Routes } from '../src/bridge/routes-contract.ts';
import { isFinal } from '../src/command.ts';
import type { Ledger } from '../src/store/contract.ts';
import { bounded } from './bounded.ts';

export type Join = (request: JoinRequest) => Promise<Joined>;

export type JoinDeps = {
  routes: Pick<Routes, 'join'>;
  ledger: Pick<Ledger, 'find'>;
};

/** From the end in the ledger to the release of the line, in all. */
const patienceMs = 500;
const lookEveryMs = 20;

/** An end is stored before its place is free: whoever has read it may start the same port at once. */
export function createJoin({ routes, ledger }: JoinDeps): Join {
  return async function join(request) {
    const until = performance.now() + patienceMs;
    for (;;) {
      const joined = await routes.join(request);
      const leftMs = until - performance.now();
      if (joined.kind !== 'conflict' || leftMs <= 0) return joined;
      // A ledger that is slow or away must not cost the first answer.
      const late = () => new Error(`no answer within ${leftMs} ms`);
      const other = await bounded(ledger.find(joined.with), leftMs, late).catch(() => null);
      if (!other || !isFinal(other.status)) return joined;
      await delay(lookEveryMs);
    }
  };
}
