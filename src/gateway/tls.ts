/**
 * Turns accepted sockets into TLS sockets. A `tls.Server` that never listens does the handshakes: sockets are
 * handed to it by its documented `connection` event, so admission comes before any of it, and the verification
 * of client certificates stays in Node's own hands.
 */
import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import { createServer, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { DownlinkError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import { type Certificate, readCertificate } from './certificate.ts';

export type ClientCert = 'none' | 'optional' | 'required';
export type TlsFailure = 'tls-handshake' | 'tls-client-cert';

export type Secured = {
  socket: TLSSocket;
  /** The only device id that may speak on it; null when its certificate does not bind it to one. */
  deviceId: string | null;
};

export type TlsHandlers = {
  done(secured: Secured): void;
  /** The socket is destroyed, or about to be. */
  failed(reason: TlsFailure, error: Error): void;
};

export type Tls = {
  /** Reads the files; throws CONFIG_INVALID, naming the file and what to change. */
  load(): Promise<void>;
  /** Reads them again, for new connections; what cannot be used is logged and the old ones stay. */
  reload(): Promise<boolean>;
  /** Calls exactly one of both, within the handshake timeout. */
  secure(socket: Socket, handlers: TlsHandlers): void;
  /** When the certificate in use expires, in Unix milliseconds; null before it is loaded. */
  notAfter(): number | null;
  /** Ends the handshakes that are under way; they fail. */
  close(): void;
};

export type TlsDeps = {
  certFile: string;
  keyFile: string;
  caFile?: string | undefined;
  clientCert: ClientCert;
  /** The common name of a client certificate is the device id. */
  subjectDeviceId: boolean;
  handshakeTimeoutMs: number;
  log: Log;
};

/** Node keeps here what a TLS socket was made from; nothing documented leads from one to the other. */
type Wrapping = TLSSocket & { readonly _parent?: Socket | null };

/** The upper bound of X.520 for a common name. */
const MAX_COMMON_NAME = 64;
const NO_CERTIFICATE_SHOWN = 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE';

export function createTls(deps: TlsDeps): Tls {
  const { clientCert, subjectDeviceId, handshakeTimeoutMs, log } = deps;
  const policy: SecureContextOptions = {
    minVersion: 'TLSv1.2',
    // A ticket would outlive what it was given for: a certificate is checked at every handshake.
    ...(clientCert !== 'none' && { secureOptions: constants.SSL_OP_NO_TICKET }),
  };
  const pending = new Map<Socket, TlsHandlers>();
  let current: Certificate | null = null;
  let reloading: Promise<unknown> = Promise.resolve();

  const server = createServer({
    ...policy,
    requestCert: clientCert !== 'none',
    rejectUnauthorized: clientCert === 'required',
    handshakeTimeout: handshakeTimeoutMs,
  });
  server.on('secureConnection', (socket) => {
    const handlers = take(socket);
    if (!handlers) {
      socket.destroy();
      return;
    }
    const refused = refusal(socket);
    if (refused) {
      socket.destroy();
      handlers.failed('tls-client-cert', refused);
      return;
    }
    socket.disableRenegotiation();
    handlers.done({ socket, deviceId: subjectDeviceId ? commonName(socket) : null });
  });
  server.on('tlsClientError', (error, socket) => {
    const handlers = take(socket);
    // Node destroys it in most cases; after a timeout it leaves that to us.
    socket.destroy();
    if (!handlers) return;
    // Typed as an error, but it is the code, and absent unless a certificate was found wanting.
    const fault: unknown = socket.authorizationError;
    if (fault) handlers.failed('tls-client-cert', notAccepted(String(fault), error));
    else if ((error as NodeJS.ErrnoException).code === NO_CERTIFICATE_SHOWN)
      handlers.failed('tls-client-cert', error);
    else handlers.failed('tls-handshake', error);
  });

  function take(socket: Wrapping): TlsHandlers | undefined {
    const raw = socket._parent;
    if (!raw) return undefined;
    const handlers = pending.get(raw);
    pending.delete(raw);
    return handlers;
  }

  /** Why the peer may not come in; null when it may. */
  function refusal(socket: TLSSocket): DownlinkError | null {
    if (clientCert === 'none') return null;
    if (!socket.getPeerX509Certificate()) {
      return clientCert === 'optional' ? null : notAccepted('none was shown');
    }
    if (!socket.authorized) return notAccepted(String(socket.authorizationError));
    if (subjectDeviceId && commonName(socket) === null) {
      return notAccepted('its subject has not one common name to be the device id');
    }
    return null;
  }

  async function readFiles(): Promise<Certificate> {
    const { certFile, keyFile } = deps;
    if (subjectDeviceId && clientCert === 'none') {
      throw new DownlinkError(
        'CONFIG_INVALID',
        'tls.subject_device_id has no certificate to read; set tls.client_cert to required, or to optional',
      );
    }
    if (clientCert === 'none') return readCertificate({ certFile, keyFile, caFile: null });
    if (deps.caFile) return readCertificate({ certFile, keyFile, caFile: deps.caFile });
    // Without it everybody with a certificate of some public authority would be let in.
    throw new DownlinkError(
      'CONFIG_INVALID',
      `tls.ca is missing while tls.client_cert is ${clientCert}; name the PEM file of the authorities that sign the devices' certificates`,
    );
  }

  async function load(): Promise<void> {
    const certificate = await readFiles();
    server.setSecureContext({ ...policy, ...certificate.pem });
    current = certificate;
    const { subject, notBefore, notAfter } = certificate;
    const fields = { subject, notAfter: new Date(notAfter).toISOString() };
    log.info(fields, 'certificate loaded');
    const now = Date.now();
    if (notAfter < now) log.warn(fields, 'certificate has expired');
    if (notBefore > now) log.warn(fields, 'certificate is not valid yet');
  }

  async function reload(): Promise<boolean> {
    try {
      await load();
      return true;
    } catch (error) {
      log.error({ error }, 'certificate not reloaded, the old one stays');
      return false;
    }
  }

  return {
    load,
    reload() {
      // One after the other: the files as they are last must win.
      const reloaded = reloading.then(reload);
      reloading = reloaded;
      return reloaded;
    },
    secure(socket, handlers) {
      if (socket.destroyed) {
        const error = new DownlinkError('TIMEOUT', 'the peer left before its handshake');
        process.nextTick(() => handlers.failed('tls-handshake', error));
        return;
      }
      pending.set(socket, handlers);
      server.emit('connection', socket);
    },
    notAfter: () => current?.notAfter ?? null,
    close() {
      for (const socket of pending.keys()) socket.destroy();
    },
  };
}

/** The one common name of the peer's certificate, lower-cased; null when there is none, or more than one. */
function commonName(socket: TLSSocket): string | null {
  const name = socket.getPeerX509Certificate()?.toLegacyObject().subject?.CN;
  if (typeof name !== 'string' || name === '' || name.length > MAX_COMMON_NAME) return null;
  return name.toLowerCase();
}

function notAccepted(why: string, cause?: unknown): DownlinkError {
  return new DownlinkError('UNAUTHENTICATED', `the client certificate is not accepted: ${why}`, {
    cause,
  });
}
