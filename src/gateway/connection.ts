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
import type { Clock } from './clock.ts';
import type { Cork } from './cork.ts';
import type { CloseReason, Counts } from './counts.ts';
import type { GatewayOptions } from './options.ts';
import type { Session } from './session.ts';
import { Timer, type TimerTarget, type TimerWheel } from './timer-wheel.ts';

/** Shared by all connections of a gateway. */
export type ConnectionHost = {
  readonly protocols: readonly Protocol[];
  readonly options: GatewayOptions;
  readonly clock: Clock;
  readonly wheel: TimerWheel;
  readonly cork: Cork;
  readonly counts: Counts;
  readonly log: Log;
  /** A sound message of a device. */
  message(connection: Connection, message: Message): void;
  /** Time to look whether sessions of this connection have gone silent. */
  checkSessions(connection: Connection): void;
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

export class Connection implements TimerTarget {
  readonly #host: ConnectionHost;
  readonly #socket: OwnedSocket;
  readonly #timer = new Timer(this);
  /** Null until the first bytes have shown it. */
  protocol: Protocol | null = null;
  /** The device ids that speak on it: one, or many behind a host. */
  sessions: readonly Session[] = noSessions;
  /** What the modem said of itself in plain text. */
  modem: Fields | null = null;
  /** Reports of this connection that are being stored. */
  pendingReports = 0;
  #decoder: Decoder | null = null;
  /** Bytes from before the protocol was known. */
  #head: Uint8Array | null = null;
  #closed = false;
  #corked = false;
  /** Anything at all that made sense; a modem's plain text does. */
  #sound = false;
  readonly #openedAt: number;
  /** The last sound frame of a device. */
  #heardAt: number;
  #checkAt = NEVER;
  /** When the frame that is being waited for began. */
  #partialSince = NEVER;
  #garbageBytes = 0;
  #garbageSince = 0;

  constructor(host: ConnectionHost, socket: Socket) {
    this.#host = host;
    this.#socket = socket as OwnedSocket;
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

  /** Hands the frame to the socket; false when it takes no more, and then nothing of it was written. */
  write(frame: Uint8Array): boolean {
    const socket = this.#socket;
    if (this.#closed || !socket.writable) return false;
    if (socket.writableLength + frame.length > this.#host.options.unsentBytes) {
      this.close('slow-reader');
      return false;
    }
    if (!this.#corked) {
      this.#corked = true;
      socket.cork();
      this.#host.cork.add(this);
    }
    socket.write(frame);
    if (this.protocol) this.#host.counts.framesOut[this.protocol.name]! += 1;
    return true;
  }

  uncork(): void {
    this.#corked = false;
    this.#socket.uncork();
  }

  /** Ends it for that reason; what its sessions had in flight is told so at once. */
  close(reason: CloseReason): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#host.wheel.cancel(this.#timer);
    this.#decoder = null;
    this.#head = null;
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

  /** Bytes came off the wire. */
  receive(chunk: Uint8Array): void {
    if (this.#closed) return;
    const bytes = this.#decoder ? chunk : this.#recognise(chunk);
    if (bytes && this.#decoder) this.#take(this.#decoder.push(bytes));
  }

  fail(error: NodeJS.ErrnoException): void {
    this.#host.log.debug({ error, remote: this.remote }, 'connection failed');
    this.close(error.syscall === 'write' ? 'write-error' : 'reset');
  }

  release(): void {
    this.close('peer-closed');
    this.#host.released(this);
  }

  onTimer(): void {
    this.#checkAt = NEVER;
    const ticks = this.#host.clock.ticks();
    if (this.#decoder && ticks >= this.#partialDueAt()) this.#take(this.#decoder.giveUp());
    if (!this.#closed) this.#host.checkSessions(this);
    if (this.#closed) return;
    const dueAt = this.#aliveUntil();
    if (ticks >= dueAt) {
      this.close(this.sessions.length > 0 ? 'idle' : 'login-timeout');
      return;
    }
    this.#checkBy(Math.min(dueAt, this.#partialDueAt()));
  }

  #partialDueAt(): number {
    return this.#partialSince + (this.protocol?.limits.partialFrameMs ?? 0);
  }

  #aliveUntil(): number {
    const { loginTimeoutMs } = this.#host.options;
    if (this.sessions.length > 0) return this.#heardAt + this.idleMs;
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
          this.#decoder = protocol.decoder('up');
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

  #take(decoded: readonly Decoded[]): void {
    for (const item of decoded) {
      if (this.#closed) return;
      if (item.kind === 'garbage') this.#dropped(item.bytes.length, item.reason);
      else this.#hear(item.message);
    }
    if (this.#closed || !this.#decoder) return;
    if (this.#decoder.pending === 0) {
      this.#partialSince = NEVER;
      return;
    }
    // Something was cut off in front of it, so what is pending began with this chunk.
    if (decoded.length > 0 || this.#partialSince === NEVER) {
      this.#partialSince = this.#host.clock.ticks();
      this.#checkBy(this.#partialDueAt());
    }
  }

  #hear(message: Message): void {
    const { counts, clock } = this.#host;
    this.#sound = true;
    counts.framesIn[message.protocol]! += 1;
    if (message.fault !== undefined) counts.faults += 1;
    if (message.deviceId === '') {
      // Its keep-alive says nothing worth keeping.
      if (Object.keys(message.fields).length > 0) this.modem = message.fields;
      return;
    }
    this.#heardAt = clock.ticks();
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
  (this as OwnedSocket)[owner].close('peer-closed');
}

function onError(this: Socket, error: Error): void {
  (this as OwnedSocket)[owner].fail(error);
}

function onClose(this: Socket): void {
  (this as OwnedSocket)[owner].release();
}
