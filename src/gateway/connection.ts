/** One socket: recognises the protocol, cuts frames, writes frames, and holds its peer to the limits. */
import type { Socket } from 'node:net';
import type { Log } from '../log/log.ts';
import type {
  Decoded,
  Decoder,
  Fields,
  GarbageReason,
  Message,
  Protocol,
} from '../protocols/protocol.ts';
import type { Ticket } from './admission/ticket.ts';
import type { Clock } from './clock.ts';
import type { Cork } from './cork.ts';
import type { CloseReason, Counts, LoginFailure } from './counts.ts';
import type { GatewayOptions } from './options.ts';
import type { Session } from './session.ts';
import { Timer, type TimerTarget, type TimerWheel } from './timer-wheel.ts';
import type { Turns, TurnTarget } from './turns.ts';

/** Shared by all connections of a gateway. */
export type ConnectionHost = {
  readonly protocols: readonly Protocol[];
  readonly options: GatewayOptions;
  readonly clock: Clock;
  readonly wheel: TimerWheel;
  readonly cork: Cork;
  readonly turns: Turns;
  readonly counts: Counts;
  readonly log: Log;
  /** A sound message of a device. */
  message(connection: Connection, message: Message): void;
  /** Time to look whether sessions of this connection have gone silent. */
  checkSessions(connection: Connection): void;
  /** A session of it stands or is served for the first time. */
  loggedIn(connection: Connection): void;
  /** It closed for what its peer did, and never had a session that was served. */
  misbehaved(connection: Connection): void;
  /** Our own code threw while handling it; it is closed for that, and nothing else is touched. */
  broke(connection: Connection, error: unknown): void;
  /** It will neither read nor write again; called once, before its sessions are closed. */
  closed(connection: Connection, reason: CloseReason): void;
  /** The socket's descriptor is free again. */
  released(connection: Connection): void;
};

/** Lets the listeners below be shared by all sockets. */
const owner = Symbol('connection');
type OwnedSocket = Socket & { [owner]: Connection };

const noSessions: readonly Session[] = [];
const NEVER = Number.POSITIVE_INFINITY;
/** What is read before the budget is looked at again: a dozen frames at most. */
const SLICE_BYTES = 256;
/** A stall is found out this fraction of its timeout late at most. */
const STALL_LOOKS = 4;
/** Ends that are the peer's own doing when it never logged in. */
const misbehaviours: Partial<Record<CloseReason, LoginFailure>> = {
  'login-timeout': 'login-timeout',
  'no-frame': 'no-frame',
  garbage: 'garbage',
  'wrong-device': 'wrong-device',
};

export class Connection implements TimerTarget, TurnTarget {
  readonly #host: ConnectionHost;
  readonly #socket: OwnedSocket;
  readonly #timer = new Timer(this);
  /** Its place, to be given back by the host. */
  readonly ticket: Ticket;
  /** The only id it may speak for, as its certificate says; null: any. */
  readonly fixedDeviceId: string | null;
  /** Null until the first bytes have shown it. */
  protocol: Protocol | null = null;
  /** The device ids that speak on it: one, or many behind a host. */
  sessions: readonly Session[] = noSessions;
  /** What the modem said of itself in plain text. */
  modem: Fields | null = null;
  /** Reports of this connection that are being stored. */
  pendingReports = 0;
  /** Only while part of a frame is pending: an idle connection holds none. */
  #decoder: Decoder | null = null;
  /** Bytes from before the protocol was known. */
  #head: Uint8Array | null = null;
  /** Of the last chunk, what waits for its turn. */
  #rest: Uint8Array | null = null;
  /** Bytes that were put back into the socket and will come again. */
  #putBackBytes = 0;
  /** The peer has hung up, and the socket is gone: both wait for what it said before. */
  #ended = false;
  #gone = false;
  #closed = false;
  #corked = false;
  /** Anything at all that made sense; a modem's plain text does. */
  #sound = false;
  #loggedIn = false;
  readonly #openedAt: number;
  /** The last sound frame of a device. */
  #heardAt: number;
  #checkAt = NEVER;
  /** When the frame that is being waited for began. */
  #partialSince = NEVER;
  /** What was read is paid for by then, at the device's rate: the whole state of a leaky bucket. */
  #paidAt = 0;
  /** Since when nothing is read, for the peer sent too fast. */
  #pausedSince = NEVER;
  /** When the socket last took bytes, and how many it had taken; looked at only while some wait. */
  #stalledSince = NEVER;
  #takenBytes = 0;
  #garbageBytes = 0;
  #garbageSince = 0;

  constructor(
    host: ConnectionHost,
    socket: Socket,
    ticket: Ticket,
    fixedDeviceId: string | null = null,
  ) {
    this.#host = host;
    this.#socket = socket as OwnedSocket;
    this.ticket = ticket;
    this.fixedDeviceId = fixedDeviceId;
    this.#openedAt = host.clock.ticks();
    this.#heardAt = this.#openedAt;
    this.#socket[owner] = this;
    socket.on('data', onData);
    socket.on('end', onEnd);
    socket.on('error', onError);
    socket.on('close', onClose);
    this.#checkBy(this.#openedAt + host.options.loginTimeoutMs);
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** The peer's address, for the log. Costs a system call the first time. */
  get remote(): string {
    return `${this.#socket.remoteAddress ?? '?'}:${this.#socket.remotePort ?? 0}`;
  }

  /**
   * Hands the frame to the socket; false when it takes no more, and then nothing of it was written.
   * The name is the message's, for the count.
   */
  write(frame: Uint8Array, name = 'unknown'): boolean {
    const socket = this.#socket;
    if (this.#closed || !socket.writable) return false;
    const { options, cork, counts } = this.#host;
    if (socket.writableLength + frame.length > options.unsentBytes) {
      this.close('slow-reader');
      return false;
    }
    if (!this.#corked) {
      this.#corked = true;
      socket.cork();
      cork.add(this);
    }
    socket.write(frame);
    counts.bytesOut += frame.length;
    if (this.protocol) counts.message('out', this.protocol.name, name);
    return true;
  }

  uncork(): void {
    this.#corked = false;
    try {
      this.#socket.uncork();
      this.#watchWrites();
    } catch (error) {
      this.broke(error);
    }
  }

  /** A session of it stands, or is served without presence. */
  served(): void {
    if (this.#loggedIn || this.#closed) return;
    this.#loggedIn = true;
    this.#host.loggedIn(this);
  }

  /** Ends it for that reason; what its sessions had in flight is told so at once. */
  close(reason: CloseReason): void {
    if (this.#closed) return;
    this.#closed = true;
    const { wheel, counts } = this.#host;
    wheel.cancel(this.#timer);
    this.#decoder = null;
    this.#head = null;
    this.#rest = null;
    const failure = misbehaviours[reason];
    if (failure && (!this.#loggedIn || reason === 'wrong-device')) {
      counts.loginFailures[failure] += 1;
    }
    // A device that is not known is counted where it is denied.
    if (!this.#loggedIn && (failure || reason === 'not-known')) this.#host.misbehaved(this);
    this.#host.closed(this, reason);
    this.sessions = noSessions;
    // At a drain the last answers still go out; the gateway bounds how long that may take.
    if (reason === 'draining') this.#socket.destroySoon();
    else this.#socket.destroy();
  }

  /** Drops the socket without waiting for anything. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** Our own code threw on its behalf: it ends, the process does not. */
  broke(error: unknown): void {
    try {
      this.#host.broke(this, error);
      this.close('internal');
    } catch (another) {
      this.#host.log.error({ error: another }, 'broken connection not closed in order');
    } finally {
      this.#socket.destroy();
    }
  }

  /** Bytes came off the wire. */
  receive(chunk: Uint8Array): void {
    if (this.#closed) return;
    try {
      // What was put back comes again, and was counted.
      this.#host.counts.bytesIn += Math.max(0, chunk.length - this.#putBackBytes);
      this.#putBackBytes = Math.max(0, this.#putBackBytes - chunk.length);
      const bytes = this.protocol ? chunk : this.#recognise(chunk);
      if (bytes) this.#read(bytes);
    } catch (error) {
      this.broke(error);
    }
  }

  end(): void {
    // What it said before it hung up may be money.
    this.#ended = true;
    if (this.#rest) return;
    try {
      this.close('peer-closed');
    } catch (error) {
      this.broke(error);
    }
  }

  fail(error: NodeJS.ErrnoException): void {
    try {
      this.#host.log.debug({ error, remote: this.remote }, 'connection failed');
      this.close(error.syscall === 'write' ? 'write-error' : 'reset');
    } catch (ours) {
      this.broke(ours);
    }
  }

  release(): void {
    this.end();
    // Where its turn is still to come, that releases it.
    if (this.#rest) this.#gone = true;
    else this.#host.released(this);
  }

  onTimer(): void {
    try {
      this.#look();
    } catch (error) {
      this.broke(error);
    }
  }

  #look(): void {
    this.#checkAt = NEVER;
    const ticks = this.#host.clock.ticks();
    if (this.#isStalled(ticks)) {
      this.close('stalled');
      return;
    }
    if (ticks >= this.#resumeAt()) this.#resume(ticks);
    if (this.#decoder && ticks >= this.#partialDueAt())
      this.#take(this.#decoder, this.#decoder.giveUp());
    if (!this.#closed) this.#host.checkSessions(this);
    if (this.#closed) return;
    const dueAt = this.#aliveUntil();
    if (ticks >= dueAt) {
      this.close(this.sessions.length > 0 ? 'idle' : 'login-timeout');
      return;
    }
    this.#checkBy(
      Math.min(dueAt, this.#partialDueAt(), this.#resumeAt(), this.#stallLookAt(ticks)),
    );
  }

  /** What the system takes it takes within the call: what waits after it may wait for ever. */
  #watchWrites(): void {
    if (this.#closed || this.#stalledSince !== NEVER || this.#socket.writableLength === 0) return;
    this.#stalledSince = this.#host.clock.ticks();
    this.#takenBytes = this.#bytesTaken();
    this.#checkBy(this.#stallLookAt(this.#stalledSince));
  }

  /** Whether bytes wait and the socket has taken none for too long. */
  #isStalled(ticks: number): boolean {
    if (this.#stalledSince === NEVER) return false;
    if (this.#socket.writableLength === 0) {
      this.#stalledSince = NEVER;
      return false;
    }
    const taken = this.#bytesTaken();
    if (taken !== this.#takenBytes) {
      this.#takenBytes = taken;
      this.#stalledSince = ticks;
    }
    return ticks >= this.#stalledSince + this.#host.options.stallTimeoutMs;
  }

  #stallLookAt(ticks: number): number {
    if (this.#stalledSince === NEVER) return NEVER;
    const { stallTimeoutMs } = this.#host.options;
    return Math.min(this.#stalledSince + stallTimeoutMs, ticks + stallTimeoutMs / STALL_LOOKS);
  }

  #bytesTaken(): number {
    return this.#socket.bytesWritten - this.#socket.writableLength;
  }

  /** Cuts and hears the bytes as long as their device may be heard; the rest goes back to the socket. */
  /** A slice now; what is left waits for its turn, so that others are read in between. */
  #read(bytes: Uint8Array): void {
    const { protocol } = this;
    if (!protocol) return;
    // Behind its end nothing can be put back any more; what is left is a chunk at most.
    if (!this.#ended && this.#host.clock.ticks() < this.#solventAt()) {
      this.#pause(bytes);
      return;
    }
    const decoder = this.#decoder ?? protocol.decoder('up');
    this.#take(decoder, decoder.push(bytes.subarray(0, SLICE_BYTES)));
    if (this.#closed || bytes.length <= SLICE_BYTES) return;
    this.#rest = bytes.subarray(SLICE_BYTES);
    this.#socket.pause();
    this.#host.turns.add(this);
  }

  onTurn(): void {
    const rest = this.#rest;
    this.#rest = null;
    try {
      if (rest && !this.#closed) this.#read(rest);
      if (this.#rest) return;
      if (this.#ended) this.close('peer-closed');
      else if (!this.#closed && this.#pausedSince === NEVER) this.#socket.resume();
    } catch (error) {
      this.broke(error);
    }
    if (!this.#gone) return;
    this.#gone = false;
    this.#host.released(this);
  }

  /** When the debt is down to what may be sent at once. */
  #solventAt(): number {
    const { deviceRate, deviceBurst } = this.#host.options;
    return this.#paidAt - (deviceBurst * 1_000) / deviceRate;
  }

  /** A connection of many devices may send as much as they may together. */
  #charge(ticks: number): void {
    const devices = Math.max(1, this.sessions.length);
    this.#paidAt =
      Math.max(this.#paidAt, ticks) + 1_000 / (this.#host.options.deviceRate * devices);
  }

  /** Stops reading, so that the system's buffers and then the peer itself must wait. Nothing is lost. */
  #pause(rest: Uint8Array): void {
    const { counts, clock } = this.#host;
    counts.throttled += 1;
    this.#putBackBytes += rest.length;
    this.#pausedSince = clock.ticks();
    // In this order: a flowing socket would hand the bytes back at once.
    this.#socket.pause();
    this.#socket.unshift(rest);
    this.#checkBy(this.#resumeAt());
  }

  #resume(ticks: number): void {
    const pausedMs = ticks - this.#pausedSince;
    this.#pausedSince = NEVER;
    // Time in which nothing was read is not the peer's.
    this.#partialSince += pausedMs;
    this.#heardAt += pausedMs;
    this.#socket.resume();
  }

  #resumeAt(): number {
    return this.#pausedSince === NEVER ? NEVER : this.#solventAt();
  }

  #partialDueAt(): number {
    if (this.#pausedSince !== NEVER || this.#rest) return NEVER;
    return this.#partialSince + (this.protocol?.limits.partialFrameMs ?? 0);
  }

  #aliveUntil(): number {
    const { loginTimeoutMs } = this.#host.options;
    if (this.sessions.length > 0) {
      return this.#pausedSince === NEVER ? this.#heardAt + this.idleMs : NEVER;
    }
    // A modem introduces itself at once, its device only with the next heartbeat.
    return this.#openedAt + (this.#sound ? Math.max(loginTimeoutMs, this.idleMs) : loginTimeoutMs);
  }

  /** Silence that ends it. */
  get idleMs(): number {
    return (this.protocol?.limits.heartbeatMs ?? 0) * this.#host.options.idleFactor;
  }

  /** The timer is moved only when it has to ring earlier; otherwise it finds out when it rings. */
  #checkBy(ticks: number): void {
    if (ticks >= this.#checkAt) return;
    this.#checkAt = ticks;
    this.#host.wheel.schedule(this.#timer, ticks - this.#host.clock.ticks());
  }

  /** Finds the protocol in the first bytes; returns the bytes from its first frame on. */
  #recognise(chunk: Uint8Array): Uint8Array | null {
    const { protocols, options } = this.#host;
    const head = this.#head ? Buffer.concat([this.#head, chunk]) : chunk;
    this.#head = null;
    let at = 0;
    for (; at < head.length && at <= options.headBytes; at += 1) {
      const rest = head.subarray(at);
      let undecided = false;
      for (const protocol of protocols) {
        const sniff = protocol.sniff(rest);
        if (sniff === 'match') {
          this.protocol = protocol;
          this.#dropped(at, 'noise');
          return this.#closed ? null : rest;
        }
        undecided ||= sniff === 'more';
      }
      if (undecided) break;
    }
    if (head.length > options.headBytes) {
      this.#host.counts.garbageBytes.noise += head.length;
      this.close('no-frame');
      return null;
    }
    this.#dropped(at, 'noise');
    if (!this.#closed && at < head.length) this.#head = head.subarray(at);
    return null;
  }

  #take(decoder: Decoder, decoded: readonly Decoded[]): void {
    for (const item of decoded) {
      if (this.#closed) return;
      if (item.kind === 'garbage') this.#dropped(item.bytes.length, item.reason);
      else this.#hear(item.message);
    }
    if (this.#closed) return;
    if (decoder.pending === 0) {
      this.#decoder = null;
      this.#partialSince = NEVER;
      return;
    }
    this.#decoder = decoder;
    // Something was cut off in front of it, so what is pending began with this chunk.
    if (decoded.length > 0 || this.#partialSince === NEVER) {
      this.#partialSince = this.#host.clock.ticks();
      this.#checkBy(this.#partialDueAt());
    }
  }

  #hear(message: Message): void {
    const { counts, clock } = this.#host;
    const ticks = clock.ticks();
    this.#sound = true;
    this.#charge(ticks);
    counts.message('in', message.protocol, message.name);
    if (message.fault !== undefined) counts.faults += 1;
    if (message.deviceId === '') {
      // Its keep-alive says nothing worth keeping.
      if (Object.keys(message.fields).length > 0) this.modem = message.fields;
      return;
    }
    if (this.fixedDeviceId !== null && message.deviceId !== this.fixedDeviceId) {
      this.close('wrong-device');
      return;
    }
    this.#heardAt = ticks;
    this.#host.message(this, message);
    if (!this.#closed) this.#checkBy(this.#aliveUntil());
  }

  #dropped(bytes: number, reason: GarbageReason): void {
    if (bytes === 0) return;
    const { options, clock, counts, log } = this.#host;
    const ticks = clock.ticks();
    counts.garbageBytes[reason] += bytes;
    if (log.isLevelEnabled('debug')) log.debug({ remote: this.remote, bytes, reason }, 'garbage');
    if (this.#sound && ticks - this.#garbageSince > options.garbageWindowMs) {
      this.#garbageSince = ticks;
      this.#garbageBytes = 0;
    }
    this.#garbageBytes += bytes;
    if (!this.#sound && this.#garbageBytes > options.headBytes) this.close('no-frame');
    else if (this.#garbageBytes > options.garbageBytes) this.close('garbage');
  }
}

function onData(this: Socket, chunk: Uint8Array): void {
  (this as OwnedSocket)[owner].receive(chunk);
}

function onEnd(this: Socket): void {
  (this as OwnedSocket)[owner].end();
}

function onError(this: Socket, error: Error): void {
  (this as OwnedSocket)[owner].fail(error);
}

function onClose(this: Socket): void {
  (this as OwnedSocket)[owner].release();
}
