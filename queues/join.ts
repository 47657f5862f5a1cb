/** Takes a place in a line, and looks twice before it says that somebody is in the way. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Joined, JoinRequest, Routes } from '../src/bridge/routes-contract.ts';
import { isFinal } from '../src/command.ts';
import type { Ledger } from '../src/store/contract.ts';

export type Join = (request: JoinRequest) => Promise<Joined>;

export type JoinDeps = {
  routes: Pick<Routes, 'join'>;
  ledger: Pick<Ledger, 'find'>;
};

/** From the end in the ledger to the release of the line. */
const patienceMs = 500;
const lookEveryMs = 20;

/** An end is stored before its place is free: whoever has read it may start the same port at once. */
export function createJoin({ routes, ledger }: JoinDeps): Join {
  return async function join(request) {
    for (let waitedMs = 0; ; waitedMs += lookEveryMs) {
      const joined = await routes.join(request);
      if (joined.kind !== 'conflict' || waitedMs >= patienceMs) return joined;
      const other = await ledger.find(joined.with).catch(() => null);
      if (!other || !isFinal(other.status)) return joined;
      await delay(lookEveryMs);
    }
  };
}
