/** Connections without a gateway around them: their socket, their time and their host are the test's. */

import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { Ticket } from '../../src/gateway/admission/ticket.ts';
import { Connection, type ConnectionHost } from '../../src/gateway/connection.ts';
import { createCork } from '../../src/gateway/cork.ts';
import { type CloseReason, type Counts, createCounts } from '../../src/gateway/counts.ts';
import { defaultOptions, type GatewayOptions } from '../../src/gateway/options.ts';
import { createLog } from '../../src/log/log.ts';
import { protocols } from '../../src/protocols/index.ts';
import type { Message, Protocol } from '../../src/protocols/protocol.ts';
import { createManualClock, type ManualClock } from './manual-clock.ts';

export type ConnectionRig = {
  host: ConnectionHost;
  clock: ManualClock;
  counts: Counts;
  heard: Message[];
  /** What the host was told, in order: `loggedIn`, `misbehaved`, `broke`, `closed idle`, `released`. */
  told: string[];
  /** Called for each message; may throw. */
  onMessage: (connection: Connection, message: Message) => void;
  open(socket: Socket, fixedDeviceId?: string): Connection;
};

export const noTicket: Ticket = {
  loggedIn() {},
  failed() {},
  strike() {},
  release() {},
};

const quiet = createLog({ level: 'silent', role: 'gateway' });

export function createConnectionRig(
  given: { options?: Partial<GatewayOptions>; protocols?: readonly Protocol[] } = {},
): ConnectionRig {
  const clock = createManualClock();
  const counts = createCounts(protocols.map(({ name }) => name));
  const heard: Message[] = [];
  const told: string[] = [];
  const host: ConnectionHost = {
    protocols: given.protocols ?? protocols,
    options: { ...defaultOptions, ...given.options },
    clock,
    wheel: clock.wheel,
    cork: createCork(),
    // Each turn at once: time is the test's.
    turns: { add: (target) => target.onTurn(), stop: () => undefined },
    counts,
    log: quiet,
    message(connection, message) {
      heard.push(message);
      rig.onMessage(connection, message);
    },
    checkSessions() {},
    loggedIn: () => void told.push('loggedIn'),
    misbehaved: () => void told.push('misbehaved'),
    broke: () => void told.push('broke'),
    closed(_connection, reason: CloseReason) {
      counts.closed[reason] += 1;
      told.push(`closed ${reason}`);
    },
    released: () => void told.push('released'),
  };
  const rig: ConnectionRig = {
    host,
    clock,
    counts,
    heard,
    told,
    onMessage: (connection) => connection.served(),
    open: (socket, fixedDeviceId) => new Connection(host, socket, noTicket, fixedDeviceId),
  };
  return rig;
}

/** A socket whose peer is the test: it sends by `arrives`, and takes what was written or does not. */
export class PeerSocket extends Duplex {
  bytesWritten = 0;
  taken: Buffer[] = [];
  #takes = true;
  #waiting: (() => void) | null = null;

  get socket(): Socket {
    return this as unknown as Socket;
  }

  arrives(bytes: Uint8Array): void {
    this.push(bytes);
  }

  stopTaking(): void {
    this.#takes = false;
  }

  /** Takes what is under way, and no more. */
  takeOne(): void {
    const taken = this.#waiting;
    this.#waiting = null;
    taken?.();
  }

  takeAll(): void {
    this.#takes = true;
    this.takeOne();
  }

  destroySoon(): void {
    this.end(() => this.destroy());
  }

  override write(chunk: Uint8Array): boolean {
    this.bytesWritten += chunk.length;
    return super.write(chunk);
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    const take = () => {
      this.taken.push(chunk);
      done();
    };
    if (this.#takes) take();
    else this.#waiting = take;
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#waiting = null;
    done(error);
  }
}

/** Lets what was put off to the end of this turn happen. */
export async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}
