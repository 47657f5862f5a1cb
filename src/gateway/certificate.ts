/** The PEM files of the TLS port: read, checked against one another, and refused with a sentence that says what to mend. */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { DownlinkError, messageOf } from '../errors.ts';

export type CertificateFiles = {
  certFile: string;
  keyFile: string;
  /** The authorities that sign client certificates; null when no client shows one. */
  caFile: string | null;
};

export type Certificate = {
  pem: Required<Pick<SecureContextOptions, 'cert' | 'key'>> & Pick<SecureContextOptions, 'ca'>;
  subject: string;
  /** Unix milliseconds. */
  notBefore: number;
  notAfter: number;
};

type FileSetting = 'tls.cert' | 'tls.key' | 'tls.ca';

const pemCertificate = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/** Reads the files; throws CONFIG_INVALID when no handshake could succeed with them. */
export async function readCertificate(files: CertificateFiles): Promise<Certificate> {
  const { certFile, keyFile, caFile } = files;
  const cert = await read('tls.cert', certFile);
  const key = await read('tls.key', keyFile);
  const ca = caFile === null ? undefined : await read('tls.ca', caFile);
  const [own] = certificatesOf('tls.cert', certFile, cert);
  if (!own.checkPrivateKey(privateKeyOf(keyFile, key))) {
    throw invalid('tls.key', keyFile, `does not belong to the certificate in ${certFile}`);
  }
  if (caFile !== null && ca !== undefined) certificatesOf('tls.ca', caFile, ca);
  const pem = { cert, key, ...(ca !== undefined && { ca }) };
  try {
    createSecureContext(pem);
  } catch (cause) {
    throw invalid('tls.cert', certFile, `cannot be used: ${messageOf(cause)}`, cause);
  }
  return {
    pem,
    subject: own.subject.replaceAll('\n', ', '),
    notBefore: own.validFromDate.getTime(),
    notAfter: own.validToDate.getTime(),
  };
}

async function read(setting: FileSetting, file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    const { code = 'unreadable' } = cause as NodeJS.ErrnoException;
    throw invalid(
      setting,
      file,
      `cannot be read (${code}); name a PEM file that the gateway may read`,
      cause,
    );
  }
}

function certificatesOf(
  setting: FileSetting,
  file: string,
  text: string,
): [X509Certificate, ...X509Certificate[]] {
  try {
    const [first, ...rest] = (text.match(pemCertificate) ?? []).map(
      (block) => new X509Certificate(block),
    );
    if (first) return [first, ...rest];
  } catch (cause) {
    throw invalid(setting, file, `holds a broken certificate: ${messageOf(cause)}`, cause);
  }
  throw invalid(setting, file, 'holds no certificate; it must begin with BEGIN CERTIFICATE');
}

function privateKeyOf(file: string, text: string): KeyObject {
  try {
    return createPrivateKey(text);
  } catch (cause) {
    const problem = `holds no private key that opens without a passphrase: ${messageOf(cause)}`;
    throw invalid('tls.key', file, problem, cause);
  }
}

function invalid(setting: FileSetting, file: string, problem: string, cause?: unknown) {
  return new DownlinkError('CONFIG_INVALID', `${setting}: ${file} ${problem}`, { cause });
}
