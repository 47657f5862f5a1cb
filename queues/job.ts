/** The shape of an outbound job: the whole command, so that the queue alone can carry it to its end. */
import type { JobsOptions, KeepJobs } from 'bullmq';
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { ambiguityPolicies, type Command } from '../src/command.ts';
import type { Base } from './contract.ts';

const Millis = Type.Integer({ minimum: 0, maximum: 9_007_199_254_740_991 });

const OutboundJob = Type.Object({
  deviceId: Type.String({ minLength: 1, maxLength: 32 }),
  protocol: Type.String({ minLength: 1, maxLength: 16 }),
  params: Type.Record(Type.String(), Type.Unknown()),
  priority: Type.Integer({ minimum: 0, maximum: 9 }),
  acceptedAt: Millis,
  /** Absent: at once. */
  notBefore: Type.Optional(Millis),
  deadline: Millis,
  ackTimeoutMs: Type.Integer({ minimum: 1, maximum: 600_000 }),
  attempts: Type.Integer({ minimum: 1, maximum: 100 }),
  backoffMs: Type.Integer({ minimum: 0, maximum: 3_600_000 }),
  onAmbiguous: Type.Enum(ambiguityPolicies),
  orderKey: Type.Optional(Type.String({ minLength: 1, maxLength: 64 })),
  labels: Type.Optional(Type.Record(Type.String(), Type.String())),
  apiKey: Type.String({ maxLength: 128 }),
  waiter: Type.Optional(Type.String({ maxLength: 64 })),
  replayOf: Type.Optional(Type.String({ maxLength: 64 })),
  /** Where a command that was put back goes on counting. */
  base: Type.Optional(Type.Object({ attempt: Millis, version: Millis })),
});
export type OutboundJob = Static<typeof OutboundJob>;

const check = Compile(OutboundJob);

/** Each activation of a job writes at most so many versions of its command. */
export const versionsPerActivation = 8;

/** A command behind another is woken by its release; this only catches a word that was lost. */
const blockedBackstopMs = 60_000;

/** Retention in the queue store; the ledger keeps the history. */
export const keepCompleted = { count: 1_000, age: 3_600 } satisfies KeepJobs;
export const keepFailed = { count: 10_000, age: 7 * 24 * 3_600 } satisfies KeepJobs;

/** The job data of a command. Id and command name travel as the job's id and name. */
export function toJob(command: Command, base?: Base): OutboundJob {
  const { deviceId, protocol, params, priority, acceptedAt, deadline, ackTimeoutMs } = command;
  const { attempts, backoffMs, onAmbiguous, apiKey } = command;
  return {
    deviceId,
    protocol,
    params,
    priority,
    acceptedAt,
    ...(command.notBefore > acceptedAt && { notBefore: command.notBefore }),
    deadline,
    ackTimeoutMs,
    attempts,
    backoffMs,
    onAmbiguous,
    ...(command.orderKey !== null && { orderKey: command.orderKey }),
    ...(Object.keys(command.labels).length > 0 && { labels: command.labels }),
    apiKey,
    ...(command.waiter !== null && { waiter: command.waiter }),
    ...(command.replayOf !== null && { replayOf: command.replayOf }),
    ...(base && { base }),
  };
}

/** Ids are fields of hashes and parts of keys, beside others that begin with a sign. */
const idPattern = /^[A-Za-z0-9][\w.-]{7,47}$/;

export type ReadJob = { command: Command; base: Base } | { fault: string };

/** Reads a job back. Whatever else stands in the queue comes as a fault, never as a throw. */
export function fromJob(job: { id?: string | undefined; name: string; data: unknown }): ReadJob {
  if (!idPattern.test(job.id ?? '')) {
    return { fault: 'job id must be 8 to 48 letters, digits, dots or dashes, the first no sign' };
  }
  if (!check.Check(job.data)) {
    const [first] = check.Errors(job.data);
    return {
      fault: `job data ${first?.instancePath || '/'} ${first?.message ?? 'is not a command'}`,
    };
  }
  const data = job.data;
  return {
    command: {
      id: job.id ?? '',
      deviceId: data.deviceId,
      protocol: data.protocol,
      command: job.name,
      params: data.params,
      priority: data.priority,
      acceptedAt: data.acceptedAt,
      notBefore: data.notBefore ?? data.acceptedAt,
      deadline: data.deadline,
      ackTimeoutMs: data.ackTimeoutMs,
      attempts: data.attempts,
      backoffMs: data.backoffMs,
      orderKey: data.orderKey ?? null,
      onAmbiguous: data.onAmbiguous,
      labels: data.labels ?? {},
      apiKey: data.apiKey,
      waiter: data.waiter ?? null,
      replayOf: data.replayOf ?? null,
    },
    base: data.base ?? { attempt: 0, version: 0 },
  };
}

/** BullMQ's priority of ours: its 1 is most urgent, and 0 would go before all. */
export function bullPriority(priority: number): number {
  return 10 - priority;
}

/** BullMQ's options of a job. The server sets every one; none comes from a client. */
export function jobOptions(
  command: Command,
  { base, blocked, now }: { base: Base | undefined; blocked: boolean; now: number },
): JobsOptions {
  const delay = blocked
    ? Math.min(blockedBackstopMs, command.deadline - now)
    : command.notBefore - now;
  return {
    jobId: command.id,
    priority: bullPriority(command.priority),
    attempts: Math.max(1, command.attempts - (base?.attempt ?? 0)),
    // The delay itself is settle's: it knows the deadline.
    backoff: { type: 'downlink' },
    ...(delay > 0 && { delay }),
  };
}
