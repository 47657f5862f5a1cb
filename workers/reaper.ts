/** Puts back what the queue lost or never got: the ledger is the memory, the queue the engine. */
import type { Redis } from 'ioredis';
import type { Enqueued, Outbound } from '../queues/contract.ts';
import { type Caps, joinOf, lineOf } from '../queues/line.ts';
import type { Supersede } from '../queues/supersede.ts';
import type { Keys } from '../src/bridge/keys.ts';
import { restingMark } from '../src/bridge/mark-scripts.ts';
import type { Revocation, Routes } from '../src/bridge/routes-contract.ts';
import { type Attempt, attemptsIn, type CommandRecord, isFinal } from '../src/command.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import { refusedReasons, unwrittenReasons } from '../src/outcome.ts';
import { protocolNamed, specOf } from '../src/protocols/index.ts';
import type { Ledger } from '../src/store/contract.ts';
import type { Recorder } from './recorder.ts';
import { type Circumstances, type End, judge } from './settle.ts';

export type ReaperDeps = {
  redis: Redis;
  keys: Keys;
  routes: Pick<Routes, 'join' | 'release' | 'cameMeanwhile'>;
  ledger: Pick<Ledger, 'unfinished' | 'findMany' | 'clearLedgerOnly' | 'replacedBy'>;
  outbound: Pick<Outbound, 'holds' | 'enqueueMany' | 'wake' | 'forget'>;
  supersede: Supersede;
  recorder: Recorder;
  caps: Caps;
  log: Log;
  now: () => number;
};

const page = 500;
/** A command younger than this may be on its way into the queue at this moment. */
export const youngMs = 5_000;

export type Reaper = {
  /**
   * Looks at unfinished rows; all of them, or only those that the queue refused at accept. Throws
   * STORE_UNAVAILABLE while settlements are still on their way to the ledger.
   */
  reap(which: { ledgerOnly: boolean }): Promise<{ seen: number; putBack: number; ended: number }>;
};

export function createReaper(deps: ReaperDeps): Reaper {
  const { redis, keys, routes, ledger, outbound, supersede, recorder, caps, log, now } = deps;

  async function reap({ ledgerOnly }: { ledgerOnly: boolean }) {
    const done = { seen: 0, putBack: 0, ended: 0 };
    // Settlements that still travel would look like commands that nobody holds.
    if ((await redis.xlen(keys.settlements())) > 0) {
      throw new DownlinkError('STORE_UNAVAILABLE', 'settlements are on their way to the ledger');
    }
    let afterId: string | null = null;
    for (;;) {
      const rows: CommandRecord[] = await ledger.unfinished({
        afterId,
        // One that was marked is on its way no more.
        acceptedBefore: ledgerOnly ? now() + 1 : now() - youngMs,
        limit: page,
        ledgerOnly,
      });
      done.seen += rows.length;
      const orphans = await orphansOf(rows);
      const { putBack, ended } = await restore(orphans);
      done.putBack += putBack;
      done.ended += ended;
      if (ledgerOnly && rows.length > 0) await ledger.clearLedgerOnly(rows.map(({ id }) => id));
      if (rows.length < page) break;
      afterId = rows.at(-1)!.id;
    }
    if (done.putBack + done.ended > 0) log.warn(done, 'commands put back into the queue');
    return done;
  }

  /** Unfinished rows without a job, read twice: a job may have ended between the two looks. */
  async function orphansOf(rows: CommandRecord[]): Promise<CommandRecord[]> {
    if (rows.length === 0) return [];
    const held = await outbound.holds(rows);
    const missing = rows.filter(({ id }) => !held.has(id)).map(({ id }) => id);
    if (missing.length === 0) return [];
    const again = await ledger.findMany(missing);
    return [...again.values()]
      .filter(({ status }) => !isFinal(status))
      .sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  async function restore(orphans: CommandRecord[]): Promise<{ putBack: number; ended: number }> {
    const back: Enqueued[] = [];
    let ended = 0;
    const replaced = await replacedOf(orphans);
    // One after the other: in the order of acceptance they take their places in their lines.
    for (const row of orphans) {
      const tried = attemptsIn(row).filter(mayHaveReached);
      const attempt = Math.max(0, ...tried.map((entry) => entry.attempt));
      const by = replaced.get(row.id);
      const revocation: Revocation | null = by ? { kind: 'superseded', by } : null;
      const verdict = verdictOn(row, attempt, revocation) ?? (await rejoin(row, attempt, back));
      if (verdict?.kind === 'end') {
        ended += 1;
        const { status, reason, code, result } = verdict;
        const settledAt = now();
        const version = row.version + 1;
        await recorder.record({ ...row, version, status, reason, code, result, settledAt });
        await release(row);
        continue;
      }
      const last = tried.find((entry) => entry.attempt === attempt);
      if (last) await keepWireId(row, last);
    }
    // A finished job of the same id would make the add do nothing.
    for (const { command } of back) await outbound.forget(command.deviceId, command.id);
    if (back.length > 0) await outbound.enqueueMany(back);
    for (const { command, blocked } of back) if (blocked) await wakeIfFree(command);
    return { putBack: back.length, ended };
  }

  /** Takes its place and notes it for the queue; resolves with its end where there is no place for it. */
  async function rejoin(
    row: CommandRecord,
    attempt: number,
    back: Enqueued[],
  ): Promise<End | null> {
    const base = { attempt, version: row.version };
    const spec = specOf(row);
    // A scheduled one joins when it is due.
    if (!spec || row.notBefore > now()) {
      back.push({ command: row, base });
      return null;
    }
    const joined = await routes.join(joinOf(row, spec, 'refill', caps));
    if (joined.kind === 'joined') {
      await supersede.withdraw(row.deviceId, joined.superseded);
      supersede.hasten(row.deviceId, joined.superseded);
    }
    if (joined.kind === 'joined' || joined.kind === 'full') {
      back.push({
        command: row,
        base,
        blocked: joined.kind === 'joined' && joined.blockedBy !== null,
      });
      return null;
    }
    const given = circumstances(row, attempt);
    const verdict =
      joined.kind === 'superseded'
        ? judge(
            { kind: 'unwritten', reason: 'key-blocked' },
            { ...given, revocation: { kind: 'superseded', by: joined.by } },
          )
        : judge(
            {
              kind: 'refused',
              reason: 'conflict',
              detail: `command ${joined.with}, which it excludes, was unfinished when the queue was back`,
            },
            given,
          );
    return verdict.kind === 'end' ? verdict : null;
  }

  /** The queue store forgot who had replaced whom: the order of acceptance tells. */
  async function replacedOf(orphans: CommandRecord[]): Promise<Map<string, string>> {
    const rows = orphans.flatMap((row) => {
      const { id, deviceId, orderKey } = row;
      const names = stopsOf(row);
      return orderKey !== null && names.length > 0 ? [{ id, deviceId, orderKey, names }] : [];
    });
    return rows.length > 0 ? ledger.replacedBy(rows) : new Map();
  }

  async function wakeIfFree({ id, deviceId }: CommandRecord | Enqueued['command']): Promise<void> {
    const query = { deviceId, id, epoch: '', because: 'key-blocked' };
    if (await routes.cameMeanwhile(query)) await outbound.wake(deviceId, id);
  }

  async function release(row: CommandRecord): Promise<void> {
    const { id, deviceId } = row;
    const line = lineOf(row, specOf(row));
    const options = { line, mode: 'final', wake: 1, again: true, attempt: 0 } as const;
    const woken = await routes.release({ deviceId, id, ...options });
    for (const next of woken) await outbound.wake(deviceId, next);
  }

  /** The next frame of a command carries the wire id of the last one, though Redis has forgotten it. */
  async function keepWireId({ deviceId, id }: CommandRecord, last: Attempt): Promise<void> {
    await redis.hset(keys.marks(deviceId), id, restingMark(last));
  }

  /** Written ones go through the ambiguity rule, expired and replaced ones end; the rest (null) goes back as it was. */
  function verdictOn(row: CommandRecord, attempt: number, revocation: Revocation | null) {
    const given = { ...circumstances(row, attempt), revocation };
    if (attempt > 0) {
      const outcome = { kind: 'ambiguous', reason: 'gateway-lost' } as const;
      const verdict = judge({ ...outcome, writtenAt: null, endedAt: now() }, given);
      return verdict.kind === 'end' ? verdict : null;
    }
    if (revocation) return judge({ kind: 'unwritten', reason: 'key-blocked' }, given);
    if (now() < row.deadline) return null;
    return judge({ kind: 'refused', reason: 'expired', detail: 'lost with its queue' }, given);
  }

  function circumstances(row: CommandRecord, attempt: number): Circumstances {
    return {
      command: row,
      spec: specOf(row),
      revocation: null,
      blockedBy: null,
      unclear: null,
      attempt,
      writtenBefore: attempt > 0,
      now: now(),
      random: 0,
    };
  }

  return { reap };
}

const surelyUnwritten: ReadonlySet<string> = new Set([...unwrittenReasons, ...refusedReasons]);

function mayHaveReached({ outcome }: CommandRecord['trail'][string]): boolean {
  return outcome === null || !surelyUnwritten.has(outcome);
}

/** Names of the stops that replace a command of this kind in its line. */
function stopsOf(row: CommandRecord): string[] {
  if (!lineOf(row, specOf(row))?.startsWith('t:')) return [];
  return Object.entries(protocolNamed(row.protocol)?.commands ?? {})
    .filter(([, spec]) => spec.preempts === true && spec.supersedes.includes(row.command))
    .map(([name]) => name);
}
