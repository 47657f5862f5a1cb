import { describe, expect, it } from 'vitest';
import { compare, type Sent, type Shown } from '../../src/simulator/expectation.ts';
import type { FrameEntry } from '../../src/simulator/fleet-log.ts';

const deviceId = '82200520004869';

function sent(more: Partial<Sent> = {}): Sent {
  return { id: 'c1', deviceId, command: 'port.query', ack: 'reply', repeatable: true, ...more };
}

function shown(more: Partial<Shown> = {}): Shown {
  const attempts = [{ wireId: 5, frameOut: 'beef' }];
  return { id: 'c1', status: 'succeeded', inferred: false, maxAttempts: 4, attempts, ...more };
}

function frame(more: Partial<FrameEntry> = {}): FrameEntry {
  return {
    kind: 'frame',
    seq: 1,
    at: 1000,
    deviceId,
    protocol: 'bkv',
    connection: 1,
    wireId: 5,
    name: 'port.query',
    cmd: 21,
    subCmd: 29,
    frame: 'beef',
    intended: 'ack',
    says: 'ack',
    executed: true,
    answeredAt: 1010,
    answer: 'cafe',
    duplicate: false,
    ...more,
  };
}

const silent = { intended: 'none', answeredAt: null, answer: null } as const;

function says(command: Sent, end: Shown | null, frames: FrameEntry[]): string[] {
  const known = new Map(end ? [[end.id, end]] : []);
  return compare([command], known, frames).map((difference) => difference.says);
}

describe('the comparison of API and devices', () => {
  it('finds nothing where they agree', () => {
    expect(says(sent(), shown(), [frame()])).toEqual([]);
    const refused = [frame({ intended: 'nack', says: 'nack', executed: false })];
    expect(says(sent(), shown({ status: 'rejected' }), refused)).toEqual([]);
    const unanswerable = sent({ ack: 'none' });
    expect(says(unanswerable, shown({ status: 'unacknowledged' }), [frame(silent)])).toEqual([]);
    const once = sent({ repeatable: false });
    expect(says(once, shown({ status: 'unknown' }), [frame(silent)])).toEqual([]);
    expect(says(sent(), shown({ status: 'unknown', maxAttempts: 1 }), [frame(silent)])).toEqual([]);
  });

  it('names a command that the API lost', () => {
    expect(says(sent(), null, [])).toEqual(['the API does not know it']);
  });

  it('names a wrong end, and what the device saw', () => {
    expect(says(sent(), shown({ status: 'unknown' }), [frame()])).toEqual([
      'it is unknown and should be succeeded: received 1 times: answered ack',
    ]);
    const early = says(sent(), shown({ status: 'unknown' }), [frame(silent)]);
    expect(early[0]).toContain('should be tried again');
    expect(says(sent(), shown({ attempts: [] }), [])[0]).toBe(
      'it is succeeded, but never reached the device',
    );
  });

  it('believes an inferred end only where the command took effect', () => {
    const start = sent({ repeatable: false });
    const inferred = shown({ inferred: true });
    expect(says(start, inferred, [frame(silent)])).toEqual([]);
    expect(says(start, inferred, [frame({ ...silent, executed: false })])).toHaveLength(1);
  });

  it('leaves open whose charge "same state" means', () => {
    const start = sent({ repeatable: false });
    const attempts = [1, 2].map(() => ({ wireId: 5, frameOut: 'beef' }));
    const frames = [frame(silent), frame({ intended: 'nack', says: 'nack', duplicate: true })];
    const inferred = shown({ attempts, inferred: true });
    expect(says(start, inferred, frames)).toEqual([]);
    expect(says(start, shown({ attempts, status: 'unknown' }), frames)).toEqual([]);
    expect(says(start, shown({ attempts, status: 'rejected' }), frames)).toHaveLength(1);
  });

  it('takes a query that nobody asked for as the probe of a start that went unanswered', () => {
    const start = sent({ repeatable: false });
    const probe = frame({ wireId: 9, frame: 'f00d' });
    const attempts = [
      { wireId: 5, frameOut: 'beef' },
      { wireId: 9, frameOut: 'f00d', probe: true },
    ];
    const unknown = shown({ status: 'unknown' });
    expect(says(start, unknown, [frame(silent), probe])).toEqual([]);
    expect(says(start, { ...unknown, attempts }, [frame(silent), probe])).toEqual([]);
    expect(says(start, shown(), [frame(), probe])[0]).toContain('wire id 9');
    const other = frame({ wireId: 9, frame: 'f00d', name: 'control' });
    expect(says(start, unknown, [frame(silent), other])[0]).toContain('wire id 9');
  });

  it('names frames that are in no attempt', () => {
    expect(says(sent(), shown(), [frame({ frame: 'cafe' })])[0]).toContain('cafe');
    const stranger = frame({ wireId: 6, frame: 'f00d' });
    expect(says(sent(), shown(), [frame(), stranger])[0]).toContain('wire id 6');
    const repeated = [frame(), frame({ duplicate: true })];
    expect(says(sent(), shown(), repeated)).toEqual([
      'the device received it 2 times in 1 attempts',
    ]);
  });

  it('names a command that changed its wire id', () => {
    const attempts = [
      { wireId: 5, frameOut: 'beef' },
      { wireId: 6, frameOut: 'beef' },
    ];
    expect(says(sent(), shown({ attempts }), [frame()])).toEqual([
      'it was sent under the wire ids 5, 6',
    ]);
  });
});
