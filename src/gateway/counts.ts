/** What the gateway counts. Plain numbers: the metrics read them at scrape, the hot path only adds. */
import type { OutcomeKind } from '../outcome.ts';
import { type GarbageReason, garbageReasons, type ReportWeight } from '../protocols/protocol.ts';
import { refusals } from './admission/admission.ts';

export const closeReasons = [
  'peer-closed',
  'reset',
  'write-error',
  'login-timeout',
  'no-frame',
  'garbage',
  'idle',
  'slow-reader',
  'stalled',
  'wrong-device',
  'not-known',
  'not-vouched',
  'taken',
  'internal',
  'flapping',
  'taken-over',
  'draining',
] as const;
export type CloseReason = (typeof closeReasons)[number];

/** Why a peer was sent away before it became a connection. */
const allRefusals = [...refusals, 'tls-handshake', 'tls-client-cert', 'gone'] as const;
export type Refused = (typeof allRefusals)[number];

/** Why a connection, or a device on it, did not get in. */
export const loginFailures = [
  'login-timeout',
  'no-frame',
  'garbage',
  'wrong-device',
  'not-known',
  'taken',
  'flapping',
] as const;
export type LoginFailure = (typeof loginFailures)[number];

export type Counts = {
  accepted: number;
  refused: Record<Refused, number>;
  closed: Record<CloseReason, number>;
  loginFailures: Record<LoginFailure, number>;
  /** Pauses in reading a device that sends faster than it may. */
  throttled: number;
  bytesIn: number;
  bytesOut: number;
  /** By protocol and message: sound frames that were read, and frames that were handed to sockets. */
  framesIn: Record<string, Record<string, number>>;
  framesOut: Record<string, Record<string, number>>;
  /** Counts a frame under its name in the protocol's table; names that are not there are `unknown`. */
  message(direction: 'in' | 'out', protocol: string, name: string): void;
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
  const framesIn = byProtocol(protocolNames);
  const framesOut = byProtocol(protocolNames);
  return {
    accepted: 0,
    refused: zeros(allRefusals),
    loginFailures: zeros(loginFailures),
    throttled: 0,
    bytesIn: 0,
    bytesOut: 0,
    message(direction, protocol, name) {
      const names = (direction === 'in' ? framesIn : framesOut)[protocol];
      if (names) names[name] = (names[name] ?? 0) + 1;
    },
    closed: zeros(closeReasons),
    framesIn,
    framesOut,
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

function byProtocol(names: readonly string[]): Record<string, Record<string, number>> {
  return Object.fromEntries(names.map((name) => [name, {}]));
}
