/** Command records for the tests of the store. */
import { v7 as uuidV7 } from 'uuid';
import { type Attempt, acceptedState, type CommandRecord } from '../../src/command.ts';

/** A command accepted now, with what a test wants otherwise. */
export function newRecord(wanted: Partial<CommandRecord> = {}): CommandRecord {
  const now = Date.now();
  const command = {
    id: uuidV7(),
    deviceId: '82200520004869',
    protocol: 'bkv',
    command: 'charge.start',
    params: { socket: 1, port: 0, minutes: 60 },
    priority: 7,
    acceptedAt: now,
    notBefore: now,
    deadline: now + 60_000,
    ackTimeoutMs: 10_000,
    attempts: 4,
    backoffMs: 3_000,
    orderKey: 'port:1:0',
    onAmbiguous: 'probe' as const,
    labels: { site: 'north' },
    apiKey: 'operator',
    waiter: null,
    replayOf: null,
  };
  return { ...command, ...acceptedState(command, now), ...wanted };
}

export function attemptOf(attempt: number, wanted: Partial<Attempt> = {}): Attempt {
  return {
    attempt,
    at: 1_700_000_000_000,
    gatewayId: 'gateway-1',
    epoch: 1_700_000_000_000_000,
    wireId: 7,
    frameOut: 'fcff0011',
    writtenAt: null,
    frameIn: null,
    ms: null,
    outcome: null,
    ...wanted,
  };
}

/** The record at a later version. */
export function later(
  record: CommandRecord,
  version: number,
  wanted: Partial<CommandRecord>,
): CommandRecord {
  return { ...record, version, ...wanted };
}
