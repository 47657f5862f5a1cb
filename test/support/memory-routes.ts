/** Lines, marks and revocations in memory, with the rules of `routes-contract.ts` that accept and cancel rely on. */
import type { Mark, Revocation, Routes } from '../../src/bridge/routes-contract.ts';
import type { Withdrawal, Withdrawals } from '../../src/bridge/withdrawals.ts';
import { DownlinkError } from '../../src/errors.ts';
import type { Condition } from './memory-stores.ts';

type Standing = { id: string; command: string; preempts: boolean };

export function createMemoryRoutes() {
  const lines = new Map<string, Standing[]>();
  const marks = new Map<string, Mark>();
  const revocations = new Map<string, Revocation>();
  const left: string[] = [];
  const state = { condition: 'well' as Condition, cameMeanwhile: false };

  async function answers(): Promise<void> {
    const { condition } = state;
    if (condition === 'away') throw new DownlinkError('QUEUE_UNAVAILABLE', 'the store is away');
    if (condition === 'hangs') await new Promise<never>(() => undefined);
    await condition;
  }

  function drop(deviceId: string, id: string, line: string | null): void {
    marks.delete(id);
    revocations.delete(id);
    const name = `${deviceId}|${line}`;
    lines.set(
      name,
      (lines.get(name) ?? []).filter((other) => other.id !== id),
    );
  }

  const notNeeded = () => Promise.reject(new Error('not part of this stand-in'));

  const routes: Routes = {
    async join(request) {
      await answers();
      const { id, deviceId, line, command, supersedes, preempts, excludes, mode } = request;
      if (line === null) return { kind: 'joined', seq: 0, blockedBy: null, superseded: [] };
      const name = `${deviceId}|${line}`;
      const standing = (lines.get(name) ?? []).filter((other) => !revocations.has(other.id));
      const rival = standing.find((other) => excludes.includes(other.command));
      if (rival) return { kind: 'conflict', with: rival.id };
      if (mode === 'accept' && !preempts && standing.length >= request.maxPerKey) {
        return { kind: 'full', of: 'key', waiting: standing.length };
      }
      const superseded = standing
        .filter((other) => supersedes.includes(other.command) && (preempts || !marks.has(other.id)))
        .map((other) => other.id);
      for (const other of superseded) revocations.set(other, { kind: 'superseded', by: id });
      const ahead = standing.find(
        (other) => (!preempts || other.preempts) && !superseded.includes(other.id),
      );
      lines.set(name, [...(lines.get(name) ?? []), { id, command, preempts }]);
      return { kind: 'joined', seq: 1, blockedBy: ahead?.id ?? null, superseded };
    },
    async undoJoin(deviceId, id, line) {
      await answers();
      left.push(id);
      drop(deviceId, id, line);
      return [];
    },
    async release({ deviceId, id, line }) {
      await answers();
      drop(deviceId, id, line);
      return (lines.get(`${deviceId}|${line}`) ?? []).slice(0, 1).map((other) => other.id);
    },
    async revoke(_deviceId, id, revocation) {
      await answers();
      const mark = marks.get(id) ?? null;
      if (mark?.written) return { kind: 'written', mark };
      if (!revocations.has(id)) revocations.set(id, revocation);
      return { kind: 'revoked', revocation: revocations.get(id)!, mark };
    },
    async unrevoke(_deviceId, id) {
      await answers();
      if (revocations.get(id)?.kind === 'cancelled') revocations.delete(id);
    },
    async revocation(_deviceId, id) {
      await answers();
      return revocations.get(id) ?? null;
    },
    async mark(_deviceId, id) {
      await answers();
      return marks.get(id) ?? null;
    },
    async cameMeanwhile() {
      await answers();
      return state.cameMeanwhile;
    },
    route: notNeeded,
    park: notNeeded,
    wakeable: notNeeded,
    leave: notNeeded,
    setPaused: notNeeded,
    pausedDevices: notNeeded,
    keepUnanswered: notNeeded,
    forgetUnanswered: notNeeded,
    inspect: notNeeded,
  };
  return { routes, lines, marks, revocations, left, state };
}

/** Gateways that answer every withdrawal as the test says. */
export function createMemoryWithdrawals() {
  const asked: string[] = [];
  const state = { answer: 'withdrawn' as Withdrawal };
  const withdrawals: Pick<Withdrawals, 'withdraw'> = {
    async withdraw({ id }) {
      asked.push(id);
      return state.answer;
    },
  };
  return { withdrawals, asked, state };
}
