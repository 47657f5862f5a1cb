import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createTls, type TlsDeps } from '../../src/gateway/tls.ts';
import { eventually } from '../support/eventually.ts';
import { type Client, certFile, identity, startTlsRig, tlsDeps } from './tls-rig.ts';

let folder: string;
let files: { certFile: string; keyFile: string; caFile: string };

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downlink-tls-'));
  files = {
    certFile: join(folder, 'cert.pem'),
    keyFile: join(folder, 'key.pem'),
    caFile: join(folder, 'ca.pem'),
  };
  await use('server');
  await copyFile(certFile('ca.pem'), files.caFile);
});

afterEach(() => rm(folder, { recursive: true }));

async function use(name: string): Promise<void> {
  await copyFile(certFile(`${name}.pem`), files.certFile);
  await copyFile(certFile(`${name}.key`), files.keyFile);
}

/** The name of the certificate that the server showed. */
async function shown({ socket }: Client<TLSSocket>) {
  await eventually(() => expect(socket.authorized).toBe(true));
  return socket.getPeerCertificate().subject.CN;
}

type Case = { why: string; given: Partial<TlsDeps>; says: RegExp };
const cases: Case[] = [
  {
    why: 'a certificate that is not there',
    given: { certFile: '/nowhere/cert.pem' },
    says: /^tls\.cert: \/nowhere\/cert\.pem cannot be read \(ENOENT\); name a PEM file/,
  },
  {
    why: 'a key that is not there',
    given: { keyFile: '/nowhere/key.pem' },
    says: /^tls\.key: \/nowhere\/key\.pem cannot be read/,
  },
  {
    why: 'a key of another certificate',
    given: { keyFile: certFile('server2.key') },
    says: /^tls\.key: \S+server2\.key does not belong to the certificate in \S+$/,
  },
  {
    why: 'a key in place of the certificate',
    given: { certFile: certFile('server.key') },
    says: /^tls\.cert: \S+server\.key holds no certificate/,
  },
  {
    why: 'a certificate in place of the key',
    given: { keyFile: certFile('server.pem') },
    says: /^tls\.key: \S+server\.pem holds no private key/,
  },
  {
    why: 'client certificates without an authority',
    given: { clientCert: 'optional', caFile: undefined },
    says: /^tls\.ca is missing while tls\.client_cert is optional; name the PEM file/,
  },
  {
    why: 'an authority that is not there',
    given: { clientCert: 'required', caFile: '/nowhere/ca.pem' },
    says: /^tls\.ca: \/nowhere\/ca\.pem cannot be read/,
  },
  {
    why: 'an authority without a certificate',
    given: { clientCert: 'required', caFile: certFile('server.key') },
    says: /^tls\.ca: \S+ holds no certificate/,
  },
  {
    why: 'a device id of the subject without client certificates',
    given: { subjectDeviceId: true },
    says: /^tls\.subject_device_id .* set tls\.client_cert/,
  },
];

test.each(cases)('$why: the gateway does not start, and says what to change', async (each) => {
  const tls = createTls(tlsDeps({ ...files, ...each.given }).deps);
  const error = await tls.load().catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: 'CONFIG_INVALID' });
  expect((error as Error).message).toMatch(each.says);
  expect(tls.notAfter()).toBeNull();
});

test('a certificate that is cut off is refused with its file', async () => {
  await writeFile(files.certFile, '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n');
  const { deps } = tlsDeps(files);
  await expect(createTls(deps).load()).rejects.toThrow(/cert\.pem holds a broken certificate/);
});

test('what was loaded is logged, with the time it lasts', async () => {
  const { deps, lines } = tlsDeps(files);
  const tls = createTls(deps);
  await tls.load();
  expect(lines).toMatchObject([
    { level: 'info', subject: 'CN=server', notAfter: '2120-01-01T00:00:00.000Z' },
  ]);
  expect(tls.notAfter()).toBe(Date.UTC(2120, 0, 1));
});

test('an expired certificate is used all the same, with a warning', async () => {
  await use('expired');
  const { deps, lines } = tlsDeps(files);
  const tls = createTls(deps);
  await tls.load();
  expect(lines.at(-1)).toMatchObject({ level: 'warn', msg: 'certificate has expired' });
  expect(tls.notAfter()).toBe(Date.UTC(2021, 0, 1));
});

test('a reload gives new connections the new certificate, and the old ones go on', async () => {
  const rig = await startTlsRig(files);
  const early = rig.device();
  expect(await shown(early)).toBe('server');
  const { socket } = await rig.secures(1);
  await use('server2');
  expect(await rig.tls.reload()).toBe(true);
  expect(await shown(rig.device())).toBe('server2');
  socket.write('still here');
  await eventually(() => expect(Buffer.concat(early.heard).toString()).toBe('still here'));
  expect(early.isClosed()).toBe(false);
  await rig.close();
});

test('a handshake under way at a reload ends with the certificate it began with', async () => {
  let go: (() => void) | undefined;
  const rig = await startTlsRig(files, (_socket, secure) => {
    go = secure;
  });
  const device = rig.device();
  await eventually(() => expect(go).toBeDefined());
  go!();
  await use('server2');
  await rig.tls.reload();
  expect(await shown(device)).toBe('server');
  expect(rig.failures).toEqual([]);
  await rig.close();
});

test('a reload with a broken file keeps the old certificate and logs an error', async () => {
  const rig = await startTlsRig(files);
  const lasts = rig.tls.notAfter();
  await copyFile(certFile('expired.pem'), files.certFile);
  expect(await rig.tls.reload()).toBe(false);
  expect(rig.lines.at(-1)).toMatchObject({
    level: 'error',
    error: { code: 'CONFIG_INVALID' },
  });
  expect(rig.tls.notAfter()).toBe(lasts);
  expect(await shown(rig.device())).toBe('server');
  await use('server2');
  expect(await rig.tls.reload()).toBe(true);
  expect(await shown(rig.device())).toBe('server2');
  await rig.close();
});

test('a reload takes new authorities for client certificates', async () => {
  const rig = await startTlsRig({ ...files, clientCert: 'required' });
  rig.device(identity('client'));
  await rig.secures(1);
  await copyFile(certFile('foreign-ca.pem'), files.caFile);
  await rig.tls.reload();
  rig.device(identity('client'));
  expect((await rig.fails(1)).reason).toBe('tls-client-cert');
  rig.device(identity('client-foreign'));
  await rig.secures(2);
  await rig.close();
});

test('of two reloads at once the files as they are last win', async () => {
  const rig = await startTlsRig(files);
  await use('server2');
  const first = rig.tls.reload();
  await use('server');
  await Promise.all([first, rig.tls.reload()]);
  expect(await shown(rig.device())).toBe('server');
  await rig.close();
});
