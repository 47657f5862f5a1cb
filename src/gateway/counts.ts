/** What the gateway counts. Plain numbers: the metrics read them at scrape, the hot path only adds. */
import type { OutcomeKind } from '../outcome.ts';
import { type GarbageReason, garbageReasons, type ReportWeight } from '../protocols/protocol.ts';

export const closeReasons = [
  'peer-closed',
  'reset',
  'write-error',
  'login-timeout',
  'no-frame',
  'garbage',
  'idle',
  'slow-reader',
  'flapping',
  'taken-over',
  'draining',
] as const;
export type CloseReason = (typeof closeReasons)[number];

export type Counts = {
  accepted: number;
  closed: Record<CloseReason, number>;
  /** By protocol: sound frames that were read, and frames that were handed to sockets. */
  framesIn: Record<string, number>;
  framesOut: Record<string, number>;
  /** Bytes that were dropped, by reason. */
  garbageBytes: Record<GarbageReason, number>;
  /** Sound frames whose payload was not what the table says. */
  faults: number;
  /** Messages that were dropped: held too many, id denied, too many ids on a connection. */
  droppedMessages: number;
  factoryDefaults: number;
  logins: { granted: number; denied: number; failed: number };
  takeovers: number;
  outcomes: Record<OutcomeKind, number>;
  lateAnswers: number;
  reports: { stored: Record<ReportWeight, number>; failed: number; dropped: number };
};

/** All at zero. */
export function createCounts(protocolNames: readonly string[]): Counts {
  return {
    accepted: 0,
    closed: zeros(closeReasons),
    framesIn: zeros(protocolNames),
    framesOut: zeros(protocolNames),
    garbageBytes: zeros(garbageReasons),
    faults: 0,
    droppedMessages: 0,
    factoryDefaults: 0,
    logins: { granted: 0, denied: 0, failed: 0 },
    takeovers: 0,
    outcomes: {
      acked: 0,
      rejected: 0,
      unacknowledged: 0,
      unwritten: 0,
      refused: 0,
      ambiguous: 0,
    },
    lateAnswers: 0,
    reports: { stored: { heartbeat: 0, state: 0, money: 0 }, failed: 0, dropped: 0 },
  };
}

function zeros<K extends string>(names: readonly K[]): Record<K, number> {
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<K, number>;
}
