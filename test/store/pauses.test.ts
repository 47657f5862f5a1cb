import { describe, expect, it } from 'vitest';
import { createPauses } from '../../src/store/pauses.ts';
import { freshLedger } from './fixture.ts';

async function freshPauses() {
  const { database } = await freshLedger();
  return createPauses({ database });
}

const pauseOf = (deviceId: string, pausedAt = 1_700_000_000_000) => ({
  deviceId,
  pausedAt,
  by: 'operator',
  reason: 'the meter is being changed',
});

describe('a pause of a device', () => {
  it('stands as it was first said, until it is resumed', async () => {
    const pauses = await freshPauses();
    expect(await pauses.pause(pauseOf('a'))).toBe(true);
    expect(await pauses.pause({ ...pauseOf('a', 5), by: 'another', reason: null })).toBe(false);
    expect(await pauses.find('a')).toEqual(pauseOf('a'));
    expect(await pauses.resume('a')).toBe(true);
    expect(await pauses.resume('a')).toBe(false);
    expect(await pauses.find('a')).toBeNull();
  });

  it('is made once when many ask at the same moment', async () => {
    const pauses = await freshPauses();
    const made = await Promise.all([1, 2, 3, 4].map((at) => pauses.pause(pauseOf('a', at))));
    expect(made.filter(Boolean)).toHaveLength(1);
  });

  it('is listed by device, page by page', async () => {
    const pauses = await freshPauses();
    for (const id of ['c', 'a', 'e', 'b', 'd']) await pauses.pause(pauseOf(id));
    await pauses.pause({ ...pauseOf('f'), reason: null });
    const first = await pauses.list({ afterId: null, limit: 4 });
    expect(first).toEqual(['a', 'b', 'c', 'd'].map((id) => pauseOf(id)));
    const rest = await pauses.list({ afterId: 'd', limit: 4 });
    expect(rest).toEqual([pauseOf('e'), { ...pauseOf('f'), reason: null }]);
  });

  it('of text that no row can have is refused', async () => {
    const pauses = await freshPauses();
    const pause = pauses.pause({ ...pauseOf('a'), reason: 'a\0b' });
    await expect(pause).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  });
});
