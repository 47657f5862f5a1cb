/** From a route to an outcome: builds the frame, publishes the delivery, waits for its end. */
import type { WorkerBridge } from '../src/bridge/worker-bridge.ts';
import { messageOf } from '../src/errors.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import type { Outcome } from '../src/outcome.ts';
import { toHex } from '../src/protocols/bytes.ts';
import type { Recorder } from './recorder.ts';
import { activeBefore, nextRecord, type Run, trailOf } from './run.ts';
import type { Window } from './window.ts';

export type SendDeps = {
  bridge: WorkerBridge;
  recorder: Recorder;
  metrics: Metrics;
  window: Window;
  now: () => number;
};

/** What is not told at once reaches the ledger within this time, unless the attempt ends before. */
const progressEveryMs = 200;

export type Send = (run: Run) => Promise<Outcome>;

export function createSend({ bridge, recorder, metrics, window, now }: SendDeps): Send {
  let unrecorded = new Set<Run>();
  let timer: NodeJS.Timeout | undefined;

  return async function send(run) {
    const { command } = run;
    const route = await recorder.untilDone(() =>
      bridge.route({
        id: command.id,
        deviceId: command.deviceId,
        attempt: run.attempt,
        maxAttempt: command.attempts,
        maxWireId: run.protocol!.limits.maxWireId,
        again: activeBefore(run),
      }),
    );
    if (route.kind === 'kept') {
      run.attempt = Math.max(run.attempt, route.streamed.attempt);
      run.late = route.streamed.late;
      run.trail = trailOf(route.streamed);
      return route.streamed.outcome;
    }
    run.attempt = route.attempt;
    if (route.kind === 'spent') {
      run.writtenBefore = true;
      return { kind: 'ambiguous', reason: 'gateway-silent', writtenAt: null, endedAt: now() };
    }
    run.writtenBefore ||= route.writtenBefore;
    const again = route.kind === 'go' && route.again;
    if (!again && now() >= command.deadline) {
      return { kind: 'refused', reason: 'expired', detail: 'its time to live ended in the queue' };
    }
    if (route.kind === 'offline') return { kind: 'unwritten', reason: 'offline' };
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
    const publishedAt = now();
    run.trail = {
      attempt: route.attempt,
      at: publishedAt,
      gatewayId: route.gatewayId,
      epoch: route.epoch,
      wireId: route.wireId,
      frameOut: frame,
      writtenAt: null,
      frameIn: null,
      ms: null,
      outcome: null,
    };
    // Should Redis lose its memory, the ledger must know that this may have been written. What is safe to
    // send again can wait for its answer, which mostly saves the row.
    if (run.spec!.repeatable) noteProgress(run);
    else tellProgress(run);
    const outcome = await bridge.deliver(
      {
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
      },
      { gatewayId: route.gatewayId, again: route.again },
      { written: (at) => noteWritten(run, at) },
    );
    observe(run, outcome);
    return outcome;
  };

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
    if (!('writtenAt' in outcome) || outcome.writtenAt === null) return;
    metrics.outboundSent.inc();
    const due = run.command.notBefore;
    metrics.outboundSendLatency.observe(Math.max(0, outcome.writtenAt - due) / 1000);
    if (outcome.kind === 'acked' || outcome.kind === 'rejected') {
      metrics.outboundAckLatency.observe(Math.max(0, outcome.endedAt - outcome.writtenAt) / 1000);
    }
  }
}
