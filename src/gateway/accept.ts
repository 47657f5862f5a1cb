/** The listening socket. What is to be decided about a peer before it costs anything belongs here. */
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
  onSocket: (socket: Socket) => void;
  clock: Clock;
  log: Log;
};

/** All devices of a gateway that restarted knock at once; the system bounds it further. */
const BACKLOG = 4096;
/** A modem that lost its power says nothing; the system finds out when the heartbeats do not. */
const KEEP_ALIVE_MS = 60_000;

export function createAccept({ addr, onSocket, clock, log }: AcceptDeps): Accept {
  const { host = ALL_INTERFACES, port } = parseAddr(addr);
  const onFailure = createThrottle(clock);
  const server = createServer({
    noDelay: true,
    keepAlive: true,
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
        server.listen({ host, port, backlog: BACKLOG }, () => {
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
