/**
 * Judges a run with faults. It imports nothing of the product: from what was accepted, when the faults
 * were and what the devices saw it computes how each command may have ended, and then compares.
 *
 * A frame belongs to a command by the wire id that the command's trail names for that device, and,
 * independently, by content, where the caller says which bytes only this command can have sent.
 */

export type Accepted = {
  id: string;
  deviceId: string;
  command: string;
  repeatable: boolean;
  acceptedAt: number;
  deadline: number;
  /** Tries in all; 4 when absent. */
  attempts?: number;
  /** When given, it may also end as unknown because its deadline leaves no time for another try. */
  retries?: { ackTimeoutMs: number; backoffMs: number };
  /** `none`: the protocol defines no answer. */
  ack?: 'reply' | 'none';
  /** Hex that stands in a frame to this device if and only if it is this command's. */
  content?: string;
  /** Ends that are fine if no frame ever reached the device. */
  mayEnd?: readonly string[];
};

export type FaultKind = 'worker-kill' | 'gateway-kill' | 'redis-restart' | 'postgres-stop';

/** `to`: the process is back and the devices are logged in again. */
export type Fault = { kind: FaultKind; from: number; to: number };

/** What the simulator wrote down for a command frame. */
export type SeenFrame = {
  kind?: 'frame';
  at: number;
  deviceId: string;
  connection: number;
  wireId: number;
  frame: string;
  intended: 'ack' | 'nack' | 'none' | 'late';
  says?: 'ack' | 'nack' | 'nothing';
  executed?: boolean;
  answeredAt: number | null;
  duplicate: boolean;
};

/** What it wrote down when a connection ended. */
export type SeenClose = {
  kind: 'close';
  at: number;
  connection: number;
  deviceIds: readonly string[];
  /** `device`: in good order, after all it had to say. */
  by: 'device' | 'reset' | 'server';
};

export type FinalRecord = {
  id: string;
  deviceId: string;
  status: string;
  late?: boolean;
  inferred?: boolean;
  /** `probe`: a question about the attempt before. */
  attempts: readonly { wireId: number; frameOut: string; probe?: boolean }[];
};

export type Evidence = {
  accepted: readonly Accepted[];
  faults: readonly Fault[];
  log: readonly (SeenFrame | SeenClose)[];
  records: readonly FinalRecord[];
};

export type CheckOptions = {
  /** An answer handed to a socket this shortly before its connection or a process died may be lost. */
  graceMs?: number;
  /** Statuses that may end a command which reached no device. */
  mayEndUnwritten?: readonly string[];
  /** The run had deadlines short enough to pass. */
  mayExpire?: boolean;
  /** Faults that take what was in flight with them. The stores are not among them: processes outlive them. */
  killing?: readonly FaultKind[];
  /** Frames that ask for the effect of a command: one whose worker was killed stands in no trail. */
  isProbe?: (frame: SeenFrame) => boolean;
};

export type Verdict = {
  ok: boolean;
  problems: string[];
  counts: Record<string, number>;
  /** Ids of commands that ended as unknown. */
  unknowns: string[];
  /** Commands whose frame or answer can have been under way at a kill. */
  inFlightAtKills: number;
  framesSeen: number;
  duplicates: number;
};

const finals: readonly string[] = [
  'succeeded',
  'rejected',
  'unacknowledged',
  'expired',
  'cancelled',
  'superseded',
  'failed',
  'unknown',
];
/** Silent attempts are tried again in vain this often unless the caller says otherwise. */
const defaultAttempts = 4;

type Case = { accepted: Accepted; record: FinalRecord | undefined; frames: SeenFrame[] };

/** Compares the final records with what may be; every difference is one sentence in `problems`. */
export function check(evidence: Evidence, options: CheckOptions = {}): Verdict {
  const {
    graceMs = 250,
    mayEndUnwritten = [],
    mayExpire = false,
    killing = ['worker-kill', 'gateway-kill'],
    isProbe = () => false,
  } = options;
  const problems: string[] = [];
  const kills = evidence.faults.filter((fault) => killing.includes(fault.kind));
  const seen = evidence.log.filter((entry): entry is SeenFrame => entry.kind !== 'close');
  const closes = evidence.log.filter((entry): entry is SeenClose => entry.kind === 'close');

  const cases = casesOf(evidence, problems);
  explain(cases, seen, kills.length > 0 ? isProbe : () => false, problems);
  judgeWireIds(cases, seen, problems);

  const counts: Record<string, number> = {};
  const unknowns: string[] = [];
  let inFlightAtKills = 0;
  for (const one of cases.values()) {
    if (inFlightAtAKill(one, kills, graceMs)) inFlightAtKills += 1;
    if (!one.record) continue;
    const { status } = one.record;
    counts[status] = (counts[status] ?? 0) + 1;
    if (status === 'unknown') unknowns.push(one.accepted.id);
    const allowed = allowedEnds(one, { kills, closes, graceMs, mayEndUnwritten, mayExpire });
    if (!allowed.has(status)) {
      problems.push(
        `${named(one)} ended as ${status}, but may only be ${[...allowed].join(' or ') || 'nothing final'}: ${story(one)}`,
      );
    }
  }
  judgeUnknowns(cases, unknowns, inFlightAtKills, { kills, closes }, problems);

  return {
    ok: problems.length === 0,
    problems,
    counts,
    unknowns,
    inFlightAtKills,
    framesSeen: seen.length,
    duplicates: seen.filter((frame) => frame.duplicate).length,
  };
}

/** One case per accepted command; a record that is missing, twice there or unasked for is a problem. */
function casesOf({ accepted, records }: Evidence, problems: string[]): Map<string, Case> {
  const cases = new Map<string, Case>();
  for (const one of accepted) {
    if (cases.has(one.id)) problems.push(`command ${one.id} was accepted twice under one id`);
    cases.set(one.id, { accepted: one, record: undefined, frames: [] });
  }
  for (const record of records) {
    const one = cases.get(record.id);
    if (!one) {
      problems.push(`command ${record.id} has a record but was never accepted`);
    } else if (one.record) {
      problems.push(`${named(one)} has two records`);
    } else {
      one.record = record;
      if (record.deviceId !== one.accepted.deviceId) {
        problems.push(`${named(one)} is recorded for device ${record.deviceId}`);
      }
    }
  }
  for (const one of cases.values()) {
    if (!one.record) problems.push(`${named(one)} is lost: it has no record`);
    else if (!finals.includes(one.record.status)) {
      problems.push(`${named(one)} is not final: it is ${one.record.status}`);
    }
  }
  return cases;
}

/** Gives every frame to its command, by trail and by content, and demands that the two agree. */
function explain(
  cases: Map<string, Case>,
  seen: readonly SeenFrame[],
  isProbe: (frame: SeenFrame) => boolean,
  problems: string[],
): void {
  const byWire = new Map<string, Case>();
  const probes = new Set<string>();
  const byDevice = new Map<string, Case[]>();
  for (const one of cases.values()) {
    const { deviceId } = one.accepted;
    const list = byDevice.get(deviceId);
    if (list) list.push(one);
    else byDevice.set(deviceId, [one]);
    for (const { wireId, probe } of one.record?.attempts ?? []) {
      if (probe) probes.add(`${deviceId}/${wireId}`);
    }
    for (const wireId of new Set(triesOf(one).map((attempt) => attempt.wireId))) {
      const key = `${deviceId}/${wireId}`;
      const other = byWire.get(key);
      if (other && other !== one) {
        problems.push(`${named(one)} and ${named(other)} share the wire id ${wireId}`);
      }
      byWire.set(key, one);
    }
  }
  for (const frame of seen) {
    if (probes.has(`${frame.deviceId}/${frame.wireId}`)) continue;
    const told = byWire.get(`${frame.deviceId}/${frame.wireId}`);
    const likely = (byDevice.get(frame.deviceId) ?? []).filter(
      ({ accepted }) => accepted.content !== undefined && frame.frame.includes(accepted.content),
    );
    const meant = likely.length === 1 ? likely[0] : undefined;
    const owner = meant ?? told;
    if (!owner && isProbe(frame)) continue;
    if (!owner) {
      problems.push(
        `device ${frame.deviceId} received a frame that no accepted command explains: wire id ${frame.wireId}, ${frame.frame}`,
      );
      continue;
    }
    owner.frames.push(frame);
    if (told && meant && told !== meant) {
      problems.push(
        `${named(told)} has the wire id ${frame.wireId} in its trail, but the frame under it is that of command ${meant.accepted.id}`,
      );
    }
  }
}

/** The attempts that are no probes. */
function triesOf({ record }: Case): FinalRecord['attempts'] {
  return record?.attempts.filter(({ probe }) => !probe) ?? [];
}

/** Every frame must stand in the trail with its bytes, and all frames of a command carry one wire id. */
function judgeWireIds(
  cases: Map<string, Case>,
  seen: readonly SeenFrame[],
  problems: string[],
): void {
  const known = new Set<string>();
  const before = new Set<string>();
  for (const frame of seen) {
    const key = `${frame.deviceId}/${frame.wireId}`;
    if (before.has(key) !== frame.duplicate) {
      problems.push(
        `device ${frame.deviceId} calls the frame under wire id ${frame.wireId} ${frame.duplicate ? 'a duplicate, but saw it first' : 'new, but saw it before'}`,
      );
    }
    before.add(key);
  }
  for (const one of cases.values()) {
    const attempts = triesOf(one);
    const wireIds = new Set(one.frames.map((frame) => frame.wireId));
    if (wireIds.size > 1) {
      problems.push(
        `${named(one)} was sent again under another wire id: ${[...wireIds].join(', ')}`,
      );
    }
    if (new Set(attempts.map((attempt) => attempt.wireId)).size > 1) {
      problems.push(`${named(one)} changes its wire id within its trail`);
    }
    if (!one.record) continue;
    for (const wireId of wireIds) {
      const tries = attempts.filter((attempt) => attempt.wireId === wireId);
      const frames = one.frames.filter((frame) => frame.wireId === wireId);
      if (tries.length < frames.length) {
        const missing = `${named(one)} reached its device ${frames.length} times under wire id ${wireId}, its trail shows ${tries.length}`;
        if (!known.has(missing)) problems.push(missing);
        known.add(missing);
      }
      const outs = new Set(tries.map((attempt) => attempt.frameOut));
      for (const frame of frames) {
        if (tries.length > 0 && !outs.has(frame.frame)) {
          problems.push(
            `${named(one)} reached its device as ${frame.frame}, which is not in its trail`,
          );
        }
      }
    }
  }
}

type Rules = {
  kills: readonly Fault[];
  closes: readonly SeenClose[];
  graceMs: number;
  mayEndUnwritten: readonly string[];
  mayExpire: boolean;
};

/** The ends that the device's log and the faults leave open, whatever the ledger says. */
function allowedEnds(one: Case, rules: Rules): Set<string> {
  const { accepted, frames } = one;
  const allowed = new Set<string>();
  if (frames.length === 0) {
    for (const status of [...rules.mayEndUnwritten, ...(accepted.mayEnd ?? [])]) {
      allowed.add(status);
    }
    if (rules.mayExpire) allowed.add('expired');
    // published, and its gateway, worker or connection died before the bytes arrived: possibly written
    const lostOnTheWay = pendingAtAKill(one, rules.kills) || closesSince(one, rules) > 0;
    const given = !accepted.repeatable || outOfTime(one, rules);
    if (lostOnTheWay && given) allowed.add('unknown');
    return allowed;
  }
  if (accepted.ack === 'none') return allowed.add('unacknowledged');

  const answers = frames.filter((frame) => frame.answeredAt !== null);
  for (const frame of answers) allowed.add(endOf(frame));
  const surelyAnswered =
    !answers.some((frame) => isUnclear(frame, one)) &&
    answers.some((frame) => !answerMayBeLost(frame, rules));
  if (surelyAnswered) return allowed;

  // from here on nobody upstream need have heard an answer
  if (!accepted.repeatable) {
    allowed.add('unknown');
  } else if (
    attemptsSpent(one, rules) >= (accepted.attempts ?? defaultAttempts) ||
    outOfTime(one, rules)
  ) {
    allowed.add('unknown');
  }
  // a probe may find the effect where the answer was lost
  if (one.record?.inferred === true && frames.some((frame) => frame.executed === true)) {
    allowed.add('succeeded');
  }
  return allowed;
}

/**
 * A no to something that was tried more than once may speak of the state that an earlier try brought about. All of
 * them carry one wire id, so that nobody can tell which of them the device meant.
 */
function isUnclear(frame: SeenFrame, one: Case): boolean {
  return !one.accepted.repeatable && endOf(frame) === 'rejected' && triesOf(one).length > 1;
}

function endOf(frame: SeenFrame): string {
  const says = frame.says ?? (frame.intended === 'nack' ? 'nack' : 'ack');
  return says === 'nack' ? 'rejected' : 'succeeded';
}

/** The answer left the device, but what should have carried it on was dying. */
function answerMayBeLost(frame: SeenFrame, { kills, closes, graceMs }: Rules): boolean {
  const at = frame.answeredAt!;
  if (kills.some((kill) => at >= kill.from - graceMs && at <= kill.to)) return true;
  const close = closes.find(({ connection }) => connection === frame.connection);
  return close !== undefined && close.by !== 'device' && at >= close.at - graceMs;
}

/** Silent frames, and one try for each kill and lost connection that the command lived through. */
function attemptsSpent(one: Case, rules: Rules): number {
  const { accepted, frames } = one;
  const kills = rules.kills.filter((kill) => kill.to >= accepted.acceptedAt).length;
  return frames.length + kills + closesSince(one, rules);
}

/** Its last try, lost or unanswered, left no time for another one before its deadline. */
function outOfTime(one: Case, rules: Rules): boolean {
  const { retries, deadline, deviceId } = one.accepted;
  if (!retries) return false;
  const lost = rules.closes.flatMap(({ at, deviceIds }) =>
    deviceIds.includes(deviceId) && at <= deadline ? [at] : [],
  );
  const last = Math.max(...one.frames.map(({ at }) => at), ...lost);
  const tries = Math.max(1, attemptsSpent(one, rules));
  // a backoff doubles from try to try, and up to a fifth of it is chance
  const next = last + retries.ackTimeoutMs + 1.2 * retries.backoffMs * 2 ** (tries - 1);
  return next + turnMs >= deadline;
}

/** A try that is due may have to wait so long for its device, or for its turn in the lane. */
const turnMs = 5_000;

/** How often its device's connection ended since it was accepted. */
function closesSince({ accepted }: Case, { closes }: Pick<Rules, 'closes'>): number {
  const { deviceId, acceptedAt } = accepted;
  return closes.filter(({ at, deviceIds }) => at >= acceptedAt && deviceIds.includes(deviceId))
    .length;
}

/** Accepted before a kill was over: its delivery can have been under way. */
function pendingAtAKill({ accepted }: Case, kills: readonly Fault[]): boolean {
  return kills.some((kill) => accepted.acceptedAt <= kill.to && accepted.deadline >= kill.from);
}

/** A frame was with the device, or its answer on the way back, when a process died. */
function inFlightAtAKill(one: Case, kills: readonly Fault[], graceMs: number): boolean {
  return kills.some((kill) =>
    one.frames.some(
      (frame) =>
        frame.at <= kill.to &&
        (frame.answeredAt === null
          ? frame.at >= kill.from - unansweredWindowMs
          : frame.answeredAt >= kill.from - graceMs),
    ),
  );
}

/** An unanswered frame older than this was given up before the kill. */
const unansweredWindowMs = 30_000;

/** `unknown` needs a cause: an unanswered frame, or a kill; what never arrived is bounded by the lanes. */
function judgeUnknowns(
  cases: Map<string, Case>,
  unknowns: readonly string[],
  inFlightAtKills: number,
  { kills, closes }: Pick<Rules, 'kills' | 'closes'>,
  problems: string[],
): void {
  let atKills = 0;
  const neverArrived = new Map<string, number>();
  for (const id of unknowns) {
    const one = cases.get(id)!;
    if (one.frames.length === 0) {
      const { deviceId } = one.accepted;
      neverArrived.set(deviceId, (neverArrived.get(deviceId) ?? 0) + 1);
    } else if (
      one.frames.some((frame) => frame.answeredAt !== null) &&
      !one.frames.some((frame) => frame.answeredAt !== null && isUnclear(frame, one)) &&
      closesSince(one, { closes }) === 0
    ) {
      atKills += 1;
    }
  }
  if (atKills > inFlightAtKills) {
    problems.push(
      `${atKills} answered commands ended as unknown, but only ${inFlightAtKills} were in flight at the kills`,
    );
  }
  for (const [deviceId, count] of neverArrived) {
    const losses = kills.length + closes.filter((one) => one.deviceIds.includes(deviceId)).length;
    if (count <= laneLimit * losses) continue;
    problems.push(
      `${count} commands of device ${deviceId} ended as unknown without reaching it; its lane held at most ${laneLimit} at each of ${losses} losses`,
    );
  }
}

/** One in flight and four waiting: what a gateway can take with it for one device, at each kill. */
const laneLimit = 5;

function named({ accepted }: Case): string {
  return `command ${accepted.id} (${accepted.command} to ${accepted.deviceId})`;
}

function story({ frames }: Case): string {
  if (frames.length === 0) return 'no frame reached the device';
  return frames
    .map((frame) =>
      frame.answeredAt === null
        ? `received at ${frame.at}, unanswered`
        : `received at ${frame.at}, answered ${frame.says ?? frame.intended} at ${frame.answeredAt}`,
    )
    .join('; ');
}
