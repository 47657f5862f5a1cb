/**
 * Where peers come in: listens, asks the admission about each peer before it costs anything, lets TLS
 * shake hands with those that may enter, and hands the rest of the gateway sockets that hold a place.
 */
import type { Socket } from 'node:net';
import type { Log } from '../log/log.ts';
import type { Decoder, Protocol } from '../protocols/protocol.ts';
import { createAccept } from './accept.ts';
import type { Admission, Pending } from './admission/admission.ts';
import type { Ticket } from './admission/ticket.ts';
import type { Clock } from './clock.ts';
import type { Counts, Refused } from './counts.ts';
import type { Tls } from './tls.ts';

/** A peer that holds a place. */
export type Guest = {
  socket: Socket;
  ticket: Ticket;
  /** The only device id it may use, as its certificate says; null: any. */
  deviceId: string | null;
};

export type Door = {
  /** Listens; resolves with the addresses, with the ports that were chosen. */
  open(): Promise<{ tcp: string; tls?: string }>;
  isOpen(): boolean;
  /** Takes nobody in any more; who waits is refused. */
  close(): void;
};

export type DoorDeps = {
  addr: string;
  reusePort: boolean;
  /** A second port whose peers shake hands first. */
  tls?: { addr: string; tls: Tls };
  admission: Admission;
  protocols: readonly Protocol[];
  /** Bytes of a waiting peer that are looked at. */
  headBytes: number;
  /** Closes the connection that a device already has here; false when it has none of its own. */
  evictFor: (deviceId: string) => boolean;
  enter: (guest: Guest) => void;
  counts: Counts;
  clock: Clock;
  log: Log;
};

const badLine = new Set(['ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ERR_TLS_HANDSHAKE_TIMEOUT']);

export function createDoor(deps: DoorDeps): Door {
  const { addr, reusePort, tls, admission, counts, clock, log } = deps;
  const plain = createAccept({ addr, reusePort, onSocket: (s) => receive(s, letIn), clock, log });
  const secured =
    tls &&
    createAccept({ addr: tls.addr, reusePort, onSocket: (s) => receive(s, shake), clock, log });

  /** Nobody above could take what it throws. */
  function receive(socket: Socket, go: (socket: Socket, ticket: Ticket) => void): void {
    try {
      knock(socket, go);
    } catch (error) {
      log.error({ error }, 'a peer could not be received');
      socket.on('error', ignore);
      socket.destroy();
    }
  }

  function knock(socket: Socket, go: (socket: Socket, ticket: Ticket) => void): void {
    const address = socket.remoteAddress;
    // It has hung up before its turn came.
    if (address === undefined) {
      counts.refused.gone += 1;
      socket.destroy();
      return;
    }
    let settled = false;
    let waiting: Waiting | null = null;
    const pending: Pending = admission.enter(address, {
      admitted(ticket) {
        settled = true;
        waiting?.end();
        if (waiting) socket.removeListener('error', ignore);
        go(socket, ticket);
      },
      refused(reason) {
        settled = true;
        waiting?.end();
        refuse(socket, reason);
      },
      crashed: () => socket.destroy(),
    });
    if (settled) return;
    socket.on('error', ignore);
    waiting = new Waiting(deps, socket, pending, go === letIn);
  }

  function refuse(socket: Socket, reason: Refused): void {
    counts.refused[reason] += 1;
    // A reset leaves nothing behind on our side, no lingering state either.
    socket.on('error', ignore);
    socket.resetAndDestroy();
  }

  function letIn(socket: Socket, ticket: Ticket): void {
    deps.enter({ socket, ticket, deviceId: null });
  }

  function shake(socket: Socket, ticket: Ticket): void {
    tls?.tls.secure(socket, {
      done: ({ socket: securedSocket, deviceId }) => {
        deps.enter({ socket: securedSocket, ticket, deviceId });
      },
      failed(reason, error) {
        counts.refused[reason] += 1;
        log.debug({ reason, error }, 'peer refused');
        // A bad line is no bad peer: many good ones may share its address.
        if (!badLine.has((error as NodeJS.ErrnoException).code ?? '')) ticket.strike();
        ticket.release();
      },
    });
  }

  return {
    async open() {
      const tcp = await plain.listen();
      return secured ? { tcp, tls: await secured.listen() } : { tcp };
    },
    isOpen: () => plain.isListening() && (secured?.isListening() ?? true),
    close() {
      plain.stop();
      secured?.stop();
      tls?.tls.close();
      admission.drain();
    },
  };
}

/**
 * A peer in the waiting room. When its first frame names a device that still has a connection here,
 * a dead one most likely, that one goes and this one takes its place.
 */
class Waiting {
  readonly #deps: DoorDeps;
  readonly #socket: Socket;
  readonly #pending: Pending;
  #decoder: Decoder | null = null;
  #heard: Uint8Array[] = [];
  #heardBytes = 0;

  constructor(deps: DoorDeps, socket: Socket, pending: Pending, readable: boolean) {
    this.#deps = deps;
    this.#socket = socket;
    this.#pending = pending;
    socket.on('close', this.#gone);
    if (readable) socket.on('data', this.#listen);
  }

  /** Gives back what was read, so that the connection reads it again. */
  end(): void {
    const socket = this.#socket;
    socket.removeListener('close', this.#gone);
    socket.removeListener('data', this.#listen);
    if (this.#heardBytes === 0) return;
    socket.pause();
    socket.unshift(Buffer.concat(this.#heard));
    socket.resume();
  }

  #gone = (): void => this.#pending.cancel();

  #listen = (chunk: Uint8Array): void => {
    try {
      this.#look(chunk);
    } catch (error) {
      this.#deps.log.error({ error }, 'a waiting peer could not be heard');
      this.#pending.cancel();
      this.#socket.destroy();
    }
  };

  #look(chunk: Uint8Array): void {
    this.#heard.push(chunk);
    this.#heardBytes += chunk.length;
    const deviceId = this.#named(chunk);
    if (deviceId === undefined && this.#heardBytes < this.#deps.headBytes) return;
    this.#socket.removeListener('data', this.#listen);
    this.#socket.pause();
    if (deviceId === undefined) return;
    // The place comes back when the old socket is gone; it goes to whoever stands in front then.
    if (this.#deps.evictFor(deviceId)) this.#pending.first();
  }

  #named(chunk: Uint8Array): string | undefined {
    const { protocols } = this.#deps;
    let bytes = chunk;
    if (!this.#decoder) {
      bytes = this.#heard.length > 1 ? Buffer.concat(this.#heard) : chunk;
      this.#decoder =
        protocols.find((each) => each.sniff(bytes) === 'match')?.decoder('up') ?? null;
    }
    for (const item of this.#decoder?.push(bytes) ?? []) {
      if (item.kind === 'message' && item.message.deviceId !== '') return item.message.deviceId;
    }
    return undefined;
  }
}

function ignore(): void {}
