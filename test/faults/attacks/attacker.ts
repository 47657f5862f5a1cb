/** One attack in a process of its own. */
import { startChild } from './child.ts';

export type AttackKind =
  /** Never sends a byte. */
  | 'silent'
  /** What it sends is no protocol's; the second kind comes back at once. */
  | 'garbage'
  | 'garbage again'
  /** Logs in, begins a frame and falls silent; the second kind does so with its first frame. */
  | 'half a frame'
  | 'half a first frame'
  | 'a byte a second'
  /** Logs in and begins frames of the largest size, none of which ends. */
  | 'endless frames'
  /** Beats and never reads an answer; the second kind as fast as it can. */
  | 'deaf'
  | 'deaf flood'
  /** Beats as fast as it can. */
  | 'flood'
  /** Connects and resets as fast as it can; the second kind once it is logged in. */
  | 'resets'
  | 'resets after login'
  /** Connects, and again at once when it was refused. */
  | 'storm'
  /** Logs in and stays: more than there are places for. */
  | 'crowd'
  /** Logs in; its process is then stopped, so that not even an end of the connection comes. */
  | 'vanished'
  /** Logs in under an id that others use as well, and again when it is thrown out. */
  | 'borrowed ids';

export type AttackRequest = {
  kind: AttackKind;
  host: string;
  port: number;
  peers: number;
  /** Peers connect from these, in turn. */
  addresses: readonly string[];
  ids: readonly string[];
  perSecond: number;
};

/** Of the round that was started last. */
export type AttackSeen = {
  /** Connections that stand. */
  live: number;
  tries: number;
  opened: number;
  ended: number;
  /** Connections on which bytes came back. */
  answered: number;
  /** The longest that a connection stood which ended. */
  mostMs: number;
};

export type Attacker = {
  start(request: AttackRequest): Promise<void>;
  seen(): Promise<AttackSeen>;
  /** Stops and wakes the process, not its sockets: the system goes on acknowledging for it. */
  freeze(): void;
  thaw(): void;
  /** Drops all connections; no new ones follow. */
  stop(): Promise<void>;
  end(): Promise<void>;
};

export function startAttacker(): Attacker {
  const child = startChild('./attacker-process.ts');
  return {
    start: (request) => child.ask('start', request),
    seen: () => child.ask('seen'),
    freeze: () => child.signal('SIGSTOP'),
    thaw: () => child.signal('SIGCONT'),
    stop: () => child.ask('stop'),
    end: () => child.end(),
  };
}
