/** Ends what is past its time, on time: behind any backlog, and for devices that never come back. */
import type { Redis } from 'ioredis';
import type { TakeBack, TakeBackVerdict } from '../queues/take-back.ts';
import type { Keys } from '../src/bridge/keys.ts';
import type { Revocation, Routes } from '../src/bridge/routes-contract.ts';
import type { CommandRecord } from '../src/command.ts';
import { isRedisOutage } from '../src/connections/outage.ts';
import { DownlinkError, type ErrorCode, messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import { specOf } from '../src/protocols/index.ts';
import type { Ledger } from '../src/store/contract.ts';
import { type End, judge } from './settle.ts';

export type SweeperDeps = {
  redis: Redis;
  keys: Keys;
  ledger: Pick<Ledger, 'overdue'>;
  routes: Pick<Routes, 'revocation'>;
  takeBack: TakeBack;
  metrics: Pick<Metrics, 'outboundCompleted' | 'outboundFailed' | 'outboundErrors'>;
  log: Log;
  now: () => number;
  rowsPerPage?: number;
  pagesPerTurn?: number;
};

export type Swept = {
  seen: number;
  ended: number;
  /** The turn ended before the list did: the next one goes on from there. */
  more: boolean;
};

const atOnce = 20;
/** A row whose job is lost is the reaper's, unless that has had its time. */
const lostMs = 30_000;
const outages: ReadonlySet<ErrorCode> = new Set([
  'STORE_UNAVAILABLE',
  'LEDGER_UNAVAILABLE',
  'QUEUE_UNAVAILABLE',
]);

/** One turn; it rejects when a store is away. What a worker holds is left to it: it minds the deadline itself. */
export function createSweeper(deps: SweeperDeps): () => Promise<Swept> {
  const { redis, keys, ledger, routes, takeBack, metrics, log, now } = deps;
  const { rowsPerPage = 500, pagesPerTurn = 10 } = deps;
  /** Rows that stay, such as those that a worker holds, must not keep the ones behind them from their turn. */
  let after: { deadline: number; id: string } | null = null;

  async function sweepRow(row: CommandRecord): Promise<boolean> {
    const revocation = await routes.revocation(row.deviceId, row.id);
    const verdict = verdictOn(row, revocation, now());
    let taken = await takeBack(row, verdict);
    // Looked at in this order: what had been settled when the queue was asked is in the ledger by then.
    if (taken.kind === 'missing' && now() - row.deadline > lostMs && (await nothingTravels())) {
      taken = await takeBack(row, verdict, { missingToo: true });
    }
    if (taken.kind !== 'ended') return false;
    count(taken.record);
    return true;
  }

  async function nothingTravels(): Promise<boolean> {
    return (await redis.xlen(keys.settlements())) === 0;
  }

  function count({ status }: CommandRecord): void {
    metrics.outboundErrors.inc({ type: 'expired' });
    if (status === 'unknown') metrics.outboundFailed.inc();
    else metrics.outboundCompleted.inc();
  }

  async function sweepPage(rows: readonly CommandRecord[]): Promise<number> {
    let ended = 0;
    for (let start = 0; start < rows.length; start += atOnce) {
      const results = await Promise.allSettled(rows.slice(start, start + atOnce).map(sweepRow));
      for (const result of results) {
        if (result.status === 'fulfilled') ended += Number(result.value);
      }
      for (const [index, result] of results.entries()) {
        if (result.status === 'fulfilled') continue;
        if (isOutage(result.reason)) throw result.reason;
        const commandId = rows[start + index]?.id;
        log.warn({ commandId, error: messageOf(result.reason) }, 'overdue command not ended');
      }
    }
    return ended;
  }

  return async function sweep() {
    const swept: Swept = { seen: 0, ended: 0, more: true };
    for (let page = 0; swept.more && page < pagesPerTurn; page += 1) {
      const rows = await ledger.overdue({ before: now(), after, limit: rowsPerPage });
      swept.seen += rows.length;
      swept.ended += await sweepPage(rows);
      const last = rows.at(-1);
      swept.more = rows.length === rowsPerPage && last !== undefined;
      after = swept.more && last ? { deadline: last.deadline, id: last.id } : null;
    }
    if (swept.ended > 0) log.info(swept, 'overdue commands ended');
    return swept;
  };
}

/** In the words of a worker that finds the command overdue, or revoked before. */
function verdictOn(
  command: CommandRecord,
  revocation: Revocation | null,
  now: number,
): TakeBackVerdict {
  return (mayBeWritten) => {
    const { status, reason, code } = judge(
      { kind: 'refused', reason: 'expired', detail: '' },
      {
        command,
        revocation,
        blockedBy: null,
        unclear: null,
        spec: specOf(command),
        attempt: 0,
        writtenBefore: mayBeWritten,
        now,
        random: 0,
      },
      // A refusal always ends its command.
    ) as End;
    return { status, reason, code };
  };
}

function isOutage(error: unknown): boolean {
  return error instanceof DownlinkError ? outages.has(error.code) : isRedisOutage(error);
}
