/** Takes an unfinished command out of the queue and ends it: for a cancel, and for what is overdue. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Mark, Routes } from '../src/bridge/routes-contract.ts';
import {
  type Attempt,
  assertTransition,
  attemptsIn,
  type Command,
  type CommandRecord,
  isFinal,
} from '../src/command.ts';
import { DownlinkError } from '../src/errors.ts';
import { refusedReasons, unwrittenReasons } from '../src/outcome.ts';
import { specOf } from '../src/protocols/index.ts';
import type { Protocol } from '../src/protocols/protocol.ts';
import type { Ledger } from '../src/store/contract.ts';
import { bounded } from './bounded.ts';
import type { Outbound } from './contract.ts';
import { lineOf } from './line.ts';

/** How a command ends that was taken back, given whether it may have been written. */
export type TakeBackVerdict = (
  mayBeWritten: boolean,
) => Pick<CommandRecord, 'status' | 'reason' | 'code'>;

export type TakenBack =
  /** The end is in the ledger. */
  | { kind: 'ended'; record: CommandRecord }
  /** A worker has it; nothing was changed. */
  | { kind: 'active' }
  /** The queue holds no unfinished job of it; nothing was changed. */
  | { kind: 'missing' }
  /** It had ended by itself. */
  | { kind: 'over'; record: CommandRecord };

/**
 * Takes a command from the queue and ends it in the ledger. `missingToo` ends one that the queue does not hold as
 * well: the caller knows then that no end of it is still travelling. Rejects when a store is away; the command is
 * in the queue again then, or marked for the reaper.
 */
export type TakeBack = (
  row: CommandRecord,
  verdict: TakeBackVerdict,
  options?: { missingToo?: boolean },
) => Promise<TakenBack>;

export type TakeBackDeps = {
  outbound: Pick<Outbound, 'find' | 'take' | 'enqueue' | 'wake'>;
  routes: Pick<Routes, 'mark' | 'release'>;
  ledger: Pick<Ledger, 'find' | 'write' | 'markLedgerOnly'>;
  protocols: readonly Protocol[];
  /** Tells the API process that waits for this command's end, if one does. Never throws. */
  notify(command: Command): void;
  now?: () => number;
  timeoutMs?: number;
};

/** Another process may write a newer version at the same time; more often than this it does not. */
const maxWrites = 3;
const trailLagMs = 250;
const lookEveryMs = 25;

export function createTakeBack(deps: TakeBackDeps): TakeBack {
  const { outbound, routes, ledger, protocols, notify, now = Date.now, timeoutMs = 2_000 } = deps;
  const late = () => new Error(`no answer within ${timeoutMs} ms`);

  return async function takeBack(row, verdict, { missingToo = false } = {}) {
    const { id, deviceId } = row;
    const held = await outbound.find(deviceId, id);
    const taken = await outbound.take(deviceId, id).catch(async (error: unknown) => {
      // A call that failed may have removed the job all the same: the reaper puts back what is gone.
      await leaveToReaper(id);
      throw error;
    });
    if (taken === 'active') return { kind: 'active' };
    const inQueue = taken === 'taken';
    let current = row;
    let endUnclear = false;
    try {
      // Read now: an attempt may have begun, or ended, until the job was ours.
      const [stored, mark] = await Promise.all([readRow(row), readMark(deviceId, id)]);
      current = withAttemptOf(stored ?? row, mark);
      if (isFinal(current.status)) {
        if (inQueue) await release(current);
        return { kind: 'over', record: current };
      }
      if (!inQueue && !missingToo) return { kind: 'missing' };
      const written = mayBeWritten(current) || mark?.written === true || !!mark?.gatewayId;
      const version = Math.max(held?.nextVersion ?? 1, current.version + 1);
      endUnclear = true;
      const result = await end(current, version, verdict(written));
      await release(result.record);
      if (result.kind === 'ended') notify(result.record);
      return result;
    } catch (error) {
      // It must not vanish from the queue without an end in the ledger.
      if (inQueue) await putBack(current, held?.nextVersion ?? current.version + 1);
      throw endUnclear ? unclear(id, error) : error;
    }
  };

  /** A run that sends its job back tells a moment later what became of its attempt. */
  async function readRow({ id }: CommandRecord): Promise<CommandRecord | null> {
    for (let waitedMs = 0; ; waitedMs += lookEveryMs) {
      const stored = await ledger.find(id);
      if (!stored || isFinal(stored.status) || waitedMs >= trailLagMs || !isOpen(stored)) {
        return stored;
      }
      await delay(lookEveryMs);
    }
  }

  async function readMark(deviceId: string, id: string): Promise<Mark | null> {
    try {
      return await bounded(routes.mark(deviceId, id), timeoutMs, late);
    } catch (cause) {
      const message = `the queue store did not say whether command ${id} was written: try again`;
      throw new DownlinkError('QUEUE_UNAVAILABLE', message, { cause });
    }
  }

  async function end(
    current: CommandRecord,
    firstVersion: number,
    verdict: ReturnType<TakeBackVerdict>,
  ): Promise<{ kind: 'ended' | 'over'; record: CommandRecord }> {
    const settledAt = now();
    let [base, version] = [current, firstVersion];
    for (let writes = 1; writes <= maxWrites; writes += 1) {
      assertTransition(base.status, verdict.status);
      const ended = { ...base, ...verdict, result: null, version, settledAt };
      const { applied } = await ledger.write(ended);
      if (applied) return { kind: 'ended', record: ended };
      base = (await ledger.find(current.id)) ?? base;
      if (isFinal(base.status)) return { kind: 'over', record: base };
      version = base.version + 1;
    }
    throw new DownlinkError(
      'LEDGER_UNAVAILABLE',
      `the row of command ${current.id} changed ${maxWrites} times while it was being ended: try again`,
    );
  }

  /** Its place goes to those behind it. A word that is lost here is made up for by their backstop. */
  async function release(record: CommandRecord): Promise<void> {
    const { id, deviceId } = record;
    const spec = specOf(record, protocols);
    try {
      const releasing = routes.release({
        deviceId,
        id,
        line: lineOf(record, spec),
        mode: 'final',
        // It may have been woken for a place in the lane, which the next one takes then.
        wake: 1,
        again: true,
        attempt: lastAttempt(record),
      });
      const woken = await bounded(releasing, timeoutMs, late);
      await Promise.allSettled(woken.map((next) => outbound.wake(deviceId, next)));
    } catch {
      // Its end is stored; lines are looked through for commands that have ended.
    }
  }

  async function putBack(row: CommandRecord, version: number): Promise<void> {
    const base = { attempt: lastAttempt(row, wasWritten), version };
    await outbound.enqueue({ command: row, base }).catch(() => leaveToReaper(row.id));
  }

  async function leaveToReaper(id: string): Promise<void> {
    await ledger.markLedgerOnly(id).catch(() => undefined);
  }
}

/** Outcomes, as the trail names them, of attempts whose bytes surely stayed here. */
const neverWritten: ReadonlySet<string> = new Set([...unwrittenReasons, ...refusedReasons]);

/** What its trail says: a published delivery without a clear "never written" counts as written. */
export function mayBeWritten({ status, trail }: CommandRecord): boolean {
  return status === 'sent' || Object.values(trail).some(wasWritten);
}

/** All that speaks for a write is an attempt of which nothing is known yet. */
export function isOpen({ status, trail }: CommandRecord): boolean {
  const attempts = Object.values(trail);
  const known = attempts.filter(isKnown);
  return status !== 'sent' && known.length < attempts.length && !known.some(wasWritten);
}

function isKnown({ writtenAt, outcome }: Attempt): boolean {
  return writtenAt !== null || outcome !== null;
}

/** Whether an attempt was written, or may have been. */
export function wasWritten({ writtenAt, outcome }: Attempt): boolean {
  return writtenAt !== null || outcome === null || !neverWritten.has(outcome);
}

function lastAttempt(record: CommandRecord, counts = (_attempt: Attempt) => true): number {
  return Math.max(
    0,
    ...attemptsIn(record)
      .filter(counts)
      .map(({ attempt }) => attempt),
  );
}

/** The attempt that its mark says was published, where the trail does not know of it. */
function withAttemptOf(record: CommandRecord, mark: Mark | null): CommandRecord {
  if (!mark?.gatewayId || record.trail[mark.attempt]) return record;
  const { attempt, gatewayId, epoch, wireId } = mark;
  const entry: Attempt = {
    attempt,
    // An epoch is the moment of the login, in microseconds: it was published later than that.
    at: Math.max(record.acceptedAt, Math.floor(epoch / 1_000)),
    gatewayId,
    epoch,
    wireId,
    frameOut: '',
    writtenAt: null,
    frameIn: null,
    ms: null,
    outcome: null,
  };
  return { ...record, trail: { ...record.trail, [attempt]: entry } };
}

/** The end may be in the ledger although its answer did not come. */
function unclear(id: string, cause: unknown): DownlinkError {
  const message = `the ledger did not say whether the end of command ${id} is stored: look at it again`;
  return new DownlinkError('LEDGER_UNAVAILABLE', message, { cause, details: { endUnclear: true } });
}
