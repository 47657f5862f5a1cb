/** The physical id: little endian on the wire, most significant byte first in text. */

const pattern = /^[0-9a-f]{8}$/i;

/** Numbers that a device falls back to when its memory chip fails (AP3000 device protocol V8.6). */
const fallbackNumbers: ReadonlySet<number> = new Set([10_011_001, 12_000_000, 13_000_001]);

/** The canonical id, or null when the text is no AP3000 id. */
export function parseDeviceId(text: string): string | null {
  return pattern.test(text) ? text.toLowerCase() : null;
}

/** The id whose four wire bytes start at `at`. */
export function readDeviceId(bytes: Buffer, at: number): string {
  return bytes.readUInt32LE(at).toString(16).padStart(8, '0');
}

/** The four wire bytes of a canonical id. */
export function deviceIdBytes(deviceId: string): Uint8Array {
  return Buffer.from(deviceId, 'hex').reverse();
}

/** True when the printed number (low three bytes) is a fallback; the kind byte above it may be any. */
export function isFactoryDefault(deviceId: string): boolean {
  return fallbackNumbers.has(Number.parseInt(deviceId, 16) & 0xff_ffff);
}
