import type { Socket } from 'node:net';
import type { SecureVersion } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import type { TlsDeps } from '../../src/gateway/tls.ts';
import { eventually } from '../support/eventually.ts';
import { type Client, heartbeat, identity, startTlsRig, type TlsRig } from './tls-rig.ts';

let rig: TlsRig;

afterEach(() => rig.close());

const versions: SecureVersion[] = ['TLSv1.2', 'TLSv1.3'];
const only = (version: SecureVersion) => ({ minVersion: version, maxVersion: version });
const bound = { clientCert: 'required', subjectDeviceId: true } satisfies Partial<TlsDeps>;
const reply = Buffer.from('fcfe00110000000000010182200520004869', 'hex');
/** The head of a ClientHello of 512 bytes, and nothing behind it. */
const helloHead = Buffer.from('1603010200010001fc0303', 'hex');

async function closes(client: Client<Socket>): Promise<void> {
  await eventually(() => expect(client.isClosed()).toBe(true));
}

const hears = (client: Client<Socket>, bytes: Uint8Array) =>
  eventually(() => expect(Buffer.concat(client.heard)).toEqual(Buffer.from(bytes)));

describe('handshake', () => {
  test.each(versions)(
    'a device speaks %s both ways through its secured socket',
    async (version) => {
      rig = await startTlsRig();
      const device = rig.device(only(version));
      device.socket.write(heartbeat);
      const { socket, deviceId } = await rig.secures();
      const received: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => void received.push(chunk));
      await eventually(() => expect(Buffer.concat(received)).toEqual(heartbeat));
      socket.write(reply);
      await hears(device, reply);
      expect(socket.getProtocol()).toBe(version);
      expect(socket.remotePort).toBe(device.socket.localPort);
      expect(deviceId).toBeNull();
      expect(rig.failures).toEqual([]);
    },
  );

  test('a device that knows only TLS 1.1 is refused', async () => {
    rig = await startTlsRig();
    const old = rig.device({ ...only('TLSv1.1'), ciphers: 'DEFAULT@SECLEVEL=0' });
    expect((await rig.fails()).error.message).toMatch(/unsupported protocol|wrong version/);
    expect(rig.failures[0]!.reason).toBe('tls-handshake');
    await closes(old);
  });

  test('a handshake that never begins ends at its bound', async () => {
    rig = await startTlsRig({ handshakeTimeoutMs: 150 });
    const silent = await rig.peer();
    await closes(silent);
    const { reason, error } = await rig.fails();
    expect(reason).toBe('tls-handshake');
    expect(error).toMatchObject({ code: 'ERR_TLS_HANDSHAKE_TIMEOUT' });
  });

  test('a handshake of one byte at a time is not given more time for it', async () => {
    rig = await startTlsRig({ handshakeTimeoutMs: 300 });
    const slow = await rig.peer();
    let sent = 0;
    const drip = setInterval(() => {
      slow.socket.write(Buffer.from([helloHead[sent] ?? 0]));
      sent += 1;
    }, 10);
    await closes(slow);
    clearInterval(drip);
    expect(sent).toBeLessThan(512);
    expect((await rig.fails()).error).toMatchObject({ code: 'ERR_TLS_HANDSHAKE_TIMEOUT' });
  });

  test('a device that speaks plainly is refused at once', async () => {
    rig = await startTlsRig();
    const plain = await rig.peer();
    plain.socket.write(heartbeat);
    await closes(plain);
    expect((await rig.fails()).reason).toBe('tls-handshake');
  });

  test('a peer that hangs up or resets in the middle fails once', async () => {
    rig = await startTlsRig();
    const polite = await rig.peer();
    polite.socket.end(helloHead);
    await rig.fails(1);
    const rude = await rig.peer();
    rude.socket.write(helloHead, () => rude.socket.resetAndDestroy());
    await rig.fails(2);
    await closes(polite);
    expect(rig.failures.map(({ reason }) => reason)).toEqual(['tls-handshake', 'tls-handshake']);
    expect(rig.secured).toEqual([]);
  });

  test('a socket that was gone before its handshake fails, and not within the call', async () => {
    let called = false;
    rig = await startTlsRig({}, (socket, secure) => {
      socket.destroy();
      secure();
      called = rig.failures.length === 0;
    });
    await rig.peer();
    expect((await rig.fails()).reason).toBe('tls-handshake');
    expect(called).toBe(true);
  });

  test('a peer that waited to be let in has its first bytes heard', async () => {
    let letIn: (() => void) | undefined;
    rig = await startTlsRig({}, (socket, secure) => {
      letIn = () => socket.readableLength > 0 && secure();
    });
    const device = rig.device();
    await eventually(() => {
      letIn?.();
      expect(device.socket.authorized).toBe(true);
    });
    await rig.secures();
  });

  test('handshakes under way are ended by close', async () => {
    rig = await startTlsRig();
    const silent = await rig.peer();
    await eventually(() => {
      rig.tls.close();
      expect(rig.failures).toHaveLength(1);
    });
    await closes(silent);
  });
});

describe('client certificates', () => {
  test.each(versions)(
    '%s: without one a device is refused where it is required',
    async (version) => {
      rig = await startTlsRig(bound);
      await closes(rig.device(only(version)));
      expect((await rig.fails()).reason).toBe('tls-client-cert');
      expect(rig.secured).toEqual([]);
    },
  );

  const modes = ['required', 'optional'] as const;
  const bad = ['client-foreign', 'client-expired', 'server'];
  test.each(
    modes.flatMap((clientCert) =>
      bad.flatMap((name) => versions.map((version) => ({ clientCert, name, version }))),
    ),
  )('$clientCert, $version: the certificate "$name" is refused', async (given) => {
    rig = await startTlsRig({ clientCert: given.clientCert, subjectDeviceId: true });
    await closes(rig.device({ ...only(given.version), ...identity(given.name) }));
    const { reason, error } = await rig.fails();
    expect(reason).toBe('tls-client-cert');
    expect(error).toMatchObject({ code: 'UNAUTHENTICATED' });
    expect(rig.secured).toEqual([]);
    expect(rig.failures).toHaveLength(1);
  });

  test('optional: without one a device comes in unbound, with one it is bound', async () => {
    rig = await startTlsRig({ clientCert: 'optional', subjectDeviceId: true });
    rig.device();
    expect((await rig.secures(1)).deviceId).toBeNull();
    rig.device(identity('client'));
    expect((await rig.secures(2)).deviceId).toBe('82200520004869');
  });

  test('a common name in capitals is the device id in small letters', async () => {
    rig = await startTlsRig(bound);
    rig.device(identity('client-capitals'));
    expect((await rig.secures()).deviceId).toBe('04ab373b');
  });

  test.each(['client-nameless', 'client-two-names'])('"%s" cannot be bound', async (name) => {
    rig = await startTlsRig(bound);
    await closes(rig.device(identity(name)));
    const { reason, error } = await rig.fails();
    expect(reason).toBe('tls-client-cert');
    expect(error.message).toContain('common name');
  });

  test('the subject says nothing unless it is to be the device id', async () => {
    rig = await startTlsRig({ clientCert: 'required' });
    rig.device(identity('client-nameless'));
    rig.device(identity('client'));
    await rig.secures(2);
    expect(rig.secured.map(({ deviceId }) => deviceId)).toEqual([null, null]);
  });

  test.each(versions)('%s: no session is resumed, so each handshake checks it', async (version) => {
    rig = await startTlsRig(bound);
    const first = rig.device({ ...only(version), ...identity('client') });
    let session: Buffer | undefined;
    first.socket.on('session', (given) => {
      session = given;
    });
    (await rig.secures(1)).socket.write('hello');
    await hears(first, Buffer.from('hello'));
    session ??= first.socket.getSession();
    expect(session).toBeDefined();
    const again = rig.device({ ...only(version), session: session! });
    await closes(again);
    expect((await rig.fails()).reason).toBe('tls-client-cert');
  });
});

describe('secured socket', () => {
  const MIB = 1024 * 1024;

  test('counts what a slow peer leaves unread, and delivers it when it reads on', async () => {
    rig = await startTlsRig();
    const device = rig.device();
    const { socket } = await rig.secures();
    device.socket.pause();
    for (let i = 0; i < 32; i += 1) socket.write(Buffer.alloc(MIB, i));
    await eventually(() => expect(socket.bytesWritten).toBeGreaterThan(0));
    expect(socket.writableLength).toBeGreaterThan(MIB);
    expect(socket.writableNeedDrain).toBe(true);
    device.socket.resume();
    await eventually(() => expect(socket.writableLength).toBe(0));
    await eventually(() =>
      expect(device.heard.reduce((sum, chunk) => sum + chunk.length, 0)).toBe(32 * MIB),
    );
  });

  test('what is corked together leaves as one record', async () => {
    rig = await startTlsRig();
    const device = rig.device();
    const { socket } = await rig.secures();
    socket.cork();
    for (const text of ['one', 'two', 'three']) socket.write(text);
    expect(socket.writableLength).toBe(11);
    socket.uncork();
    await eventually(() => expect(device.heard.map(String)).toEqual(['onetwothree']));
  });

  test('the last answers go out before destroySoon ends it', async () => {
    rig = await startTlsRig();
    const device = rig.device();
    const { socket } = await rig.secures();
    socket.write(Buffer.alloc(MIB, 7));
    socket.destroySoon();
    await closes(device);
    expect(Buffer.concat(device.heard)).toEqual(Buffer.alloc(MIB, 7));
    expect(socket.destroyed).toBe(true);
  });

  test('destroy drops it and its raw socket, whatever waits', async () => {
    rig = await startTlsRig();
    const device = rig.device();
    const { socket } = await rig.secures();
    device.socket.pause();
    for (let i = 0; i < 32; i += 1) socket.write(Buffer.alloc(MIB));
    socket.destroy();
    await eventually(async () => expect(await connectionsOf(rig)).toBe(0));
  });

  test('a peer that ends is heard as the end', async () => {
    rig = await startTlsRig();
    const device = rig.device();
    const { socket } = await rig.secures();
    const ended = new Promise((resolve) => socket.once('end', resolve));
    socket.resume();
    device.socket.end();
    await ended;
  });

  const faults: [string, string, (wire: Socket) => void][] = [
    ['resets', 'ECONNRESET', (wire) => wire.resetAndDestroy()],
    ['sends what is no record', 'ERR_SSL_', (wire) => wire.write(heartbeat)],
  ];
  test.each(faults)('a peer that %s is heard as an error, once, and closed', async (...given) => {
    const [, code, misbehave] = given;
    rig = await startTlsRig();
    const { socket: wire } = await rig.peer();
    const device = rig.device({ socket: wire });
    const { socket } = await rig.secures();
    await eventually(() => expect(device.socket.authorized).toBe(true));
    const errors: NodeJS.ErrnoException[] = [];
    socket.on('error', (error) => {
      errors.push(error);
      socket.destroy();
    });
    socket.resume();
    misbehave(wire);
    await eventually(async () => expect(await connectionsOf(rig)).toBe(0));
    expect(errors).toHaveLength(1);
    expect(errors[0]!.code).toContain(code);
  });

  test('a peer that wants to negotiate again is closed', async () => {
    rig = await startTlsRig();
    const device = rig.device(only('TLSv1.2'));
    const { socket } = await rig.secures();
    const errors: unknown[] = [];
    socket.on('error', (error) => {
      errors.push(error);
      socket.destroy();
    });
    socket.resume();
    device.socket.renegotiate({}, () => {});
    await closes(device);
    expect(errors).toMatchObject([{ code: 'ERR_TLS_RENEGOTIATION_DISABLED' }]);
  });

  test('takes the options of its raw socket', async () => {
    rig = await startTlsRig();
    rig.device();
    const { socket } = await rig.secures();
    expect(socket.setNoDelay(true).setKeepAlive(true, 60_000)).toBe(socket);
    expect(socket.remoteAddress).toBe('127.0.0.1');
  });
});

test('a thousand handshakes that are broken off leave nothing behind', async () => {
  rig = await startTlsRig({ handshakeTimeoutMs: 500 });
  const before = resources();
  const ways: ((socket: Socket) => void)[] = [
    (socket) => socket.resetAndDestroy(),
    (socket) => socket.end(helloHead),
    (socket) => socket.write(helloHead, () => socket.resetAndDestroy()),
    (socket) => socket.write(heartbeat),
    () => {},
  ];
  for (let done = 0; done < 1_000; done += 100) {
    const peers = await Promise.all(Array.from({ length: 100 }, () => rig.peer()));
    for (const [i, { socket }] of peers.entries()) ways[i % ways.length]!(socket);
    await rig.fails(done + 100);
    await Promise.all(peers.map(closes));
  }
  await eventually(async () => expect(await connectionsOf(rig)).toBe(0));
  expect(rig.failures).toHaveLength(1_000);
  expect(rig.secured).toEqual([]);
  await eventually(() => expect(resources()).toEqual(before));
});

function connectionsOf({ server }: TlsRig): Promise<number> {
  return new Promise((resolve, reject) => {
    server.getConnections((error, count) => (error ? reject(error) : resolve(count)));
  });
}

/** Sockets that this process holds. */
function resources(): string[] {
  return process.getActiveResourcesInfo().filter((name) => /TCP(Socket)?Wrap|TLSWrap/.test(name));
}
