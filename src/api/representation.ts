/** Internal values as the API shows them; the one place where milliseconds become ISO 8601. */
import { type Attempt, type Command, type CommandRecord, isFinal } from '../command.ts';
import type { Device } from '../store/contract.ts';

/** ISO 8601, or null for no moment. */
export function isoOf(ms: number): string;
export function isoOf(ms: number | null): string | null;
export function isoOf(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}

/** A command with its attempts, oldest first. */
export function commandJson(record: CommandRecord) {
  return {
    id: record.id,
    status: record.status,
    final: isFinal(record.status),
    deviceId: record.deviceId,
    protocol: record.protocol,
    command: record.command,
    params: record.params,
    priority: record.priority,
    reason: record.reason,
    code: record.code,
    result: record.result,
    late: record.late,
    inferred: record.inferred,
    ...timesOf(record),
    settledAt: isoOf(record.settledAt),
    ackTimeoutMs: record.ackTimeoutMs,
    maxAttempts: record.attempts,
    backoffMs: record.backoffMs,
    orderKey: record.orderKey,
    onAmbiguous: record.onAmbiguous,
    labels: record.labels,
    apiKey: record.apiKey,
    replayOf: record.replayOf,
    attempts: Object.values(record.trail)
      .sort((a, b) => a.attempt - b.attempt)
      .map(attemptJson),
  };
}

function timesOf({ acceptedAt, notBefore, deadline }: Command) {
  return {
    acceptedAt: isoOf(acceptedAt),
    notBefore: isoOf(notBefore),
    deadline: isoOf(deadline),
  };
}

function attemptJson(attempt: Attempt) {
  return { ...attempt, at: isoOf(attempt.at), writtenAt: isoOf(attempt.writtenAt) };
}

export type DeviceJson = ReturnType<typeof deviceJson>;

/** `online` is null when nobody can tell, since Redis is away. */
export function deviceJson(device: Device, presence: { gatewayId: string } | null | 'unknown') {
  const known = presence === 'unknown' ? null : presence;
  return {
    deviceId: device.deviceId,
    protocol: device.protocol,
    online: presence === 'unknown' ? null : presence !== null,
    gatewayId: known?.gatewayId ?? null,
    lastSeenAt: isoOf(device.lastSeenAt),
    firstSeenAt: isoOf(device.firstSeenAt),
    facts: device.facts,
  };
}
