import { describe, expect, it } from 'vitest';
import { createSeenFilter, type Seen } from '../../workers/seen-filter.ts';

function seen(at: number, wanted: Partial<Seen> = {}): Seen {
  return { deviceId: 'd1', protocol: 'bkv', at, facts: {}, ...wanted };
}

describe('a sighting of a device', () => {
  it('is worth a row at first, and again after half a minute', () => {
    const filter = createSeenFilter();
    const first = seen(1_000);
    expect(filter.news([first])).toEqual([first]);
    filter.written([first]);
    expect(filter.news([seen(1_000), seen(30_999), seen(500)])).toEqual([]);
    expect(filter.news([seen(31_000)])).toEqual([seen(31_000)]);
    expect(filter.news([seen(1_001, { deviceId: 'd2' })])).toHaveLength(1);
  });

  it('is worth a row for as long as none was stored', () => {
    const filter = createSeenFilter();
    expect(filter.news([seen(1_000)])).toHaveLength(1);
    expect(filter.news([seen(1_001)])).toHaveLength(1);
  });

  it('is worth a row when it tells a fact that was not known, or another protocol', () => {
    const filter = createSeenFilter();
    filter.written([seen(1_000, { facts: { iccid: '89', version: [1, 2] } })]);
    filter.written([seen(1_001, { facts: { csq: 20 } })]);
    expect(filter.news([seen(2_000, { facts: { iccid: '89', csq: 20 } })])).toEqual([]);
    expect(filter.news([seen(2_000, { facts: { version: [1, 2] } })])).toEqual([]);
    expect(filter.news([seen(2_000, { facts: { version: [1, 3] } })])).toHaveLength(1);
    expect(filter.news([seen(2_000, { facts: { csq: 21 } })])).toHaveLength(1);
    expect(filter.news([seen(2_000, { protocol: 'ap3000' })])).toHaveLength(1);
  });
});
