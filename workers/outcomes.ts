/** Outcomes that no worker was waiting for: late answers, and ends whose worker is gone. */
import type { Redis } from 'ioredis';
import type { Outbound } from '../queues/contract.ts';
import { lineOf } from '../queues/line.ts';
import type { Keys } from '../src/bridge/keys.ts';
import type { StreamedOutcome } from '../src/bridge/messages.ts';
import { parseStreamedOutcome } from '../src/bridge/messages.ts';
import type { Routes } from '../src/bridge/routes-contract.ts';
import type { StreamEntry } from '../src/bridge/stream-reader.ts';
import type { WorkerBridge } from '../src/bridge/worker-bridge.ts';
import {
  type Attempt,
  acceptedState,
  type Command,
  type CommandRecord,
  isFinal,
} from '../src/command.ts';
import type { Log } from '../src/log/log.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import { specOf } from '../src/protocols/index.ts';
import type { Ledger } from '../src/store/contract.ts';
import type { Recorder } from './recorder.ts';
import { probeFor, trailOf } from './run.ts';
import { type Answer, endOf, isAnswer } from './settle.ts';

export type OutcomesDeps = {
  redis: Redis;
  keys: Keys;
  bridge: Pick<WorkerBridge, 'offer'>;
  routes: Pick<Routes, 'release' | 'forgetUnanswered'>;
  ledger: Pick<Ledger, 'find'>;
  outbound: Pick<Outbound, 'find' | 'take' | 'forget' | 'wake' | 'holds'>;
  recorder: Recorder;
  metrics: Metrics;
  log: Log;
  now: () => number;
};

/** As long as a job may take to come back to life and look for its outcome. */
const keptSeconds = 3_600;
const lookAgainMs = 2_000;
/** Answers in memory whose job is active; beyond, the kept outcome in Redis has to do. */
const maxWaiting = 10_000;

export function createOutcomes(deps: OutcomesDeps) {
  const { redis, keys, bridge, routes, ledger, outbound, recorder, metrics, log, now } = deps;

  /** By entry: one look at a time, however often the stream gives it again. */
  const waiting = new Map<string, NodeJS.Timeout>();

  /**
   * Handles stream entries one after the other: several may speak of one command. Resolves with those that
   * could not be placed yet: they stay in the stream, for whichever worker reads them next.
   */
  async function handle(entries: StreamEntry[]): Promise<ReadonlySet<string>> {
    const later = new Set<string>();
    for (const { entryId, text } of entries) {
      const streamed = parseStreamedOutcome(text);
      if (!streamed) log.warn({ entryId }, 'outcome unreadable');
      else if (!(await place(streamed))) {
        later.add(entryId);
        lookAgain(entryId, streamed);
      }
    }
    return later;
  }

  /** False when a job is active that may end without it, or its row is still on its way into the ledger. */
  async function place(streamed: StreamedOutcome): Promise<boolean> {
    const { id, attempt, deviceId, outcome } = streamed;
    if (bridge.offer(id, attempt, outcome)) return true;
    // The answer to a question that nobody waits for any more.
    if (id.endsWith('~')) return true;
    // A job that is active elsewhere, or starts again, finds it here before it sends.
    const kept = keys.keptOutcome(deviceId, id);
    await redis.set(kept, JSON.stringify(streamed), 'EX', keptSeconds);
    if (!isAnswer(outcome)) {
      await noteAttempt(streamed);
      // Nobody will look for it any more.
      if (!(await outbound.holds([{ deviceId, id }])).has(id)) await redis.del(kept);
      return true;
    }
    const queued = await outbound.find(deviceId, id);
    // Its next run judges what a device says to a repetition.
    if (queued && isRefusedRepetition(queued.command, streamed)) return true;
    const taken = queued ? await outbound.take(deviceId, id) : 'missing';
    if (taken === 'active') return false;
    if (taken === 'taken' && queued) {
      await settle(queued.command, queued.nextVersion, streamed, outcome);
      await release(streamed, queued.command);
      return true;
    }
    const row = await ledger.find(id);
    if (!row && (await redis.xlen(keys.settlements())) > 0) return false;
    if (row) await settleRow(row, streamed, outcome);
    await release(streamed, row);
    return true;
  }

  /** What is kept is one outcome a command: the frame of this one shall stand in the trail whatever follows. */
  async function noteAttempt(streamed: StreamedOutcome): Promise<void> {
    const { deviceId, id, attempt } = streamed;
    const queued = await outbound.find(deviceId, id);
    const command = queued?.command ?? (await ledger.find(id).catch(() => null));
    if (!command) return;
    const accepted = acceptedState(command, now());
    // Older than every version of its row: nothing but its trail is news.
    recorder.recordLater({
      ...accepted,
      ...command,
      version: 0,
      trail: { [attempt]: trailOf(streamed) },
    });
  }

  /** Sooner than the stream is read again. */
  function lookAgain(entryId: string, streamed: StreamedOutcome): void {
    if (waiting.has(entryId) || waiting.size >= maxWaiting) return;
    const timer = setTimeout(() => {
      place(streamed)
        .catch(() => false)
        .then((placed) => {
          waiting.delete(entryId);
          if (!placed) lookAgain(entryId, streamed);
        });
    }, lookAgainMs);
    waiting.set(entryId, timer);
  }

  /** No job holds it: it waits unfinished for the reaper, or has ended. */
  async function settleRow(
    row: CommandRecord,
    streamed: StreamedOutcome,
    outcome: Answer,
  ): Promise<void> {
    const over = isFinal(row.status) && row.status !== 'unknown';
    const noNews = row.status === 'unknown' && outcome.kind === 'unacknowledged';
    if (over || noNews || isRefusedRepetition(row, streamed)) {
      // Of an attempt that its trail may not know: the frame was written all the same.
      recorder.recordLater({
        ...row,
        version: 0,
        trail: { [streamed.attempt]: trailOf(streamed) },
      });
      return;
    }
    const late = { ...streamed, late: streamed.late || row.status === 'unknown' };
    await settle(row, row.version + 1, late, outcome);
    await outbound.forget(streamed.deviceId, streamed.id);
  }

  async function settle(
    command: Command,
    version: number,
    streamed: StreamedOutcome,
    outcome: Answer,
  ): Promise<void> {
    const { status, reason, code, result } = endOf(outcome);
    const record: CommandRecord = {
      ...command,
      version,
      status,
      reason,
      code,
      result,
      late: streamed.late,
      inferred: false,
      settledAt: now(),
      trail: { [streamed.attempt]: await entryOf(streamed) },
    };
    await recorder.record(record);
    recorder.notifyWaiter(command);
    metrics.outboundCompleted.inc();
    if (streamed.late) metrics.outboundLateAcks.inc();
    log.info(
      { commandId: command.id, deviceId: command.deviceId, late: streamed.late },
      'answer placed',
    );
  }

  /** A late answer may have come to another gateway than the one that wrote the frame: the row knows that one. */
  async function entryOf(streamed: StreamedOutcome): Promise<Attempt> {
    const entry = trailOf(streamed);
    const row = streamed.late ? await ledger.find(streamed.id).catch(() => null) : null;
    const known = row?.trail[streamed.attempt];
    return known ? { ...entry, at: known.at, gatewayId: known.gatewayId } : entry;
  }

  async function release(streamed: StreamedOutcome, command: Command | null): Promise<void> {
    const { deviceId, id, attempt } = streamed;
    const line = command ? lineOf(command, specOf(command)) : null;
    const options = { line, mode: 'final', wake: 1, again: true, attempt } as const;
    const woken = await routes.release({ deviceId, id, ...options });
    await routes.forgetUnanswered(deviceId, id);
    for (const next of woken) await outbound.wake(deviceId, next);
  }

  return {
    handle,
    close() {
      for (const timer of waiting.values()) clearTimeout(timer);
    },
  };
}

/** What a device says to a repetition does not say what became of the frame before. */
function isRefusedRepetition(command: Command, { attempt, outcome }: StreamedOutcome): boolean {
  if (attempt < 2 || outcome.kind !== 'rejected') return false;
  return probeFor(specOf(command), command)?.kind === 'repeat';
}
