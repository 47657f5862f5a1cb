import { describe, expect, it } from 'vitest';
import { createSchedules } from '../../src/store/schedules.ts';
import { freshLedger } from './fixture.ts';

async function freshSchedules() {
  const { database } = await freshLedger();
  return createSchedules({ database });
}

const nightly = {
  key: 'nightly',
  cron: '0 3 * * *',
  everyMs: null,
  timeZone: 'Asia/Shanghai',
  body: { deviceId: '82200520004869', command: 'port.query', params: { socket: 1 } },
  apiKey: 'operator',
  updatedAt: 1_000,
};
const untouched = { lastTickAt: null, lastCommandId: null, lastError: null };

describe('a schedule', () => {
  it('is new once, and replaced from then on', async () => {
    const schedules = await freshSchedules();
    expect(await schedules.put(nightly)).toBe(true);
    expect(await schedules.find('nightly')).toEqual({
      ...nightly,
      createdAt: 1_000,
      ...untouched,
    });
    await schedules.ticked('nightly', { at: 2_000, commandId: 'c1', error: null });
    const hourly = { ...nightly, cron: null, everyMs: 3_600_000, updatedAt: 5_000 };
    expect(await schedules.put(hourly)).toBe(false);
    expect(await schedules.find('nightly')).toEqual({
      ...hourly,
      createdAt: 1_000,
      lastTickAt: 2_000,
      lastCommandId: 'c1',
      lastError: null,
    });
  });

  it('is gone when it is removed', async () => {
    const schedules = await freshSchedules();
    await schedules.put(nightly);
    expect(await schedules.remove('nightly')).toBe(true);
    expect(await schedules.remove('nightly')).toBe(false);
    expect(await schedules.find('nightly')).toBeNull();
    await schedules.ticked('nightly', { at: 2_000, commandId: 'c1', error: null });
    expect(await schedules.find('nightly')).toBeNull();
  });

  it('tells of its last tick, however late an older one reports', async () => {
    const schedules = await freshSchedules();
    await schedules.put(nightly);
    await schedules.ticked('nightly', { at: 3_000, commandId: null, error: 'no\0 device' });
    await schedules.ticked('nightly', { at: 2_000, commandId: 'c1', error: null });
    expect(await schedules.find('nightly')).toMatchObject({
      lastTickAt: 3_000,
      lastCommandId: null,
      lastError: 'no device',
    });
    await schedules.ticked('nightly', { at: 3_000, commandId: 'c2', error: null });
    expect(await schedules.find('nightly')).toMatchObject({ lastCommandId: 'c2', lastError: null });
  });

  it('is listed by its key, page by page', async () => {
    const schedules = await freshSchedules();
    const keys = ['e', 'b', 'd', 'a', 'c'];
    for (const key of keys) await schedules.put({ ...nightly, key });
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const page = await schedules.list({ limit: 2, ...(cursor ? { cursor } : {}) });
      seen.push(...page.items.map(({ key }) => key));
      cursor = page.nextCursor;
    } while (cursor !== null);
    expect(seen).toEqual(['a', 'b', 'c', 'd', 'e']);
    await expect(schedules.list({ limit: 0 })).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    const stray = schedules.list({ limit: 1, cursor: 'x' });
    await expect(stray).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  });

  it('has either a cron expression or an interval', async () => {
    const schedules = await freshSchedules();
    const both = schedules.put({ ...nightly, everyMs: 1_000 });
    await expect(both).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    const neither = schedules.put({ ...nightly, cron: null });
    await expect(neither).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  });
});
