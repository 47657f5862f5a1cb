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
import { type Attempt, type Command, type CommandRecord, isFinal } from '../src/command.ts';
import type { Log } from '../src/log/log.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import { protocolNamed } from '../src/protocols/index.ts';
import type { CommandSpec } from '../src/protocols/protocol.ts';
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
  outbound: Pick<Outbound, 'find' | 'take' | 'forget' | 'wake'>;
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
    let command: Command | null = queued?.command ?? null;
    if (taken === 'taken' && queued) {
      await settle(queued.command, queued.nextVersion, streamed, outcome);
    } else {
      command = await settleRow(streamed, outcome);
    }
    await release(streamed, command);
  }

  function lookAgain(streamed: StreamedOutcome): void {
    if (waiting.size >= maxWaiting) return;
    const timer = setTimeout(() => {
      waiting.delete(timer);
      place({ ...streamed, late: true }).catch(() => lookAgain(streamed));
    }, lookAgainMs);
    waiting.add(timer);
  }

  /** No job holds it: it waits unfinished for the reaper, or ended as unknown. Resolves with what is known of it. */
  async function settleRow(streamed: StreamedOutcome, outcome: Answer): Promise<Command | null> {
    const row = await ledger.find(streamed.id);
    if (!row && (await redis.xlen(keys.settlements())) > 0) {
      // Its row is still on its way into the ledger.
      lookAgain(streamed);
      return null;
    }
    if (!row || (isFinal(row.status) && row.status !== 'unknown')) return row;
    if (outcome.kind === 'unacknowledged' && row.status === 'unknown') return row;
    // What a device says to a repetition does not say what became of the frame before.
    if (streamed.attempt > 1 && outcome.kind === 'rejected' && probesByRepeating(row)) return row;
    const late = { ...streamed, late: streamed.late || row.status === 'unknown' };
    await settle(row, row.version + 1, late, outcome);
    await outbound.forget(streamed.deviceId, streamed.id);
    return row;
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
      for (const timer of waiting) clearTimeout(timer);
    },
  };
}

function specOf({ protocol, command }: Command): CommandSpec | undefined {
  return protocolNamed(protocol)?.commands[command];
}

function probesByRepeating(command: Command): boolean {
  return probeFor(specOf(command), command)?.kind === 'repeat';
}
