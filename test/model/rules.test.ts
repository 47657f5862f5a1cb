/** The rules themselves: a sound story passes them all, and each small lie is found by the rule it concerns. */
import { describe, expect, test } from 'vitest';
import { judge } from './judge.ts';
import type { Asked, Closed, Frame, Shown, ShownTry, Story } from './story.ts';

const deviceId = '82330000000001';
const start = 1_700_000_000_000;
const iso = (ms: number) => new Date(start + ms).toISOString();

/** Moments are counted from the start of the story. */
function asked(id: string | null, at: number, more: Partial<Asked> = {}): Asked {
  return {
    deviceId,
    kind: 'set',
    command: 'params.set',
    orders: `set ${id}`,
    line: 'set',
    params: { socket: 1, maxMinutes: 7 },
    askedAt: start + at,
    answeredAt: start + at + 10,
    status: id === null ? 409 : 202,
    code: null,
    because: null,
    id,
    acceptedAt: start + at + 5,
    dueAt: start + at + 5,
    deadline: start + at + 5_005,
    ackTimeoutMs: 300,
    attempts: 2,
    key: null,
    keyUse: 'first',
    body: '',
    ...more,
  };
}

function tried(wireId: number, at: number, more: Partial<ShownTry> = {}): ShownTry {
  return {
    attempt: 1,
    gatewayId: 'gw',
    wireId,
    frameOut: `f${wireId}`,
    at: iso(at - 2),
    writtenAt: iso(at),
    frameIn: null,
    ms: null,
    outcome: 'acked',
    ...more,
  };
}

function shown(id: string, settledMs: number, attempts: ShownTry[], more: Partial<Shown> = {}) {
  const record: Shown = {
    id,
    status: 'succeeded',
    final: true,
    deviceId,
    command: 'params.set',
    reason: null,
    code: null,
    result: null,
    late: false,
    inferred: false,
    acceptedAt: iso(0),
    deadline: iso(5_000),
    settledAt: iso(settledMs),
    maxAttempts: 2,
    onAmbiguous: 'resend',
    attempts,
    ...more,
  };
  return record;
}

function seen(id: string, wireId: number, at: number, more: Partial<Frame> = {}): Frame {
  return {
    at: start + at + 1,
    deviceId,
    connection: 1,
    wireId,
    orders: `set ${id}`,
    hex: `f${wireId}`,
    says: 'ack',
    executed: true,
    repeated: false,
    answeredAt: start + at + 2,
    answeredOn: 1,
    ...more,
  };
}

/** Two sets of one line, written one after the other. */
const sound: Story = {
  asked: [asked('a', 0), asked('b', 20)],
  cancelled: [],
  held: [],
  frames: [seen('a', 1, 15), seen('b', 2, 30)],
  closes: [],
  outages: [],
  sights: [],
  records: [shown('a', 19, [tried(1, 15)]), shown('b', 34, [tried(2, 30)])],
  stallMs: 5,
  inFlight: { [deviceId]: 1 },
  maxPerKey: 3,
  maxPerDevice: 6,
};

/** One command that its device never saw. */
function unseen(status: string, more: Partial<Shown> = {}, asks: Partial<Asked> = {}): Story {
  const record = shown('a', 100, [], { status, ...more });
  return { ...sound, asked: [asked('a', 0, asks)], frames: [], records: [record] };
}

const stop = { kind: 'stop', command: 'charge.stop', line: 'port:0', orders: 'stop 0' } as const;
const begin = { kind: 'start', command: 'charge.start', line: 'port:0', orders: 'set a' } as const;

/** A start that was written, then a stop. */
function stopAfterStart(startAt: number, stopAt: number): Story {
  return {
    ...sound,
    asked: [asked('a', 0, begin), asked('b', stopAt, { ...stop, orders: 'set b' })],
    frames: [seen('a', 1, startAt), seen('b', 2, stopAt + 5)],
    records: [
      shown('a', startAt + 4, [tried(1, startAt)]),
      shown('b', stopAt + 8, [tried(2, stopAt + 5)]),
    ],
  };
}

function found(story: Story): string[] {
  return [...new Set(judge(story).problems.map(({ rule }) => rule))];
}

const sight = (id: string, status: string, late = false) => ({ id, at: start + 40, status, late });
const cancel = (status: number, code: string | null = null) => ({
  id: 'a',
  askedAt: start + 50,
  answeredAt: start + 60,
  status,
  code,
});
const closed: Closed = { at: start + 18, deviceId, connection: 1, by: 'server' };
const outage = {
  role: 'gateway',
  signal: 'SIGKILL',
  from: start + 16,
  to: start + 900,
} as const;

describe('a story that may be', () => {
  const stories: [string, Story][] = [
    ['two sets in a row', sound],
    [
      'unknown that a late answer mends',
      {
        ...sound,
        sights: [sight('a', 'unknown'), sight('a', 'succeeded', true)],
        records: [shown('a', 900, [tried(1, 15)], { late: true }), sound.records[1]!],
      },
    ],
    [
      'an answer that a dying gateway takes along',
      {
        ...sound,
        outages: [outage],
        records: [shown('a', 900, [tried(1, 15)], { status: 'unknown' })],
        asked: [asked('a', 0)],
        frames: [seen('a', 1, 15)],
      },
    ],
    [
      'an answer that a lost connection takes along',
      {
        ...sound,
        closes: [closed],
        records: [shown('a', 900, [tried(1, 15)], { status: 'unknown' })],
        asked: [asked('a', 0)],
        frames: [seen('a', 1, 15)],
      },
    ],
    ['an end by its deadline', unseen('expired', { settledAt: iso(5_100) })],
    ['a cancel before the write', { ...unseen('cancelled'), cancelled: [cancel(200)] }],
    ['a start before the stop', stopAfterStart(12, 20)],
    [
      'a frame that was sent again under its wire id',
      {
        ...sound,
        asked: [asked('a', 0)],
        frames: [seen('a', 1, 15, { answeredAt: null }), seen('a', 1, 400, { repeated: true })],
        records: [shown('a', 410, [tried(1, 15), tried(1, 400, { attempt: 2 })])],
      },
    ],
  ];
  test.each(stories)('%s', (_name, story) => {
    expect(judge(story).problems).toEqual([]);
  });
});

describe('a lie is found', () => {
  const b = sound.records[1]!;
  const lies: [string, string, Story][] = [
    ['one end', 'a command that is lost', { ...sound, records: [b], frames: [sound.frames[1]!] }],
    ['one end', 'a command without an end', unseen('queued')],
    ['one end', 'an end after another end', { ...sound, sights: [sight('a', 'rejected')] }],
    [
      'one end',
      'an answer that came late and is not called so',
      {
        ...sound,
        sights: [sight('a', 'unknown')],
      },
    ],
    [
      'one end',
      'expired after it was sent',
      {
        ...unseen('expired', { settledAt: iso(5_100) }),
        sights: [sight('a', 'sent')],
      },
    ],
    [
      'honest end',
      'success without an answer',
      {
        ...sound,
        frames: [seen('a', 1, 15, { answeredAt: null }), sound.frames[1]!],
      },
    ],
    [
      'honest end',
      'success where the device refused',
      {
        ...sound,
        frames: [seen('a', 1, 15, { says: 'nack', executed: false }), sound.frames[1]!],
      },
    ],
    [
      'honest end',
      'success that was inferred from nothing',
      unseen('succeeded', { inferred: true }),
    ],
    [
      'honest end',
      'unknown although the device answered',
      {
        ...sound,
        records: [shown('a', 19, [tried(1, 15)], { status: 'unknown' }), b],
      },
    ],
    ['honest end', 'unknown that never went out', unseen('unknown')],
    [
      'honest end',
      'unknown though nothing died and nothing arrived',
      unseen('unknown', {
        attempts: [tried(1, 15)],
      }),
    ],
    ['honest end', 'expired before its deadline', unseen('expired')],
    [
      'honest end',
      'expired though it arrived',
      {
        ...sound,
        records: [shown('a', 5_100, [tried(1, 15)], { status: 'expired' }), b],
      },
    ],
    ['honest end', 'cancelled by nobody', unseen('cancelled')],
    ['honest end', 'superseded by nothing', unseen('superseded')],
    ['honest end', 'failed without a reason', unseen('failed')],
    [
      'in flight',
      'two frames at once',
      {
        ...sound,
        asked: sound.asked.map((one) => ({ ...one, line: null })),
        frames: [seen('a', 1, 15, { answeredAt: start + 60 }), sound.frames[1]!],
        records: [shown('a', 62, [tried(1, 15)]), b],
      },
    ],
    [
      'in order',
      'the newer one first',
      {
        ...sound,
        frames: [seen('b', 2, 30), seen('a', 1, 50)],
        records: [shown('a', 54, [tried(1, 50)]), b],
      },
    ],
    [
      'in order',
      'the newer one before the older one ended',
      {
        ...sound,
        records: [shown('a', 45, [tried(1, 15)]), b],
      },
    ],
    ['stopped', 'a start after its stop', stopAfterStart(60, 20)],
    [
      'in time',
      'a write after the deadline',
      {
        ...sound,
        asked: [asked('a', 0, { deadline: start + 14 }), sound.asked[1]!],
      },
    ],
    [
      'in time',
      'a late arrival without a receipt',
      {
        ...sound,
        asked: [asked('a', 0, { deadline: start + 1 }), asked('b', 600)],
        frames: [seen('a', 1, 500), seen('b', 2, 630)],
        records: [
          shown('a', 510, [tried(1, 500, { writtenAt: null })]),
          shown('b', 634, [tried(2, 630)]),
        ],
      },
    ],
    [
      'in time',
      'a write before its time',
      {
        ...sound,
        asked: [asked('a', 0, { dueAt: start + 400 }), sound.asked[1]!],
      },
    ],
    ['promptly', 'an end long after its deadline', unseen('expired', { settledAt: iso(9_000) })],
    ['cancelled', 'a cancelled command that succeeds', { ...sound, cancelled: [cancel(200)] }],
    [
      'cancelled',
      'a write after the request to cancel',
      {
        ...sound,
        asked: [asked('a', 0)],
        frames: [seen('a', 1, 95)],
        records: [shown('a', 99, [tried(1, 95)])],
        cancelled: [cancel(202)],
      },
    ],
    [
      'cancelled',
      'one that was said to be sent and was not',
      {
        ...unseen('expired', { settledAt: iso(5_100) }),
        cancelled: [cancel(409, 'ALREADY_SENT')],
      },
    ],
    [
      'cancelled',
      'one that was said to be over and was not',
      {
        ...sound,
        records: [shown('a', 500, [tried(1, 15)])],
        asked: [asked('a', 0)],
        frames: [seen('a', 1, 15)],
        cancelled: [cancel(409, 'ALREADY_FINAL')],
      },
    ],
    ['cancelled', 'an answer nobody knows', { ...sound, cancelled: [cancel(500, 'INTERNAL')] }],
    [
      'in trail',
      'a frame of no command',
      {
        ...sound,
        frames: [...sound.frames, seen('c', 3, 40)],
      },
    ],
    [
      'in trail',
      'more frames than attempts',
      {
        ...sound,
        frames: [sound.frames[0]!, seen('a', 1, 18, { repeated: true }), sound.frames[1]!],
      },
    ],
    [
      'in trail',
      'another wire id',
      {
        ...sound,
        records: [shown('a', 19, [tried(1, 15), tried(9, 17, { attempt: 2 })]), b],
      },
    ],
    [
      'in trail',
      'one attempt too many',
      {
        ...sound,
        records: [shown('a', 19, [tried(1, 15, { attempt: 3 })]), b],
      },
    ],
    [
      'in trail',
      'the frame of another',
      {
        ...sound,
        frames: [seen('x', 1, 15), sound.frames[1]!],
      },
    ],
    [
      'in trail',
      'one wire id for two',
      {
        ...sound,
        records: [sound.records[0]!, shown('b', 34, [tried(1, 30)])],
        frames: [seen('a', 1, 15)],
      },
    ],
    [
      'refusals',
      'a conflict with what is over',
      {
        ...sound,
        asked: [...sound.asked, asked(null, 900, { ...begin, code: 'CONFLICT', because: 'a' })],
      },
    ],
    [
      'refusals',
      'a full line that is empty',
      {
        ...sound,
        asked: [...sound.asked, asked(null, 900, { status: 429, code: 'TOO_MANY_WAITING' })],
      },
    ],
    [
      'refusals',
      'a stop that is one too many',
      {
        ...sound,
        asked: [
          ...sound.asked,
          asked(null, 900, { ...stop, status: 429, code: 'TOO_MANY_WAITING' }),
        ],
      },
    ],
    [
      'refusals',
      'a failure of the server',
      {
        ...sound,
        asked: [...sound.asked, asked(null, 900, { status: 500, code: 'INTERNAL' })],
      },
    ],
    [
      'refusals',
      'a second start beside an unfinished one',
      {
        ...sound,
        asked: [asked('a', 0, begin), asked('b', 20, { ...begin, orders: 'set b' })],
        records: [shown('a', 40, [tried(1, 15)]), shown('b', 64, [tried(2, 60)])],
        frames: [seen('a', 1, 15), seen('b', 2, 60)],
      },
    ],
    [
      'keys',
      'a second command under one key',
      {
        ...sound,
        asked: sound.asked.map((one) => ({ ...one, key: 'k' })),
      },
    ],
    [
      'keys',
      'another body under one key',
      {
        ...sound,
        asked: sound.asked.map((one) => ({ ...one, key: 'k', body: one.id ?? '' })),
      },
    ],
    [
      'paused',
      'a write in a pause',
      {
        ...sound,
        held: [
          { deviceId, what: 'pause', askedAt: start - 20, answeredAt: start - 10, status: 200 },
        ],
      },
    ],
  ];
  test.each(lies)('%s: %s', (rule, _name, story) => {
    expect(found(story)).toContain(rule);
  });
});
