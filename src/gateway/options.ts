import { tcpDefaults } from '../config/settings.ts';
import type { AdmissionOptions } from './admission/admission.ts';

/** The gateway's limits. All of them bound what one peer, or one outage, can cost. */
export type GatewayOptions = {
  /** A connection must have a session this long after accept. */
  loginTimeoutMs: number;
  /** A connection is idle after so many heartbeats of its protocol went missing. */
  idleFactor: number;
  /** Bytes that may come before the first sound frame. */
  headBytes: number;
  /** Garbage that a connection may send within the window once it has sent a sound frame. */
  garbageBytes: number;
  garbageWindowMs: number;
  /** Bytes that a peer may leave unread. */
  unsentBytes: number;
  /** A connection that takes none of the bytes written to it for so long is closed. */
  stallTimeoutMs: number;
  /** Frames a second that are read of one device, and how many may come at once. */
  deviceRate: number;
  deviceBurst: number;
  /** Who keeps a device id that logs in twice. */
  takeover: 'newest' | 'deny';
  /** Device ids on one connection; an AP3000 host carries at most 50. */
  maxSessions: number;
  /** Messages kept per session while its login is under way. */
  heldMessages: number;
  /** A login without an answer after so long: the device is served without presence meanwhile. */
  slowLoginMs: number;
  loginRetryMs: number;
  loginRetryMaxMs: number;
  /** A device's heartbeats of one name are reported at most this often. */
  heartbeatReportMs: number;
  /** Reports on their way into the store, per connection and in all. */
  connectionReports: number;
  pendingReports: number;
  /** Ends that are kept until the worker has settled them. */
  keptEnds: number;
  keptEndMs: number;
  /** How long after an attempt was settled it is known to have been written. */
  settledWriteMs: number;
  /** How long the end of one that must not be written twice is remembered: a long stall of a worker. */
  settledEndMs: number;
  /** How long, and for how many frames, a late answer is waited for. */
  lateWindowMs: number;
  /** How long after its login a device's unmatched words are kept for frames of other gateways: a lease and a bit. */
  strayMs: number;
  lateFrames: number;
};

export const defaultOptions: GatewayOptions = {
  loginTimeoutMs: tcpDefaults.loginTimeoutMs,
  idleFactor: tcpDefaults.idleFactor,
  headBytes: 1024,
  garbageBytes: 8 * 1024,
  garbageWindowMs: 60_000,
  unsentBytes: tcpDefaults.maxUnsentBytes,
  stallTimeoutMs: tcpDefaults.stallTimeoutMs,
  deviceRate: tcpDefaults.deviceRate,
  deviceBurst: tcpDefaults.deviceBurst,
  takeover: 'newest',
  maxSessions: 64,
  heldMessages: 16,
  slowLoginMs: 3_000,
  loginRetryMs: 1_000,
  loginRetryMaxMs: 30_000,
  heartbeatReportMs: 60_000,
  connectionReports: 64,
  pendingReports: 20_000,
  keptEnds: 50_000,
  keptEndMs: 600_000,
  settledWriteMs: 15_000,
  settledEndMs: 180_000,
  lateWindowMs: 600_000,
  strayMs: 20_000,
  lateFrames: 50_000,
};

export const defaultAdmission: AdmissionOptions = {
  maxConnections: 10_000,
  waitMs: 5_000,
  waitingRoom: 256,
  rateLimit: 100,
  rateBurst: 200,
  breaker: { threshold: 50, timeoutMs: 30_000, halfOpenMax: 5 },
  address: { maxConnections: 0, rateLimit: 0 },
  ban: { threshold: 20, windowMs: 60_000, durationMs: 60_000 },
};
