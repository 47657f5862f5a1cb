/** When the ticks of a schedule fall. Cron is read as BullMQ reads it, so that both always mean the same moment. */
import { getNextMillis } from 'bullmq';
import { messageOf } from '../src/errors.ts';
import type { Fault } from './faults.ts';

/** One of `cron` and `everyMs`; the zone concerns cron alone. */
export type Timing = { cron: string | null; everyMs: number | null; timeZone: string };

export const MIN_EVERY_MS = 1_000;
export const MAX_EVERY_MS = 366 * 86_400_000;
export const MAX_CRON_LENGTH = 128;

const HOUR_MS = 3_600_000;
/** Within a day of a change of the clocks by half an hour the library finds no next tick. */
const LEAP_HOURS = 32;
const MIN_CRON_FIELDS = 5;
/** A minute "H" would be another one at every reading. */
const hashedField = /(?<![a-z])H(?![a-z])/i;
const nickname = /^@[a-z]+$/;

/**
 * The first tick after a moment, Unix milliseconds; null when there is none. `everyMs` ticks at its multiples
 * since 1970, so that a schedule keeps its beat whatever happens to the queue store.
 */
export function nextTick({ cron, everyMs, timeZone }: Timing, after: number): number | null {
  if (everyMs !== null) return (Math.floor(after / everyMs) + 1) * everyMs;
  if (cron === null) return null;
  const from = (hours: number) =>
    getNextMillis(after + hours * HOUR_MS, { pattern: cron, tz: timeZone }) ?? null;
  return from(0) ?? leap(from);
}

/** The first hour from which there is a next tick: each look costs the library half a second when there is none. */
function leap(from: (hours: number) => number | null): number | null {
  let found = from(LEAP_HOURS);
  let step = LEAP_HOURS;
  for (let none = 0; found !== null && step > 1; ) {
    step /= 2;
    const nearer = from(none + step);
    if (nearer === null) none += step;
    else found = nearer;
  }
  return found;
}

/** What is wrong with a timing, by field; empty when nothing is. */
export function faultsOfTiming(timing: Timing, now: number): Fault[] {
  const { cron, everyMs, timeZone } = timing;
  if ((cron === null) === (everyMs === null)) {
    const message = 'is to be given, or everyMs in its place: one of the two';
    return [{ path: 'cron', message }];
  }
  if (!isTimeZone(timeZone)) {
    return [{ path: 'timeZone', message: 'must be an IANA name such as Europe/Berlin or UTC' }];
  }
  if (cron === null) return [];
  const fault = faultOfCron(cron) ?? faultOfTicks(timing, now);
  return fault === null ? [] : [{ path: 'cron', message: fault }];
}

function isTimeZone(name: string): boolean {
  // Offsets such as +02:00 are zones for Intl, but know no summer.
  if (!/^[a-z]/i.test(name)) return false;
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

function faultOfCron(cron: string): string | null {
  if (cron.length > MAX_CRON_LENGTH) return `must have at most ${MAX_CRON_LENGTH} characters`;
  const fields = cron.trim().split(/\s+/);
  if (fields.length < MIN_CRON_FIELDS && !nickname.test(cron)) {
    return 'must have five fields, minute hour day month weekday, or six with the second first';
  }
  return fields.some((field) => hashedField.test(field))
    ? 'must not use H: name the minute or the hour'
    : null;
}

function faultOfTicks(timing: Timing, now: number): string | null {
  try {
    return nextTick(timing, now) === null ? 'never comes due' : null;
  } catch (error) {
    return `is no cron expression: ${messageOf(error)}`;
  }
}
