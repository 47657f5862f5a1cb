/** The time of day that devices show and report: UTC+8. */

const deviceZoneMs = 8 * 3_600_000;
/** The latest moment that four digits of a year can say, Unix milliseconds. */
const latestMs = Date.UTC(9999, 0);
const stampPattern = /^(\d{4})-?(\d{2})-?(\d{2}) ?(\d{2}):?(\d{2}):?(\d{2})$/;

/** The moment in BCD, as a heartbeat's answer carries it: `20200730164545`. */
export function toDeviceTime(ms: number): string {
  const local = new Date(Math.min(Math.max(ms, 0), latestMs) + deviceZoneMs).toISOString();
  return local.replace(/\D/g, '').slice(0, 14);
}

/** The moment of a time in BCD or in words (`2020-06-08 14:21:07`), Unix milliseconds. */
export function fromDeviceTime(text: unknown): number | undefined {
  const parts = typeof text === 'string' ? stampPattern.exec(text) : null;
  if (parts === null) return undefined;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = parts
    .slice(1)
    .map(Number);
  return Date.UTC(year, month - 1, day, hour, minute, second) - deviceZoneMs;
}
