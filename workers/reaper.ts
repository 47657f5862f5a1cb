/** Puts back what the queue lost or never got: the ledger is the memory, the queue the engine. */
import type { Redis } from 'ioredis';
import type { RedisOutbound } from '../queues/outbound.ts';
import type { Keys } from '../src/bridge/keys.ts';
import { restingMark } from '../src/bridge/scripts.ts';
import { type Attempt, type CommandRecord, isFinal } from '../src/command.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import { refusedReasons, unwrittenReasons } from '../src/outcome.ts';
import { protocolNamed } from '../src/protocols/index.ts';
import type { Ledger } from '../src/store/contract.ts';
import type { Recorder } from './recorder.ts';
import { judge } from './settle.ts';

export type ReaperDeps = {
  redis: Redis;
  keys: Keys;
  ledger: Pick<Ledger, 'unfinished' | 'findMany' | 'clearLedgerOnly'>;
  outbound: Pick<RedisOutbound, 'holds' | 'enqueueMany'>;
  recorder: Recorder;
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
  const { redis, keys, ledger, outbound, recorder, log, now } = deps;

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
        acceptedBefore: now() - youngMs,
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
    const back: Parameters<RedisOutbound['enqueueMany']>[0][number][] = [];
    let ended = 0;
    for (const row of orphans) {
      const tried = Object.values(row.trail).filter(mayHaveReached);
      const attempt = Math.max(0, ...tried.map((entry) => entry.attempt));
      const verdict = verdictOn(row, attempt);
      if (verdict?.kind === 'end') {
        ended += 1;
        const { status, reason, code, result } = verdict;
        const settledAt = now();
        const version = row.version + 1;
        await recorder.record({ ...row, version, status, reason, code, result, settledAt });
      } else {
        const last = tried.find((entry) => entry.attempt === attempt);
        if (last) await keepWireId(row, last);
        back.push({ command: row, base: { attempt, version: row.version } });
      }
    }
    if (back.length > 0) await outbound.enqueueMany(back);
    return { putBack: back.length, ended };
  }

  /** The next frame of a command carries the wire id of the last one, though Redis has forgotten it. */
  async function keepWireId({ deviceId, id }: CommandRecord, last: Attempt): Promise<void> {
    await redis.hset(keys.marks(deviceId), id, restingMark(last));
  }

  /** Written ones go through the ambiguity rule, expired ones end, the rest goes back as it was. */
  function verdictOn(row: CommandRecord, attempt: number) {
    const given = {
      command: row,
      spec: protocolNamed(row.protocol)?.commands[row.command],
      attempt,
      writtenBefore: attempt > 0,
      now: now(),
      random: 0,
    };
    if (attempt > 0) {
      const outcome = { kind: 'ambiguous', reason: 'gateway-lost' } as const;
      return judge({ ...outcome, writtenAt: null, endedAt: now() }, given);
    }
    if (now() < row.deadline) return null;
    return judge({ kind: 'refused', reason: 'expired', detail: 'lost with its queue' }, given);
  }

  return { reap };
}

const surelyUnwritten: ReadonlySet<string> = new Set([...unwrittenReasons, ...refusedReasons]);

function mayHaveReached({ outcome }: CommandRecord['trail'][string]): boolean {
  return outcome === null || !surelyUnwritten.has(outcome);
}
