/** One device id on one connection: its login, what it holds back until then, and its lane. */
import type { Denial, Login } from '../bridge/gateway-bridge.ts';
import type { Fields, Message, Protocol } from '../protocols/protocol.ts';
import type { Clock } from './clock.ts';
import type { CloseReason, Counts } from './counts.ts';
import { Lane, type LaneHost, type Outlet } from './lane.ts';
import type { GatewayOptions } from './options.ts';
import { Timer, type TimerTarget, type TimerWheel } from './timer-wheel.ts';

/** What its session may know of the connection that carries it; a type of its own, since a connection knows sessions. */
export type Carrier = {
  sessions: readonly Session[];
  readonly modem: Fields | null;
  pendingReports: number;
  readonly remote: string;
  close(reason: CloseReason): void;
  /** A session of it stands, or is served without presence. */
  served(): void;
  /** Our own code threw while handling one of its sessions. */
  broke(error: unknown): void;
  /** False when it takes no more, and then nothing was written. */
  write(frame: Uint8Array, name?: string): boolean;
};

/** Shared by all sessions of a gateway. */
export type SessionHost = {
  readonly options: GatewayOptions;
  readonly clock: Clock;
  readonly wheel: TimerWheel;
  readonly counts: Counts;
  readonly lanes: LaneHost;
  /** A message whose turn has come. */
  uplink(session: Session, message: Message): void;
  /** Its presence stands under its epoch. */
  stood(session: Session): void;
  /** Asks for its presence. Rejects when Redis is away and it may be served all the same. */
  logIn(session: Session): Promise<Login>;
  /** Whether it may be served while Redis cannot say so. */
  vouchesFor(session: Session): boolean;
  denied(session: Session, denial: Denial): void;
  /** Redis did not answer its login; it is tried again. */
  loginFailed(session: Session, error: unknown): void;
  /** The login of a session that was closed meanwhile was granted. */
  stoodTooLate(session: Session): void;
};

/**
 * logging-in: messages are held · standing: deliverable · unregistered: served, but Redis was away at
 * its login, so nobody can find it · denied: its messages are dropped for a while.
 */
export type SessionState = 'logging-in' | 'standing' | 'unregistered' | 'denied' | 'closed';

export class Session implements Outlet, TimerTarget {
  readonly #host: SessionHost;
  readonly connection: Carrier;
  readonly protocol: Protocol;
  readonly deviceId: string;
  state: SessionState = 'logging-in';
  /** 0 until it stands; no delivery carries 0. */
  epoch = 0;
  /** By the monotonic clock, as the next. */
  readonly openedAt: number;
  /** The last sound frame. */
  heardAt: number;
  /** Made by the first delivery. */
  lane: Lane | null = null;
  #held: Message[] | null = null;
  #timer: Timer | null = null;
  #asking = false;
  /** It stands, and the frames it left unanswered elsewhere are being loaded: its messages are held. */
  #recalling = false;
  #retryMs: number;
  #deniedUntil = 0;
  /** Names of heartbeats, each followed by when it was last reported: a handful at most. */
  #reported: (string | number)[] | null = null;

  constructor(host: SessionHost, connection: Carrier, protocol: Protocol, deviceId: string) {
    this.#host = host;
    this.connection = connection;
    this.protocol = protocol;
    this.deviceId = deviceId;
    this.openedAt = host.clock.ticks();
    this.heardAt = this.openedAt;
    this.#retryMs = host.options.loginRetryMs;
  }

  /** Asks for its presence. Messages are held until the answer. */
  logIn(): void {
    this.#asking = true;
    this.#arm(this.#host.options.slowLoginMs);
    this.#host
      .logIn(this)
      .then(
        (login) => this.#answered(login),
        (error) => this.#failed(error),
      )
      .catch((error) => this.connection.broke(error));
  }

  /** A sound message of its device. */
  receive(message: Message): void {
    this.heardAt = this.#host.clock.ticks();
    if (this.state === 'denied' && this.heardAt >= this.#deniedUntil) {
      this.state = 'logging-in';
      this.logIn();
    }
    if (this.state === 'logging-in' || this.#recalling) {
      this.#hold(message);
    } else if (this.state === 'standing' || this.state === 'unregistered') {
      this.#host.uplink(this, message);
    } else {
      this.#host.counts.droppedMessages += 1;
    }
  }

  write(frame: Uint8Array, name?: string): boolean {
    return this.connection.write(frame, name);
  }

  broke(error: unknown): void {
    this.connection.broke(error);
  }

  openLane(): Lane {
    this.lane ??= new Lane(this.#host.lanes, this);
    return this.lane;
  }

  /** Whether a heartbeat of that name is to be reported now; if so, not again for a while. */
  heartbeatReportDue(name: string): boolean {
    const ticks = this.#host.clock.ticks();
    this.#reported ??= [];
    const at = this.#reported.indexOf(name);
    if (at < 0) {
      this.#reported.push(name, ticks);
      return true;
    }
    if (ticks - (this.#reported[at + 1] as number) < this.#host.options.heartbeatReportMs) {
      return false;
    }
    this.#reported[at + 1] = ticks;
    return true;
  }

  /** It takes and gives nothing from now on. */
  end(): void {
    this.state = 'closed';
    this.#recalling = false;
    this.#held = null;
    this.#disarm();
  }

  onTimer(): void {
    try {
      if (this.#recalling) this.#recalled();
      else if (this.#asking) this.#serveUnregistered();
      else if (this.state === 'unregistered') this.logIn();
    } catch (error) {
      this.connection.broke(error);
    }
  }

  #answered(login: Login): void {
    this.#asking = false;
    this.#disarm();
    if (this.state === 'closed') {
      if (!login.granted) return;
      this.epoch = login.epoch;
      this.#host.stoodTooLate(this);
      return;
    }
    if (!login.granted) {
      this.state = 'denied';
      this.#held = null;
      this.#deniedUntil = this.#host.clock.ticks() + login.retryAfterMs;
      this.#host.denied(this, login);
      return;
    }
    this.state = 'standing';
    this.epoch = login.epoch;
    this.#retryMs = this.#host.options.loginRetryMs;
    this.#host.stood(this);
    if (!this.#isClosed()) this.connection.served();
    if (login.recalled && !this.#isClosed()) this.#recall(login.recalled);
    else this.#release();
  }

  /** Deliveries may come meanwhile; but what the device says first may be the answer to an older frame. */
  #recall(recalled: Promise<void>): void {
    this.#recalling = true;
    this.#arm(this.#host.options.slowLoginMs);
    const done = () => this.#recalled();
    recalled.then(done, done).catch((error) => this.connection.broke(error));
  }

  #recalled(): void {
    if (!this.#recalling) return;
    this.#recalling = false;
    this.#disarm();
    this.#release();
  }

  #failed(error: unknown): void {
    this.#asking = false;
    if (this.#isClosed()) return;
    this.#host.loginFailed(this, error);
    this.#serveUnregistered();
    // The closing is possible here: what was held is answered on a socket that may be full.
    if (this.#isClosed()) return;
    this.#arm(this.#retryMs / 2 + (Math.random() * this.#retryMs) / 2);
    this.#retryMs = Math.min(this.#retryMs * 2, this.#host.options.loginRetryMaxMs);
  }

  #isClosed(): boolean {
    return this.state === 'closed';
  }

  /** An outage of ours must not make devices drop their connections. */
  #serveUnregistered(): void {
    this.state = 'unregistered';
    if (this.#host.vouchesFor(this)) this.connection.served();
    this.#release();
  }

  #hold(message: Message): void {
    this.#held ??= [];
    if (this.#held.length < this.#host.options.heldMessages) this.#held.push(message);
    else this.#host.counts.droppedMessages += 1;
  }

  #release(): void {
    const held = this.#held;
    this.#held = null;
    if (!held) return;
    for (const message of held) {
      if (this.#isClosed()) return;
      this.#host.uplink(this, message);
    }
  }

  #arm(delayMs: number): void {
    this.#timer ??= new Timer(this);
    this.#host.wheel.schedule(this.#timer, delayMs);
  }

  #disarm(): void {
    if (this.#timer) this.#host.wheel.cancel(this.#timer);
    this.#timer = null;
  }
}
