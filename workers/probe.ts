/**
 * What became of a frame that may have arrived: asked of the device, and of what it reported. Only the
 * protocol's table can read the answer.
 */
import type { Routes } from '../src/bridge/routes-contract.ts';
import type { WorkerBridge } from '../src/bridge/worker-bridge.ts';
import { attemptsIn } from '../src/command.ts';
import { messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Ack, Outcome } from '../src/outcome.ts';
import { toHex } from '../src/protocols/bytes.ts';
import type { CommandSpec, Evidence, Probe, ProbeVerdict } from '../src/protocols/protocol.ts';
import type { Ledger, Reports } from '../src/store/contract.ts';
import type { Recorder } from './recorder.ts';
import { outcomeName, probeIdOf, type Run } from './run.ts';

export type ProbeDeps = {
  routes: Pick<Routes, 'route' | 'release'>;
  bridge: Pick<WorkerBridge, 'workerId' | 'deliver' | 'settled' | 'isLive'>;
  recorder: Pick<Recorder, 'untilDone'>;
  ledger: Pick<Ledger, 'find' | 'list'>;
  reports: Pick<Reports, 'recent'>;
  log: Log;
  now: () => number;
};

export type Prober = {
  /**
   * Finds out before anything is sent again: asks the device, or, where a repetition does that, looks at what it
   * has reported. Null: it may be sent again.
   */
  ask(run: Run, probe: Probe): Promise<Outcome | null>;
  /** The device refused a repetition: what does that say of the frame before? */
  judgeRefusal(run: Run, probe: Probe, refusal: Outcome): Promise<Outcome>;
};

/** A BKV device reports for up to 250 sockets. */
const reportsLimit = 500;
/** Reports come some time after what they tell of, and take a moment into the ledger. */
const lookEveryMs = 500;
const reportLagMs = 1_000;
/** As long as a command may live. */
const rivalsMs = 48 * 3_600_000;
const maxRivals = 50;

export function createProber(deps: ProbeDeps): Prober {
  const { routes, bridge, recorder, ledger, reports, log, now } = deps;

  async function ask(run: Run, probe: Probe): Promise<Outcome | null> {
    const writtenAt = await firstWriteAt(run);
    if (writtenAt === null) return unanswered();
    if (probe.kind === 'repeat') return lookBack(run, probe, writtenAt);
    const outcome = await question(run, probe);
    if (outcome.kind !== 'acked' && outcome.kind !== 'rejected') return outcome;
    let verdict = await judge(run, probe, ackOf(outcome), writtenAt);
    if (verdict?.kind === 'no-effect') {
      // What was reported just before the answer may still be on its way into the ledger.
      await pause(reportLagMs);
      verdict = await judge(run, probe, ackOf(outcome), writtenAt);
    }
    if (verdict === null) return unanswered();
    if (verdict.kind === 'no-effect') return null;
    return conclude(run, verdict, outcome);
  }

  /** What took effect already is not sent again: repeated after its end it might begin anew. */
  async function lookBack(run: Run, probe: Probe, writtenAt: number): Promise<Outcome | null> {
    const nothingYet: Ack = { accepted: false, code: '', reason: '', result: {} };
    const verdict = await judge(run, probe, nothingYet, writtenAt);
    if (verdict === null) return unanswered();
    if (verdict.kind !== 'took-effect') return null;
    const endedAt = now();
    return conclude(run, verdict, { kind: 'acked', result: {}, writtenAt, endedAt, frameIn: null });
  }

  async function judgeRefusal(run: Run, probe: Probe, refusal: Outcome): Promise<Outcome> {
    if (refusal.kind !== 'rejected') return refusal;
    const writtenAt = await firstWriteAt(run);
    const until = now() + run.command.ackTimeoutMs;
    let denied = false;
    for (;;) {
      const verdict =
        writtenAt === null ? null : await judge(run, probe, ackOf(refusal), writtenAt);
      if (verdict?.kind === 'no-effect' && !denied) {
        denied = true;
        await pause(reportLagMs);
        continue;
      }
      const told = verdict !== null && verdict.kind !== 'unclear';
      if (!told && now() < until) {
        await pause(lookEveryMs);
        continue;
      }
      if (verdict?.kind === 'no-effect') return refusal;
      const unclear = {
        kind: 'unclear',
        reason: 'what the device reported could not be read',
      } as const;
      return conclude(run, verdict ?? unclear, refusal);
    }
  }

  /** When the frame in question was, or may have been, first written; null when nobody can say. */
  async function firstWriteAt({ command }: Run): Promise<number | null> {
    try {
      const row = await ledger.find(command.id);
      const times = row ? attemptsIn(row).map(({ writtenAt, at }) => writtenAt ?? at) : [];
      return times.length > 0 ? Math.min(...times) : null;
    } catch (error) {
      log.debug({ commandId: command.id, error: messageOf(error) }, 'probe put off');
      return null;
    }
  }

  /** Commands of its line that would have had the same effect, and of whose number no report tells. */
  async function rivalsOf({ command, spec }: Run, writtenAt: number): Promise<number[]> {
    const { id, deviceId, orderKey } = command;
    const status = ['unknown', 'succeeded'] as const;
    const from = writtenAt - rivalsMs;
    const alike = new Set([command.command, ...(spec?.excludes ?? [])]);
    const pages = await Promise.all(
      [...alike].map((name) =>
        ledger.list({ deviceId, command: name, status, from, limit: maxRivals }),
      ),
    );
    return pages
      .flatMap(({ items }) => items)
      .filter((row) => row.id !== id && row.orderKey === orderKey)
      .filter((row) => row.status === 'unknown' || row.inferred)
      .map((row) =>
        Math.max(0, ...attemptsIn(row).map(({ writtenAt: at, at: sent }) => at ?? sent)),
      );
  }

  async function judge(
    run: Run,
    probe: Probe,
    answer: Ack,
    writtenAt: number,
  ): Promise<ProbeVerdict | null> {
    const { command } = run;
    try {
      const query = { deviceId: command.deviceId, names: probe.reports, limit: reportsLimit };
      const [before, since, rivals] = await Promise.all([
        reports.recent({ ...query, before: writtenAt }),
        reports.recent({ ...query, since: writtenAt }),
        rivalsOf(run, writtenAt),
      ]);
      const evidence: Evidence = { answer, writtenAt, before, since, rivals };
      return probe.judge(command.params, evidence);
    } catch (error) {
      log.debug({ commandId: command.id, error: messageOf(error) }, 'evidence not read');
      return null;
    }
  }

  /** A delivery of its own, with a wire id of its own, through the same lane as everything else. */
  async function question(run: Run, probe: Extract<Probe, { kind: 'ask' }>): Promise<Outcome> {
    const { command, protocol } = run;
    const { deviceId, priority, deadline, ackTimeoutMs } = command;
    const spec = protocol!.commands[probe.command] as CommandSpec;
    const params = probe.params(command.params);
    const id = probeIdOf(command.id);
    const { attempt } = run;
    const route = await recorder.untilDone(() =>
      routes.route({
        id,
        deviceId,
        line: null,
        priority,
        attempt,
        maxAttempt: attempt,
        maxWireId: protocol!.limits.maxWireId,
        // One whose worker died may be under way: it is asked after, not asked anew.
        again: true,
        probing: false,
      }),
    );
    if (route.kind !== 'go' || !bridge.isLive(route.gatewayId)) {
      if (route.kind === 'go') await release(deviceId, id, route.attempt);
      const reason = route.kind === 'paused' ? 'paused' : 'offline';
      return { kind: 'unwritten', reason };
    }
    run.epochSeen = String(route.epoch);
    const { gatewayId, epoch, wireId } = route;
    const frame = toHex(spec.encode(params, deviceId, wireId));
    const trail = {
      attempt: run.attempt,
      at: now(),
      gatewayId,
      epoch,
      wireId,
      frameOut: frame,
      writtenAt: null as number | null,
      frameIn: null,
      ms: null,
      outcome: null,
      probe: true as const,
    };
    const outcome = await bridge.deliver(
      {
        t: 'deliver',
        id,
        attempt: route.attempt,
        workerId: bridge.workerId,
        deviceId,
        epoch,
        protocol: protocol!.name,
        command: probe.command,
        params,
        wireId,
        frame,
        priority,
        deadline,
        ackTimeoutMs: spec.ackTimeoutMs ?? ackTimeoutMs,
      },
      { gatewayId, again: route.again },
      {
        lined: () => undefined,
        written: (at) => {
          trail.writtenAt = at;
        },
      },
    );
    run.probeTrail = {
      ...trail,
      ...('writtenAt' in outcome && outcome.writtenAt !== null
        ? { writtenAt: outcome.writtenAt, ms: outcome.endedAt - outcome.writtenAt }
        : {}),
      ...('frameIn' in outcome && { frameIn: outcome.frameIn }),
      outcome: outcomeName(outcome),
    };
    bridge.settled(gatewayId, id, route.attempt);
    await release(deviceId, id, route.attempt);
    return outcome;
  }

  async function release(deviceId: string, id: string, attempt: number): Promise<void> {
    const options = { line: null, mode: 'final', wake: 0, again: true, attempt } as const;
    await recorder.untilDone(() => routes.release({ deviceId, id, ...options }));
  }

  /** The evidence was not to be had: as if the attempt had gone unanswered. */
  function unanswered(): Outcome {
    const detail = 'what the device had reported could not be read';
    return { kind: 'ambiguous', reason: 'no-ack', writtenAt: null, endedAt: now(), detail };
  }

  function conclude(
    run: Run,
    verdict: Exclude<ProbeVerdict, { kind: 'no-effect' }>,
    answer: Extract<Outcome, { kind: 'acked' | 'rejected' }>,
  ): Outcome {
    const { writtenAt, endedAt, frameIn } = answer;
    if (verdict.kind === 'took-effect') {
      run.inferred = true;
      return { kind: 'acked', result: verdict.result, writtenAt, endedAt, frameIn };
    }
    run.unclear = verdict.reason;
    return { kind: 'ambiguous', reason: 'no-ack', writtenAt, endedAt };
  }

  return { ask, judgeRefusal };
}

function ackOf(outcome: Extract<Outcome, { kind: 'acked' | 'rejected' }>): Ack {
  return outcome.kind === 'acked'
    ? { accepted: true, result: outcome.result }
    : {
        accepted: false,
        code: outcome.code,
        reason: outcome.reason,
        result: outcome.result,
      };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
