/** What is checked before a command is routed: is it still to be sent at all? */
import { Compile } from 'typebox/compile';
import { attemptsIn, type Command, type CommandRecord, isFinal } from '../src/command.ts';
import { messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Outcome } from '../src/outcome.ts';
import { protocolNamed } from '../src/protocols/index.ts';
import type { CommandSpec } from '../src/protocols/protocol.ts';
import type { Ledger } from '../src/store/contract.ts';
import { activeBefore, mayRepeat, type Run } from './run.ts';

export type Guarded =
  | { go: true }
  /** It will not be sent; settle it so. */
  | { go: false; outcome: Outcome }
  /** It ended before; the job is a shadow of it. */
  | { go: false; outcome: null; status: CommandRecord['status'] }
  /** Only the ledger can tell, and it is away. */
  | { go: false; later: true };

export type GuardDeps = {
  ledger: Pick<Ledger, 'findMany'>;
  /** Unix milliseconds at which the Redis server started. */
  redisStartedAt: () => Promise<number>;
  log: Log;
  now: () => number;
};

export type Guard = (run: Run) => Promise<Guarded>;

export function createGuard({ ledger, redisStartedAt, log, now }: GuardDeps): Guard {
  const lookUp = createLookUp(ledger);

  return async function guard(run) {
    const { command, job, base } = run;
    const putBack = base.version > 0;
    if (putBack || job.stalledCounter > 0 || job.timestamp < (await redisStartedAt())) {
      const ended = await checkLedger(run);
      if (ended) return ended;
    }
    if (!run.spec) {
      const detail = `this worker knows no command ${command.command} of protocol ${command.protocol}`;
      return { go: false, outcome: { kind: 'refused', reason: 'unsupported', detail } };
    }
    const fault = faultIn(run.spec, command);
    if (fault) return { go: false, outcome: { kind: 'refused', reason: 'invalid', detail: fault } };
    // One that was active before may have been written then: its mark is asked first.
    if (!activeBefore(run) && now() >= command.deadline) {
      const detail = 'its time to live ended in the queue';
      return { go: false, outcome: { kind: 'refused', reason: 'expired', detail } };
    }
    return { go: true };
  };

  /**
   * A Redis that came back may remember jobs that had ended, a job that is started again may have lost
   * its worker right after its settlement, and one that was put back may have ended meanwhile: the
   * ledger knows.
   */
  async function checkLedger(run: Run): Promise<Guarded | null> {
    const { id } = run.command;
    let row: CommandRecord | undefined;
    try {
      row = await lookUp(id);
    } catch (error) {
      log.debug({ commandId: id, error: messageOf(error) }, 'restarted job not checked');
      // Sent unchecked, a start that had succeeded could be executed a second time.
      // One that was put back may have been ended by whoever had it before.
      const mustKnow = run.base.version > 0 || (run.spec && !mayRepeat(run.spec, run.command));
      return mustKnow && now() < run.command.deadline ? { go: false, later: true } : null;
    }
    if (!row) return null;
    if (isFinal(row.status)) return { go: false, outcome: null, status: row.status };
    run.version = Math.max(run.version, row.version);
    run.knownTrail = row.trail;
    const unanswered = attemptsIn(row).filter(
      ({ outcome }) => outcome === null || spent.has(outcome),
    );
    if (unanswered.some(({ attempt }) => attempt < run.attempt)) run.writtenBefore = true;
    return null;
  }
}

const paramChecks = new WeakMap<CommandSpec, ReturnType<typeof Compile>>();

/** Accept has checked its commands; what another producer enqueued is checked here. */
function faultIn(
  spec: CommandSpec,
  { command, params, protocol, deviceId }: Command,
): string | null {
  if (protocolNamed(protocol)?.deviceId(deviceId) !== deviceId) {
    return `device id ${deviceId} is no ${protocol} id in lower case`;
  }
  let check = paramChecks.get(spec);
  if (!check) {
    check = Compile(spec.params);
    paramChecks.set(spec, check);
  }
  if (!check.Check(params)) {
    const [first] = check.Errors(params);
    return `${command}: params${first?.instancePath ?? ''} ${first?.message ?? 'do not fit the command table'}`;
  }
  const objection = spec.check?.(params);
  return objection ? `${command}: ${objection}` : null;
}

/** Outcomes that leave it open whether the device acted. */
const spent = new Set([
  'no-ack',
  'write-error',
  'connection-lost',
  'gateway-lost',
  'gateway-silent',
]);

/** Looks up one id; those asked in one turn share a statement. */
function createLookUp(ledger: Pick<Ledger, 'findMany'>) {
  let batch: { ids: string[]; rows: Promise<Map<string, CommandRecord>> } | undefined;
  return async (id: string): Promise<CommandRecord | undefined> => {
    if (!batch) {
      const ids: string[] = [];
      const turn = new Promise<void>((resolve) => setImmediate(resolve));
      const rows = turn.then(() => {
        batch = undefined;
        return ledger.findMany(ids);
      });
      batch = { ids, rows };
    }
    batch.ids.push(id);
    return (await batch.rows).get(id);
  };
}
