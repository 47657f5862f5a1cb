/**
 * Why a command is not out yet, or how it ended, in one sentence. Pure: what is known comes in, and the first
 * obstacle of a fixed order is the one that is told; the others are named.
 */
import { type Attempt, type CommandRecord, isFinal } from '../command.ts';

export const becauses = [
  'ended',
  'queue-store-away',
  'revoked',
  'sent',
  'in-lane',
  'overdue',
  'ending',
  'not-queued',
  'scheduled',
  'device-paused',
  'queue-paused',
  'no-worker',
  'backoff',
  'no-gateway',
  'offline',
  'behind',
  'lane-full',
  'parked',
  'in-hand',
  'queued',
] as const;
export type Because = (typeof becauses)[number];

/** A command that this one waits for. */
export type Other = {
  id: string;
  /** Null where the ledger could not tell. */
  command: string | null;
  /** When its answer is due, if it was written; Unix milliseconds. */
  answerDueAt: number | null;
};

/** What Redis tells. */
export type Whereabouts = {
  revocation: { kind: 'superseded' | 'cancelled'; by: string } | null;
  /** The gateway that has its frame at this moment. */
  withGateway: { gatewayId: string; attempt: number } | null;
  /** A frame of it was written before, or may have been. */
  written: boolean;
  /** The living gateway that holds the device. */
  gateway: { gatewayId: string; draining: boolean } | null;
  liveGateways: number;
  liveWorkers: number;
  queuePaused: boolean;
  /** Unfinished commands of its line that it waits for, oldest first. */
  ahead: readonly Other[];
  /** Commands of other lines whose frames are with the device's gateway. */
  underWay: readonly Other[];
  parked: 'blocked' | 'waiting' | 'woken' | null;
  /** Null: the queue does not hold it. */
  job: { state: string; dueAt: number | null } | null;
  /** Waiting in the queue altogether. */
  waiting: number;
};

export type Facts = {
  now: number;
  record: CommandRecord;
  /** `queue`: the ledger did not answer, so that the status is as of accept. */
  source: 'ledger' | 'queue';
  /** Null: the queue store did not answer. */
  whereabouts: Whereabouts | null;
  /** Null: it is not paused. */
  pause: { since: number; by: string | null; reason: string | null } | null;
  lastSeenAt: number | null;
};

export type Explanation = {
  because: Because;
  sentence: string;
  /** Other obstacles that hold as well. */
  also: Because[];
  fields: Record<string, unknown>;
};

type Point = { because: Because; sentence: string; fields?: Record<string, unknown> };

export function explain(facts: Facts): Explanation {
  const { record, source } = facts;
  const [{ because, sentence, fields = {} }, ...others] = isFinal(record.status)
    ? ([ended(record)] as const)
    : open(facts);
  const blind =
    source === 'queue' ? '; the ledger shows nothing of its attempts at the moment' : '';
  return {
    because,
    sentence: sentence + blind,
    also: others.map((point) => point.because),
    fields,
  };
}

/** What holds it up: the first says it all where no other can matter any more. */
function open(facts: Facts): [Point, ...Point[]] {
  const { whereabouts } = facts;
  if (!whereabouts) return [storeAway(facts)];
  const settled = revoked(facts, whereabouts) ?? underWay(facts, whereabouts);
  if (settled) return [settled];
  const over = overdue(facts) ?? ending(whereabouts) ?? scheduled(facts) ?? notQueued(whereabouts);
  const obstacles = [
    over,
    devicePaused(facts),
    queuePaused(whereabouts),
    noWorker(whereabouts),
    backoff(facts, whereabouts),
    noGateway(whereabouts) ?? offline(facts, whereabouts),
    behind(facts, whereabouts),
  ].filter((point) => point !== null);
  const [first = waiting(facts, whereabouts), ...others] = obstacles;
  return [first, ...others];
}

function ended(record: CommandRecord): Point {
  const { status, reason, code, settledAt } = record;
  const at = settledAt === null ? '' : ` at ${iso(settledAt)}`;
  const fields = { settledAt: settledAt === null ? null : iso(settledAt), code, reason };
  return { because: 'ended', sentence: `it ended as ${status}${at}: ${endOf(record)}`, fields };
}

function endOf({ status, reason, code, late, inferred }: CommandRecord): string {
  const because = reason ?? code ?? 'no reason was noted';
  switch (status) {
    case 'succeeded':
      if (inferred) return 'a probe showed that it took effect';
      return late ? 'the device acknowledged it late' : 'the device acknowledged it';
    case 'rejected':
      return `the device refused it${late ? ' late' : ''}${code ? ` with ${code}` : ''}${reason ? `: ${reason}` : ''}`;
    case 'unknown':
      return `${because}; it may have reached the device`;
    default:
      return because;
  }
}

function storeAway({ record }: Facts): Point {
  const reason = record.reason ? ` (${record.reason})` : '';
  return {
    because: 'queue-store-away',
    sentence: `Redis does not answer, so that nothing is sent and nobody can tell where it stands; the ledger last saw it ${record.status}${reason}`,
  };
}

function revoked(
  { record }: Facts,
  { revocation, withGateway, written }: Whereabouts,
): Point | null {
  if (!revocation) return null;
  const { kind, by } = revocation;
  const what = kind === 'superseded' ? `command ${by} replaced it` : `${by} cancelled it`;
  const possibly = written || withGateway !== null || record.status === 'sent';
  const end = possibly
    ? 'it may have been written, so that it ends as unknown unless the device answers'
    : `it is about to end as ${kind}`;
  return { because: 'revoked', sentence: `${what}: ${end}`, fields: { revokedAs: kind, by } };
}

/** Its frame is with a gateway. */
function underWay(facts: Facts, { withGateway, underWay: others }: Whereabouts): Point | null {
  if (!withGateway) return null;
  const { record, now } = facts;
  const { gatewayId, attempt } = withGateway;
  const answerDueAt = answerDue(record, attempt);
  const of = `attempt ${attempt} of ${record.attempts}`;
  if (answerDueAt !== null) {
    return {
      because: 'sent',
      sentence: `${of} was written by gateway ${gatewayId}: the device's answer ${due(answerDueAt, now)}`,
      fields: { gatewayId, attempt, answerDueAt: iso(answerDueAt) },
    };
  }
  const first = firstDue(others);
  return {
    because: 'in-lane',
    sentence: first
      ? `${of} waits in the device's lane at gateway ${gatewayId}, behind ${named(first, now)}`
      : `${of} was handed to gateway ${gatewayId} and is about to be written`,
    fields: { gatewayId, attempt, ...(first && { behind: otherJson(first) }) },
  };
}

function overdue({ record: { deadline }, now }: Facts): Point | null {
  if (now < deadline) return null;
  const at = iso(deadline);
  return {
    because: 'overdue',
    sentence: `its time to live ended at ${at}: it is about to end`,
    fields: { deadline: at },
  };
}

function ending({ job }: Whereabouts): Point | null {
  if (job?.state !== 'completed' && job?.state !== 'failed') return null;
  return { because: 'ending', sentence: 'it has ended, and its end is on its way to the ledger' };
}

function scheduled({ record: { notBefore }, now }: Facts): Point | null {
  if (notBefore <= now) return null;
  const at = iso(notBefore);
  return {
    because: 'scheduled',
    sentence: `it is scheduled until ${at}, in ${seconds(notBefore - now)}`,
    fields: { notBefore: at },
  };
}

function notQueued({ job }: Whereabouts): Point | null {
  if (job) return null;
  return {
    because: 'not-queued',
    sentence: 'it stands in the ledger only: a worker puts it into the queue within moments',
  };
}

function devicePaused({ record: { deviceId }, pause }: Facts): Point | null {
  if (!pause) return null;
  const since = iso(pause.since);
  const by = pause.by === null ? '' : ` by ${pause.by}`;
  const reason = pause.reason === null ? '' : ` (${pause.reason})`;
  return {
    because: 'device-paused',
    sentence: `device ${deviceId} is paused${by} since ${since}${reason}`,
    fields: { pausedSince: since, pausedBy: pause.by, pauseReason: pause.reason },
  };
}

function queuePaused({ queuePaused: paused }: Whereabouts): Point | null {
  if (!paused) return null;
  return {
    because: 'queue-paused',
    sentence: 'the whole queue is paused: POST /v1/queue/resume lets it go on',
  };
}

function noWorker({ liveWorkers }: Whereabouts): Point | null {
  if (liveWorkers > 0) return null;
  return { because: 'no-worker', sentence: 'no worker is alive to send it: start one' };
}

function backoff({ record, now }: Facts, { job, written, parked }: Whereabouts): Point | null {
  const last = lastAttempt(record);
  if (!last || !written || parked !== null) return null;
  if (job?.state !== 'delayed' || job.dueAt === null || job.dueAt <= now) return null;
  const at = iso(job.dueAt);
  const after = record.reason ?? last.outcome ?? 'no answer';
  return {
    because: 'backoff',
    sentence: `it pauses after attempt ${last.attempt} of ${record.attempts} ("${after}"): the next follows at ${at}`,
    fields: { attempt: last.attempt, nextAttemptAt: at },
  };
}

function noGateway({ liveGateways }: Whereabouts): Point | null {
  if (liveGateways > 0) return null;
  return { because: 'no-gateway', sentence: 'no gateway is alive, so that no device is connected' };
}

function offline({ record, lastSeenAt }: Facts, { gateway }: Whereabouts): Point | null {
  if (gateway) return null;
  const since =
    lastSeenAt === null ? 'it was never seen' : `it was last seen at ${iso(lastSeenAt)}`;
  return {
    because: 'offline',
    sentence: `device ${record.deviceId} is not connected: ${since}`,
    fields: { lastSeenAt: lastSeenAt === null ? null : iso(lastSeenAt) },
  };
}

function behind({ record, now }: Facts, { ahead }: Whereabouts): Point | null {
  const [first] = ahead;
  if (!first) return null;
  const line = record.orderKey ?? '';
  return {
    because: 'behind',
    sentence:
      ahead.length === 1
        ? `an older command of its order key ${line} is unfinished: ${named(first, now)}`
        : `${ahead.length} older commands of its order key ${line} are unfinished, first of all ${named(first, now)}`,
    fields: { orderKey: line, behind: otherJson(first), ahead: ahead.length },
  };
}

/** Nothing hinders it but its turn. */
function waiting(facts: Facts, whereabouts: Whereabouts): Point {
  const { parked, underWay: others, gateway, job } = whereabouts;
  const { record, now } = facts;
  const first = firstDue(others);
  if (parked === 'waiting' && first) {
    return {
      because: 'lane-full',
      sentence: `${others.length} other ${others.length === 1 ? 'command is' : 'commands are'} in the device's lane, which takes no more: first of all ${named(first, now)}`,
      fields: { behind: otherJson(first), inLane: others.length },
    };
  }
  if (parked === 'waiting' || parked === 'blocked') {
    const draining = gateway?.draining ? `gateway ${gateway.gatewayId} is shutting down` : null;
    const because = draining ?? record.reason ?? 'it could not be written at once';
    return { because: 'parked', sentence: `it is parked, and goes as soon as it can: ${because}` };
  }
  if (job?.state === 'active') {
    return { because: 'in-hand', sentence: 'a worker has it in hand and is about to send it' };
  }
  const before = Math.max(0, whereabouts.waiting - 1);
  return {
    because: 'queued',
    sentence: `it waits for a worker, with at most ${before} other ${before === 1 ? 'command' : 'commands'} in the queue before it`,
    fields: { waiting: before },
  };
}

function lastAttempt({ trail }: CommandRecord): Attempt | undefined {
  return Object.values(trail).sort((a, b) => b.attempt - a.attempt)[0];
}

/** When the device's answer to this attempt is due; null: its write is not known. */
export function answerDue({ trail, ackTimeoutMs }: CommandRecord, attempt: number): number | null {
  const writtenAt = trail[String(attempt)]?.writtenAt ?? null;
  return writtenAt === null ? null : writtenAt + ackTimeoutMs;
}

function firstDue(others: readonly Other[]): Other | undefined {
  const dueAt = ({ answerDueAt }: Other) => answerDueAt ?? Number.POSITIVE_INFINITY;
  return [...others].sort((a, b) => dueAt(a) - dueAt(b))[0];
}

function named({ id, command, answerDueAt }: Other, now: number): string {
  const what = command === null ? `command ${id}` : `command ${id} (${command})`;
  return answerDueAt === null ? what : `${what}, whose answer ${due(answerDueAt, now)}`;
}

function due(at: number, now: number): string {
  return at > now ? `is due in ${seconds(at - now)}` : 'is overdue, and about to be judged';
}

function otherJson({ id, command, answerDueAt }: Other) {
  return { id, command, answerDueAt: answerDueAt === null ? null : iso(answerDueAt) };
}

function seconds(ms: number): string {
  return `${Math.ceil(ms / 1_000)} s`;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
