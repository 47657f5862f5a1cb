/** From a route to an outcome: builds the frame, publishes the delivery, waits for its end. */
import type { Route } from '../src/bridge/routes-contract.ts';
import type { WorkerBridge } from '../src/bridge/worker-bridge.ts';
import { messageOf } from '../src/errors.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import type { Outcome } from '../src/outcome.ts';
import { toHex } from '../src/protocols/bytes.ts';
import type { FindRoute } from './find-route.ts';
import type { Prober } from './probe.ts';
import type { Recorder } from './recorder.ts';
import { activeBefore, nextRecord, probeFor, type Run, trailOf } from './run.ts';
import type { Window } from './window.ts';

export type SendDeps = {
  bridge: Pick<WorkerBridge, 'workerId' | 'deliver' | 'isLive' | 'withdrawals'>;
  findRoute: FindRoute;
  prober: Prober;
  recorder: Pick<Recorder, 'recordLater'>;
  metrics: Metrics;
  window: Window;
  now: () => number;
};

/** What is not told at once reaches the ledger within this time, unless the attempt ends before. */
const progressEveryMs = 200;

export type Send = (run: Run) => Promise<Outcome>;

export function createSend(deps: SendDeps): Send {
  const { bridge, findRoute, prober, recorder, metrics, window, now } = deps;
  let unrecorded = new Set<Run>();
  let timer: NodeJS.Timeout | undefined;

  return async function send(run) {
    const probe = probeFor(run.spec, run.command);
    if (probe && activeBefore(run)) {
      // The mark alone tells what became of the attempt before: BullMQ may not have counted it.
      const found = await findRoute(run, { probing: true });
      if ('outcome' in found) return found.outcome;
      // What was published under a mark already is asked after below, as any other.
      if ('go' in found && !found.go.again && run.writtenBefore) {
        const known = await prober.ask(run, probe);
        if (known) return known;
      }
    }
    const found = await findRoute(run, { probing: false });
    if ('outcome' in found) return found.outcome;
    if ('kept' in found) {
      const { streamed } = found.kept;
      run.attempt = Math.max(run.attempt, streamed.attempt);
      run.late = streamed.late;
      run.trail = trailOf(streamed);
      return judged(run, streamed.outcome);
    }
    const withdrawn = await withdrawRevoked(run, found.go);
    return withdrawn ?? judged(run, await deliver(run, found.go));
  };

  /** It was published, and then revoked: asked for again it might be written for the first time now. */
  async function withdrawRevoked(
    { command }: Run,
    { again, revocation, gatewayId, attempt }: Extract<Route, { kind: 'go' }>,
  ): Promise<Outcome | null> {
    if (!again || !revocation) return null;
    const { deviceId, id } = command;
    const withdrawal = await bridge.withdrawals.withdraw({ gatewayId, deviceId, id, attempt });
    if (withdrawal !== 'withdrawn') return null;
    return { kind: 'refused', reason: 'withdrawn', detail: 'withdrawn before its write' };
  }

  /** What a device says to a repetition must be read with what it reported. */
  function judged(run: Run, outcome: Outcome): Outcome | Promise<Outcome> {
    const probe = run.attempt > 1 ? probeFor(run.spec, run.command) : null;
    if (outcome.kind !== 'rejected' || probe?.kind !== 'repeat') return outcome;
    return prober.judgeRefusal(run, probe, outcome);
  }

  async function deliver(run: Run, route: Extract<Route, { kind: 'go' }>): Promise<Outcome> {
    const { command } = run;
    if (!route.again && now() >= command.deadline) {
      return { kind: 'refused', reason: 'expired', detail: 'its time to live ended in the queue' };
    }
    run.epochSeen = String(route.epoch);
    if (!route.again && !bridge.isLive(route.gatewayId)) {
      const detail = `gateway ${route.gatewayId} holds no lease`;
      return { kind: 'unwritten', reason: 'offline', detail };
    }
    let frame: string;
    try {
      frame = toHex(run.spec!.encode(command.params, command.deviceId, route.wireId));
    } catch (error) {
      return { kind: 'refused', reason: 'invalid', detail: messageOf(error) };
    }
    // Of one that is asked after again, what its first run saw still holds.
    const known = route.again ? run.knownTrail[route.attempt] : undefined;
    run.trail = {
      attempt: route.attempt,
      at: known?.at ?? now(),
      gatewayId: route.gatewayId,
      epoch: route.epoch,
      wireId: route.wireId,
      frameOut: frame,
      writtenAt: known?.writtenAt ?? null,
      frameIn: null,
      ms: null,
      outcome: null,
    };
    // Should Redis lose its memory, the ledger must know that this may have been written. What is safe to
    // send again can wait for its answer, which mostly saves the row.
    if (run.spec!.repeatable) noteProgress(run);
    else tellProgress(run);
    run.delivery = {
      t: 'deliver',
      id: command.id,
      attempt: route.attempt,
      workerId: bridge.workerId,
      deviceId: command.deviceId,
      epoch: route.epoch,
      protocol: command.protocol,
      command: command.command,
      params: command.params,
      wireId: route.wireId,
      frame,
      priority: command.priority,
      deadline: command.deadline,
      ackTimeoutMs: command.ackTimeoutMs,
      ...(run.line !== null && route.seq > 0 && { place: { line: run.line, seq: route.seq } }),
    };
    const outcome = await bridge.deliver(
      run.delivery,
      { gatewayId: route.gatewayId, again: route.again },
      // From here on it waits for its device, be it for the lane or for the answer.
      { lined: () => window.leave(run), written: (at) => noteWritten(run, at) },
    );
    observe(run, outcome);
    return outcome;
  }

  function noteWritten(run: Run, at: number): void {
    if (!run.trail || run.trail.writtenAt !== null) return;
    run.trail.writtenAt = at;
    window.leave(run);
    noteProgress(run);
  }

  /** What lasts is told to the ledger, a batch at a time; what has ended has told it all by then. */
  function recordProgress(): void {
    timer = undefined;
    const runs = unrecorded;
    unrecorded = new Set();
    for (const run of runs) {
      if (!run.settling) tellProgress(run);
    }
  }

  function tellProgress(run: Run): void {
    recorder.recordLater(
      run.trail?.writtenAt === null
        ? nextRecord(run, { status: 'queued', reason: 'handed to the gateway' })
        : nextRecord(run, { status: 'sent' }),
    );
  }

  function noteProgress(run: Run): void {
    unrecorded.add(run);
    if (timer === undefined) timer = setTimeout(recordProgress, progressEveryMs);
  }

  function observe(run: Run, outcome: Outcome): void {
    if (!('writtenAt' in outcome) || outcome.writtenAt === null || 'earlier' in outcome) return;
    metrics.outboundSent.inc();
    const due = run.command.notBefore;
    metrics.outboundSendLatency.observe(Math.max(0, outcome.writtenAt - due) / 1000);
    if (outcome.kind === 'acked' || outcome.kind === 'rejected') {
      metrics.outboundAckLatency.observe(Math.max(0, outcome.endedAt - outcome.writtenAt) / 1000);
    }
  }
}
