import { describe, expect, test } from 'vitest';
import { faultsOfTiming, nextTick, type Timing } from '../../queues/ticks.ts';

const at = Date.parse;
const cron = (expression: string, timeZone = 'UTC'): Timing => ({
  cron: expression,
  everyMs: null,
  timeZone,
});
const every = (everyMs: number): Timing => ({ cron: null, everyMs, timeZone: 'UTC' });
const iso = (ms: number | null) => (ms === null ? null : new Date(ms).toISOString());

describe('the next tick', () => {
  test.each([
    ['0 8 * * *', 'UTC', '2026-01-31T07:59:59.999Z', '2026-01-31T08:00:00.000Z'],
    ['0 8 * * *', 'UTC', '2026-01-31T08:00:00.000Z', '2026-02-01T08:00:00.000Z'],
    // One local hour, two moments: winter and summer.
    ['0 8 * * *', 'Europe/Berlin', '2026-01-31T00:00:00.000Z', '2026-01-31T07:00:00.000Z'],
    ['0 8 * * *', 'Europe/Berlin', '2026-07-31T00:00:00.000Z', '2026-07-31T06:00:00.000Z'],
    ['0 8 * * *', 'Asia/Shanghai', '2026-07-31T00:00:00.000Z', '2026-08-01T00:00:00.000Z'],
    // Skipped in spring: an hour later. Repeated in autumn: once.
    ['30 2 * * *', 'Europe/Berlin', '2026-03-28T02:00:00.000Z', '2026-03-29T01:30:00.000Z'],
    ['30 2 * * *', 'Europe/Berlin', '2026-03-29T01:30:00.000Z', '2026-03-30T00:30:00.000Z'],
    ['30 2 * * *', 'Europe/Berlin', '2026-10-25T00:30:00.000Z', '2026-10-26T01:30:00.000Z'],
    ['*/10 * * * * *', 'UTC', '2026-01-31T00:00:01.000Z', '2026-01-31T00:00:10.000Z'],
    ['0 0 29 2 *', 'UTC', '2026-01-31T00:00:00.000Z', '2028-02-29T00:00:00.000Z'],
    ['@daily', 'UTC', '2026-01-31T00:00:00.000Z', '2026-02-01T00:00:00.000Z'],
  ])('of %s in %s after %s is %s', (expression, zone, after, expected) => {
    expect(iso(nextTick(cron(expression, zone), at(after)))).toBe(expected);
  });

  test('of every 15 minutes is the next quarter of an hour, whenever one asks', () => {
    const quarter = every(900_000);
    expect(iso(nextTick(quarter, at('2026-01-31T08:00:00Z')))).toBe('2026-01-31T08:15:00.000Z');
    expect(iso(nextTick(quarter, at('2026-01-31T08:14:59.999Z')))).toBe('2026-01-31T08:15:00.000Z');
  });

  test.each(['Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe'])(
    'comes daily in %s through a whole year of changing clocks, none skipped and none twice',
    (zone) => {
      const daily = cron('0 8 * * *', zone);
      const ticks: number[] = [];
      for (let last = at('2026-01-01T00:00:00Z'); ticks.length < 365; last = ticks.at(-1)!) {
        ticks.push(nextTick(daily, last)!);
      }
      const local = new Intl.DateTimeFormat('sv', {
        timeZone: zone,
        dateStyle: 'short',
        timeStyle: 'short',
      });
      const days = ticks.map((tick) => local.format(tick));
      expect(new Set(days.map((day) => day.slice(0, 10))).size).toBe(365);
      expect(days.filter((day) => !day.endsWith('08:00'))).toEqual([]);
    },
  );
});

describe('a timing is refused with what to change', () => {
  const faults = (timing: Timing) => faultsOfTiming(timing, at('2026-01-31T00:00:00Z'));

  test.each([
    ['neither cron nor everyMs', { ...every(1), everyMs: null }, 'cron'],
    ['both', { ...every(60_000), cron: '0 8 * * *' }, 'cron'],
    ['a minute that there is not', cron('61 * * * *'), 'cron'],
    ['words', cron('every day at eight o clock'), 'cron'],
    ['too few fields', cron('* *'), 'cron'],
    ['too many fields', cron('* * * * * * *'), 'cron'],
    ['nothing', cron(''), 'cron'],
    ['a day that there is not', cron('0 0 30 2 *'), 'cron'],
    ['a minute drawn by lot', cron('H 8 * * *'), 'cron'],
    ['a very long one', cron(`${'1,'.repeat(200)}1 * * * *`), 'cron'],
    ['an unknown zone', cron('0 8 * * *', 'Mars/Olympus'), 'timeZone'],
    ['an offset for a zone', cron('0 8 * * *', '+02:00'), 'timeZone'],
  ])('%s', (_what, timing, path) => {
    const [fault, ...others] = faults(timing);
    expect(others).toEqual([]);
    expect(fault?.path).toBe(path);
    expect(fault?.message.length).toBeGreaterThan(10);
  });

  test('a sound one is not', () => {
    expect(faults(cron('0 8 * * THU', 'Asia/Kolkata'))).toEqual([]);
    expect(faults(every(1_000))).toEqual([]);
  });
});
