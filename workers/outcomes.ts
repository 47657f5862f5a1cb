/** Outcomes that no worker was waiting for: late answers, and ends whose worker is gone. */
import type { Redis } from 'ioredis';
import type { RedisOutbound } from '../queues/outbound.ts';
import type { Keys } from '../src/bridge/keys.ts';
import type { StreamedOutcome } from '../src/bridge/messages.ts';
import { parseStreamedOutcome } from '../src/bridge/messages.ts';
import type { StreamEntry } from '../src/bridge/stream-reader.ts';
import type { WorkerBridge } from '../src/bridge/worker-bridge.ts';
import { type Command, type CommandRecord, isFinal } from '../src/command.ts';
import type { Log } from '../src/log/log.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import type { Ledger } from '../src/store/contract.ts';
import type { Recorder } from './recorder.ts';
import { trailOf } from './run.ts';
import { type Answer, endOf, isAnswer } from './settle.ts';

export type OutcomesDeps = {
  redis: Redis;
  keys: Keys;
  bridge: Pick<WorkerBridge, 'offer' | 'release'>;
  ledger: Pick<Ledger, 'find'>;
  outbound: Pick<RedisOutbound, 'find' | 'take' | 'forget' | 'wake'>;
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
  const { redis, keys, bridge, ledger, outbound, recorder, metrics, log, now } = deps;

  const waiting = new Set<NodeJS.Timeout>();

  /** Handles stream entries one after the other: several may speak of one command. */
  async function handle(entries: StreamEntry[]): Promise<void> {
    for (const { entryId, text } of entries) {
      const streamed = parseStreamedOutcome(text);
      if (streamed?.late) metrics.outboundLateAcks.inc();
      if (streamed) await place(streamed);
      else log.warn({ entryId }, 'outcome unreadable');
    }
  }

  async function place(streamed: StreamedOutcome): Promise<void> {
    const { id, attempt, deviceId, outcome } = streamed;
    if (bridge.offer(id, attempt, outcome)) return;
    // A job that is active elsewhere, or starts again, finds it here before it sends.
    const kept = keys.keptOutcome(deviceId, id);
    await redis.set(kept, JSON.stringify(streamed), 'EX', keptSeconds);
    if (!isAnswer(outcome)) return;
    const queued = await outbound.find(deviceId, id);
    const taken = queued ? await outbound.take(deviceId, id) : 'missing';
    if (taken === 'active') {
      // Its run may be about to end it as unknown, and to drop what is kept: look again once it is over.
      lookAgain(streamed);
      return;
    }
    if (taken === 'taken' && queued) {
      await settle(queued.command, queued.nextVersion, streamed, outcome);
    } else {
      await settleRow(streamed, outcome);
    }
    await release(deviceId, id, attempt);
  }

  function lookAgain(streamed: StreamedOutcome): void {
    if (waiting.size >= maxWaiting) return;
    const timer = setTimeout(() => {
      waiting.delete(timer);
      place({ ...streamed, late: true }).catch(() => lookAgain(streamed));
    }, lookAgainMs);
    waiting.add(timer);
  }

  /** No job holds it: it waits unfinished for the reaper, or ended as unknown. */
  async function settleRow(streamed: StreamedOutcome, outcome: Answer): Promise<void> {
    const row = await ledger.find(streamed.id);
    if (!row && (await redis.xlen(keys.settlements())) > 0) {
      // Its row is still on its way into the ledger.
      lookAgain(streamed);
      return;
    }
    if (!row || (isFinal(row.status) && row.status !== 'unknown')) return;
    if (outcome.kind === 'unacknowledged' && row.status === 'unknown') return;
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
      trail: { [streamed.attempt]: trailOf(streamed) },
    };
    await recorder.record(record);
    recorder.notifyWaiter(command);
    metrics.outboundCompleted.inc();
    log.info(
      { commandId: command.id, deviceId: command.deviceId, late: streamed.late },
      'answer placed',
    );
  }

  async function release(deviceId: string, id: string, attempt: number): Promise<void> {
    const woken = await bridge.release(deviceId, id, 'final', { wake: 1, again: true, attempt });
    for (const next of woken) await outbound.wake(deviceId, next);
  }

  return {
    handle,
    close() {
      for (const timer of waiting) clearTimeout(timer);
    },
  };
}
