/** A listening socket. Who may come in is decided by the admission, what is said by the connection. */
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { ALL_INTERFACES, formatAddr, parseAddr } from '../config/addr.ts';
import { DownlinkError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Clock } from './clock.ts';
import { createThrottle } from './throttle.ts';

export type Accept = {
  /** Listens and returns the address, with the port that was chosen. */
  listen(): Promise<string>;
  isListening(): boolean;
  /** Takes no new connections; those that stand are not touched. */
  stop(): void;
};

export type AcceptDeps = {
  /** `host:port`, `[v6]:port` or `:port`; port 0 is chosen by the system. */
  addr: string;
  /** Several processes listen on the port, and the system spreads the connections over them. */
  reusePort?: boolean;
  onSocket: (socket: Socket) => void;
  clock: Clock;
  log: Log;
};

/** All devices of a gateway that restarted knock at once; the system bounds it further. */
const BACKLOG = 4096;
/** What the system hands over of a peer that is not being read: several times the largest frame. */
const READ_AHEAD_BYTES = 16 * 1024;
/** A modem that lost its power says nothing; the system finds out when the heartbeats do not. */
const KEEP_ALIVE_MS = 60_000;

export function createAccept(deps: AcceptDeps): Accept {
  const { addr, reusePort = false, onSocket, clock, log } = deps;
  const { host = ALL_INTERFACES, port } = parseAddr(addr);
  const onFailure = createThrottle(clock);
  const server = createServer({
    noDelay: true,
    keepAlive: true,
    highWaterMark: READ_AHEAD_BYTES,
    keepAliveInitialDelay: KEEP_ALIVE_MS,
  });
  server.on('connection', onSocket);

  return {
    listen() {
      return new Promise((resolve, reject) => {
        const refuse = (cause: Error) => {
          reject(
            new DownlinkError('CONFIG_INVALID', `the gateway cannot listen on ${addr}`, { cause }),
          );
        };
        server.once('error', refuse);
        server.listen({ host, port, backlog: BACKLOG, reusePort }, () => {
          server.off('error', refuse);
          // One failed accept, for want of descriptors say, must not end the process.
          server.on('error', (error) => {
            onFailure((times) => log.error({ error, times }, 'accept failed'));
          });
          resolve(formatAddr(server.address() as AddressInfo));
        });
      });
    },
    isListening: () => server.listening,
    stop() {
      if (server.listening) server.close();
    },
  };
}
