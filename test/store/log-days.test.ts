import type { Pool } from 'pg';
import { describe, expect, it } from 'vitest';
import { createCommandLog } from '../../src/store/command-log.ts';
import type { LogRow } from '../../src/store/device-data.ts';
import { createLogDays } from '../../src/store/log-days.ts';
import { createRetention } from '../../src/store/retention.ts';
import { freshLedger } from './fixture.ts';

const dayMs = 86_400_000;
/** 2030-01-10 12:00 UTC: no partition is there yet. */
const noon = Date.UTC(2030, 0, 10, 12);

function row(at: number, entryId = String(at)): LogRow {
  return {
    entryId,
    at,
    deviceId: '82200520004869',
    direction: 'up',
    protocol: 'bkv',
    name: 'charge.end',
    weight: 'money',
    msgId: 0,
    commandId: null,
    fields: {},
    frame: '',
  };
}

async function placesOf(pool: Pool): Promise<Record<string, string>> {
  const { rows } = await pool.query<{ entry: string; place: string }>(
    'SELECT entry_id AS entry, tableoid::regclass::text AS place FROM command_log',
  );
  return Object.fromEntries(rows.map(({ entry, place }) => [entry, place]));
}

async function daysOf(pool: Pool): Promise<string[]> {
  const { rows } = await pool.query<{ day: string }>(
    `SELECT inhrelid::regclass::text AS day FROM pg_inherits
     WHERE inhparent = 'command_log'::regclass ORDER BY 1`,
  );
  return rows.map(({ day }) => day.replace('command_log_', ''));
}

describe('the days of the command log', () => {
  it('are there for now from the first migration on', async () => {
    const { pool, database } = await freshLedger();
    await createCommandLog({ database }).add([row(Date.now(), 'now'), row(5, 'long ago')]);
    const today = new Date().toISOString().slice(0, 10).replaceAll('-', '');
    expect(await placesOf(pool)).toMatchObject({ 'long ago': 'command_log_default' });
    expect(await daysOf(pool)).toContain(today);
    expect((await placesOf(pool))['now']).not.toBe('command_log_default');
  });

  it('are made for today, three days ahead and two back, once, whoever asks', async () => {
    const { pool, database } = await freshLedger();
    const days = createLogDays({ database });
    const made = await Promise.all([1, 2, 3].map(() => days.makeLogDays({ now: noon })));
    // Whoever finds another at it may leave the day to it.
    expect(made.reduce((sum, count) => sum + count, 0)).toBe(6);
    expect(await days.makeLogDays({ now: noon })).toBe(0);
    const wanted = ['08', '09', '10', '11', '12', '13'].map((day) => `203001${day}`);
    expect((await daysOf(pool)).filter((day) => day.startsWith('2030'))).toEqual(wanted);
  });

  it('take over what lay in the default partition, to the millisecond', async () => {
    const { pool, database } = await freshLedger();
    const log = createCommandLog({ database });
    const midnight = Date.UTC(2030, 0, 10);
    const rows = [
      row(midnight - 1, 'eve'),
      row(midnight, 'first'),
      row(midnight + dayMs - 1, 'last'),
      row(midnight + dayMs, 'next'),
    ];
    await log.add(rows);
    expect(new Set(Object.values(await placesOf(pool)))).toEqual(new Set(['command_log_default']));
    const days = createLogDays({ database });
    expect(await days.makeLogDays({ now: noon, daysBack: 0, daysAhead: 0 })).toBe(1);
    expect(await placesOf(pool)).toEqual({
      eve: 'command_log_default',
      first: 'command_log_20300110',
      last: 'command_log_20300110',
      next: 'command_log_default',
    });
    await log.add(rows);
    const query = { deviceId: rows[0]!.deviceId, from: midnight - dayMs, to: noon + dayMs };
    const { items } = await log.list({ ...query, limit: 10 });
    expect(items.map(({ entryId }) => entryId)).toEqual(['next', 'last', 'first', 'eve']);
  });

  it('are dropped whole once they are past, the oldest first; strays go row by row', async () => {
    const { pool, database } = await freshLedger();
    const retention = createRetention({ database });
    await retention.makeLogDays({ now: Date.UTC(2020, 0, 2), daysBack: 1, daysAhead: 0 });
    const secondOfMay = Date.UTC(2020, 0, 2);
    await createCommandLog({ database }).add([
      row(secondOfMay - 1, 'dropped'),
      row(secondOfMay, 'kept'),
      row(77, 'stray'),
    ]);
    expect(await retention.dropLogDay(secondOfMay - 1)).toBe(null);
    expect(await retention.dropLogDay(secondOfMay)).toBe('command_log_20200101');
    expect(await retention.dropLogDay(secondOfMay)).toBe(null);
    const query = { before: secondOfMay, now: 0, limit: 10 };
    expect(await retention.removeOld(query)).toMatchObject({ reports: 1 });
    expect(await placesOf(pool)).toEqual({ kept: 'command_log_20200102' });
  });

  it('let a reader finish: neither made nor dropped in front of it, and the database stays usable', async () => {
    const { pool, database } = await freshLedger();
    const days = createLogDays({ database });
    await days.makeLogDays({ now: Date.UTC(2020, 0, 1), daysBack: 0, daysAhead: 0 });
    const reader = await pool.connect();
    await reader.query('BEGIN');
    await reader.query('SELECT count(*) FROM command_log');
    expect(await days.dropLogDay(Date.UTC(2021, 0, 1))).toBe(null);
    expect(await days.makeLogDays({ now: noon, daysBack: 0, daysAhead: 0 })).toBe(0);
    await createCommandLog({ database }).add([row(noon, 'meanwhile')]);
    await reader.query('COMMIT');
    reader.release();
    expect(await days.dropLogDay(Date.UTC(2021, 0, 1))).toBe('command_log_20200101');
    expect(await days.makeLogDays({ now: noon, daysBack: 0, daysAhead: 0 })).toBe(1);
    expect(await placesOf(pool)).toEqual({ meanwhile: 'command_log_20300110' });
  });
});
