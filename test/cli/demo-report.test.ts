import { describe, expect, it } from 'vitest';
import type { ShownCommand } from '../../src/cli/demo-client.ts';
import { differencesOf, figuresOf, tableOf } from '../../src/cli/demo-report.ts';

const at = (ms: number) => new Date(1_800_000_000_000 + ms).toISOString();

function shown(i: number, more: Partial<ShownCommand> = {}): ShownCommand {
  return {
    id: `c${i}`,
    status: 'succeeded',
    final: true,
    deviceId: 'd1',
    command: 'port.query',
    inferred: false,
    acceptedAt: at(i * 10),
    settledAt: at(i * 10 + 100),
    maxAttempts: 4,
    attempts: [{ wireId: i, frameOut: 'beef', writtenAt: at(i * 10 + i), ms: 2 * i }],
    ...more,
  };
}

const hundred = Array.from({ length: 100 }, (_, i) => shown(i + 1));

describe('the figures of a run', () => {
  it('are percentiles of the times in the records', () => {
    const { total } = figuresOf(hundred, () => true);
    expect(total.acceptedToWrittenMs).toEqual({ p50: 50, p95: 95, p99: 99 });
    expect(total.writtenToAckedMs).toEqual({ p50: 100, p95: 190, p99: 198 });
    expect(total.ends).toEqual({ succeeded: 100 });
  });

  it('take the first write and the answered attempt of a command that was tried again', () => {
    const attempts = [
      { wireId: 1, frameOut: 'beef', writtenAt: at(13), ms: 1500 },
      { wireId: 1, frameOut: 'beef', writtenAt: at(2000), ms: 7 },
    ];
    const { total, retried } = figuresOf([shown(1, { attempts })], () => true);
    expect(total.acceptedToWrittenMs?.p50).toBe(3);
    expect(total.writtenToAckedMs?.p50).toBe(7);
    expect(retried).toBe(1);
  });

  it('leave out what was never written or never answered', () => {
    const attempts = [{ wireId: 1, frameOut: 'beef', writtenAt: null, ms: 1500 }];
    const { total } = figuresOf([shown(1, { status: 'unknown', attempts })], () => true);
    expect(total).toMatchObject({ acceptedToWrittenMs: null, writtenToAckedMs: null });
  });

  it('are counted by kind, and apart for calm devices', () => {
    const mixed = [shown(1), shown(2, { command: 'charge.stop', deviceId: 'd2' })];
    const { kinds, calm } = figuresOf(mixed, (deviceId) => deviceId === 'd1');
    expect(kinds.map(({ command, sent }) => [command, sent])).toEqual([
      ['charge.stop', 1],
      ['port.query', 1],
    ]);
    expect(calm.sent).toBe(1);
  });
});

describe('the report', () => {
  it('fits into 80 columns', () => {
    const lines = tableOf(figuresOf(hundred, () => true));
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThan(80);
    expect(lines.find((line) => line.startsWith('port.query'))).toMatch(
      /^port\.query +100 +100 +0 +0 +0 +50 +95 +99 +100 +190 +198$/,
    );
  });

  it('names commands by their ids, and says how many more there are', () => {
    const one = { id: 'c1', deviceId: 'd1', command: 'port.query', says: 'it is lost' };
    expect(differencesOf([one])).toEqual(['  c1 port.query to d1: it is lost']);
    expect(differencesOf(Array.from({ length: 25 }, () => one)).at(-1)).toBe('  … and 5 more');
  });
});
