/** The attacks: who does what from where, when a round of it is over, and what the gateway must have counted. */
import type { AttackKind } from './attacker.ts';

export type Limits = ReturnType<typeof limitsFor>;

export type Case = {
  /** For the command line. */
  name: string;
  kind: AttackKind;
  /** Peers of a round, out of those that were asked for; as many unless given. */
  peers?: (asked: number, limits: Limits) => number;
  /** Where they come from: ten behind an address of their own, all behind one, or where the devices are. */
  from: 'addresses of their own' | 'one address' | 'the devices';
  /** Peers that use one device id; 1 unless given. */
  perId?: number;
  perSecond?: number;
  /** Its process is stopped so long after its peers have logged in. */
  freezes?: true;
  /** A round is over when the gateway has thrown out all of them, or when its time is. */
  over: 'all thrown out' | 'in time';
  /** How long a round takes at least, where that is not the usual time. */
  forMs?: number;
  /** What it must add to the metrics in a round: at least so much for each peer, or in all. */
  counted: readonly { metric: string; perPeer?: number; inAll?: number }[];
  /** What it must not add to at all. */
  untouched?: readonly string[];
  /** While it goes on, a device that knocks for the first time gets in. */
  newcomer?: true;
};

const peersPerAddress = 10;

const closed = (reason: string) => `tcp_connections_closed_total{reason="${reason}"}`;
const rejected = (reason: string) => `tcp_connections_rejected{reason="${reason}"}`;
const loginFailed = (reason: string) => `gateway_login_failures_total{reason="${reason}"}`;
const undecoded = (reason: string) => `gateway_decode_errors_total{reason="${reason}"}`;

/** The settings of the gateway that so many peers at a time attack. */
export function limitsFor(peers: number, devices: number) {
  const rateBurst = peers;
  return {
    loginTimeoutMs: 1_000,
    rateBurst,
    // Full again when the next round begins.
    rateLimit: Math.max(400, Math.ceil(peers / 2)),
    maxConnections: devices + peers,
    waitMs: 1_000,
    waitingRoom: 50,
    banThreshold: 20,
    banMs: 1_000,
  };
}

/** As environment of a gateway. */
export function settingsOf(limits: Limits): Record<string, string> {
  return {
    DOWNLINK_TCP_LOGIN_TIMEOUT_MS: String(limits.loginTimeoutMs),
    DOWNLINK_TCP_IDLE_FACTOR: '2',
    DOWNLINK_TCP_MAX_CONNECTIONS: String(limits.maxConnections),
    DOWNLINK_TCP_WAIT: `${limits.waitMs}ms`,
    DOWNLINK_TCP_WAITING_ROOM: String(limits.waitingRoom),
    DOWNLINK_TCP_RATE_LIMIT: String(limits.rateLimit),
    DOWNLINK_TCP_RATE_BURST: String(limits.rateBurst),
    DOWNLINK_TCP_BAN_THRESHOLD: String(limits.banThreshold),
    DOWNLINK_TCP_BAN_DURATION: `${limits.banMs}ms`,
    DOWNLINK_TCP_STALL_TIMEOUT: '2s',
  };
}

export const cases = {
  silent: {
    name: 'silent',
    kind: 'silent',
    from: 'addresses of their own',
    over: 'all thrown out',
    counted: [
      { metric: closed('login-timeout'), perPeer: 1 },
      { metric: loginFailed('login-timeout'), perPeer: 1 },
    ],
  },
  garbage: {
    name: 'garbage',
    kind: 'garbage',
    from: 'addresses of their own',
    over: 'all thrown out',
    counted: [
      { metric: closed('no-frame'), perPeer: 1 },
      { metric: undecoded('noise'), perPeer: 1_024 },
    ],
  },
  halfFirstFrame: {
    name: 'half-first-frame',
    kind: 'half a first frame',
    from: 'addresses of their own',
    over: 'all thrown out',
    counted: [{ metric: closed('login-timeout'), perPeer: 1 }],
  },
  halfFrame: {
    name: 'half-frame',
    kind: 'half a frame',
    from: 'addresses of their own',
    over: 'all thrown out',
    counted: [
      { metric: undecoded('partial-timeout'), perPeer: 1 },
      { metric: closed('idle'), perPeer: 1 },
    ],
  },
  byteASecond: {
    name: 'byte-a-second',
    kind: 'a byte a second',
    from: 'addresses of their own',
    over: 'all thrown out',
    counted: [{ metric: closed('login-timeout'), perPeer: 1 }],
  },
  endless: {
    name: 'endless-frames',
    kind: 'endless frames',
    from: 'addresses of their own',
    over: 'all thrown out',
    counted: [
      { metric: undecoded('partial-timeout'), perPeer: 1 },
      { metric: closed('garbage'), perPeer: 1 },
    ],
  },
  deaf: {
    name: 'deaf',
    kind: 'deaf',
    from: 'addresses of their own',
    over: 'in time',
    counted: [
      {
        metric: 'gateway_frames_total{direction="out",protocol="bkv",command="heartbeat.reply"}',
        perPeer: 5,
      },
    ],
  },
  flood: {
    name: 'flood',
    kind: 'flood',
    from: 'addresses of their own',
    over: 'in time',
    counted: [{ metric: 'tcp_throttled_total', perPeer: 1 }],
  },
  resets: {
    name: 'resets',
    kind: 'resets',
    from: 'addresses of their own',
    over: 'in time',
    counted: [{ metric: closed('reset'), inAll: 1 }],
  },
  resetsAfterLogin: {
    name: 'resets-after-login',
    kind: 'resets after login',
    from: 'addresses of their own',
    over: 'in time',
    counted: [{ metric: closed('reset'), perPeer: 1 }],
  },
  storm: {
    name: 'storm',
    kind: 'storm',
    peers: (_asked, { rateBurst }) => Math.ceil(1.5 * rateBurst),
    from: 'addresses of their own',
    over: 'in time',
    counted: [{ metric: rejected('rate'), perPeer: 0.2 }],
  },
  crowd: {
    name: 'crowd',
    kind: 'crowd',
    peers: (_asked, { rateBurst, waitingRoom }) => rateBurst + 3 * waitingRoom,
    from: 'addresses of their own',
    over: 'in time',
    counted: [
      { metric: rejected('room-full'), inAll: 20 },
      { metric: rejected('wait-timeout'), inAll: 20 },
    ],
  },
  vanished: {
    name: 'vanished',
    kind: 'vanished',
    from: 'addresses of their own',
    freezes: true,
    over: 'all thrown out',
    counted: [{ metric: closed('idle'), perPeer: 1 }],
  },
  borrowedIds: {
    name: 'borrowed-ids',
    kind: 'borrowed ids',
    from: 'addresses of their own',
    perId: peersPerAddress,
    over: 'in time',
    // An id may change hands thirty times a minute before that is denied.
    forMs: 4_000,
    counted: [{ metric: loginFailed('flapping'), perPeer: 0.1 }],
  },
  badAddress: {
    name: 'bad-address',
    kind: 'garbage again',
    from: 'one address',
    over: 'in time',
    counted: [{ metric: rejected('banned'), perPeer: 1 }],
    newcomer: true,
  },
  sharedAddress: {
    name: 'shared-address',
    kind: 'garbage',
    from: 'the devices',
    over: 'all thrown out',
    counted: [{ metric: closed('no-frame'), perPeer: 1 }],
    untouched: [rejected('banned')],
    newcomer: true,
  },
} as const satisfies Record<string, Case>;

/** Attacks that go on at a time: none of them is counted as another is. */
export const together: readonly (readonly Case[])[] = [
  [cases.silent, cases.vanished, cases.garbage, cases.badAddress],
  [cases.byteASecond, cases.endless, cases.borrowedIds],
  [cases.halfFirstFrame, cases.halfFrame, cases.deaf, cases.flood],
  [cases.resets, cases.resetsAfterLogin],
  [cases.storm],
  [cases.crowd],
  [cases.sharedAddress],
];

/** Where the peers of a round come from; each round has addresses that nothing is held against yet. */
export function addressesOf({ from }: Case, peers: number, round: number): string[] {
  if (from === 'the devices') return ['127.0.0.1'];
  const count = from === 'one address' ? 1 : Math.ceil(peers / peersPerAddress);
  return Array.from({ length: count }, (_, i) => `127.${10 + round}.${i >> 7}.${1 + (i & 127)}`);
}
