/** A TLS port with certificates of its own, and devices that knock there. */
import { readFileSync } from 'node:fs';
import {
  type AddressInfo,
  connect as connectPlain,
  createServer,
  type Server,
  type Socket,
} from 'node:net';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { createTls, type Secured, type Tls, type TlsDeps } from '../../src/gateway/tls.ts';
import { createLog } from '../../src/log/log.ts';
import { eventually } from '../support/eventually.ts';

export const certFile = (name: string) => new URL(`./certs/${name}`, import.meta.url).pathname;
const pem = (name: string) => readFileSync(certFile(name));
export const identity = (name: string) => ({ cert: pem(`${name}.pem`), key: pem(`${name}.key`) });

/** BKV V1.7: a device's heartbeat. */
export const heartbeat = Buffer.from(
  'fcfe002e0000000000000182200520004869383938363034363331313230373033313934313763562e31723436001fcafcee',
  'hex',
);

export type LogLine = { level: string; msg: string; error?: { message: string } };

/** What `createTls` needs, with its log in an array. */
export function tlsDeps(given: Partial<TlsDeps> = {}): { deps: TlsDeps; lines: LogLine[] } {
  const lines: LogLine[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line) as LogLine) };
  const deps: TlsDeps = {
    certFile: certFile('server.pem'),
    keyFile: certFile('server.key'),
    caFile: certFile('ca.pem'),
    clientCert: 'none',
    subjectDeviceId: false,
    handshakeTimeoutMs: 5_000,
    log: createLog({ level: 'info', role: 'gateway', destination }),
    ...given,
  };
  return { deps, lines };
}

export type Failure = { reason: string; error: Error };

export type Client<S extends Socket> = { socket: S; heard: Buffer[]; isClosed(): boolean };

export type TlsRig = {
  tls: Tls;
  server: Server;
  lines: LogLine[];
  secured: Secured[];
  failures: Failure[];
  /** A device that shakes hands. */
  device(options?: ConnectionOptions): Client<TLSSocket>;
  /** A peer that may do anything; resolves when it is connected. */
  peer(): Promise<Client<Socket>>;
  /** Waits for so many secured sockets, and returns the last. */
  secures(count?: number): Promise<Secured>;
  fails(count?: number): Promise<Failure>;
  close(): Promise<void>;
};

/** `admit` decides when a raw socket is handed over; at once unless told. */
export async function startTlsRig(
  given: Partial<TlsDeps> = {},
  admit: (socket: Socket, secure: () => void) => void = (_socket, secure) => secure(),
): Promise<TlsRig> {
  const { deps, lines } = tlsDeps(given);
  const tls = createTls(deps);
  await tls.load();
  const secured: Secured[] = [];
  const failures: Failure[] = [];
  const clients: Socket[] = [];
  const server = createServer({ noDelay: true });
  server.on('connection', (socket) => {
    const secure = () =>
      tls.secure(socket, {
        done: (each) => void secured.push(each),
        failed: (reason, error) => void failures.push({ reason, error }),
      });
    admit(socket, secure);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;

  function client<S extends Socket>(socket: S): Client<S> {
    const heard: Buffer[] = [];
    let closed = false;
    clients.push(socket);
    socket.on('data', (chunk: Buffer) => void heard.push(chunk));
    socket.on('error', () => {});
    socket.on('close', () => {
      closed = true;
    });
    return { socket, heard, isClosed: () => closed };
  }

  const waitFor =
    <T>(what: string, list: T[]) =>
    (count = 1) =>
      eventually(() => {
        if (list.length >= count) return list.at(-1)!;
        const told = failures.map(({ error }) => error.message).join(', ');
        throw new Error(`${list.length} of ${count} ${what}; failures: ${told || 'none'}`);
      });

  return {
    tls,
    server,
    lines,
    secured,
    failures,
    device: (options = {}) =>
      client(
        connectTls({
          port,
          host: '127.0.0.1',
          servername: 'localhost',
          ca: pem('ca.pem'),
          ...options,
        }),
      ),
    async peer() {
      const peer = client(connectPlain({ port, host: '127.0.0.1', noDelay: true }));
      await new Promise<void>((resolve) => peer.socket.once('connect', () => resolve()));
      return peer;
    },
    secures: waitFor('secured', secured),
    fails: waitFor('failed', failures),
    async close() {
      for (const socket of clients) socket.destroy();
      for (const { socket } of secured) socket.destroy();
      tls.close();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
