import { describe, expect, it } from 'vitest';
import {
  type Accepted,
  type CheckOptions,
  check,
  type Evidence,
  type FinalRecord,
  type SeenFrame,
} from './checker.ts';

const device = '82200520004869';
const frameHex = 'fcff0015beef';

function accepted(more: Partial<Accepted> = {}): Accepted {
  return {
    id: 'c1',
    deviceId: device,
    command: 'charge.start',
    repeatable: false,
    acceptedAt: 1000,
    deadline: 61_000,
    ...more,
  };
}

function seen(more: Partial<SeenFrame> = {}): SeenFrame {
  return {
    at: 1010,
    deviceId: device,
    connection: 1,
    wireId: 5,
    frame: frameHex,
    intended: 'ack',
    says: 'ack',
    executed: true,
    answeredAt: 1020,
    duplicate: false,
    ...more,
  };
}

const silent = { intended: 'none', says: 'ack', answeredAt: null } as const;

function record(more: Partial<FinalRecord> = {}): FinalRecord {
  return {
    id: 'c1',
    deviceId: device,
    status: 'succeeded',
    attempts: [{ wireId: 5, frameOut: frameHex }],
    ...more,
  };
}

const twice = [
  { wireId: 5, frameOut: frameHex },
  { wireId: 5, frameOut: frameHex },
];

const kill = { kind: 'gateway-kill', from: 5000, to: 9000 } as const;

function judge(evidence: Partial<Evidence>, options?: CheckOptions) {
  return check(
    { accepted: [accepted()], faults: [], log: [seen()], records: [record()], ...evidence },
    options,
  );
}

/** The one problem that there must be. */
function problemOf(evidence: Partial<Evidence>, options?: CheckOptions): string {
  const { ok, problems } = judge(evidence, options);
  expect(problems).toHaveLength(1);
  expect(ok).toBe(false);
  return problems[0]!;
}

describe('an honest run', () => {
  it('passes and is counted', () => {
    expect(judge({})).toEqual({
      ok: true,
      problems: [],
      counts: { succeeded: 1 },
      unknowns: [],
      inFlightAtKills: 0,
      framesSeen: 1,
      duplicates: 0,
    });
  });

  it('passes when a refusal ended as rejected', () => {
    const log = [seen({ intended: 'nack', says: 'nack' })];
    expect(judge({ log, records: [record({ status: 'rejected' })] }).ok).toBe(true);
  });

  it('passes when a late answer still counted', () => {
    const log = [seen({ intended: 'late', answeredAt: 30_000 })];
    expect(judge({ log, records: [record({ late: true })] }).ok).toBe(true);
  });

  it('passes when an unanswered command that must not repeat ended as unknown', () => {
    const verdict = judge({ log: [seen(silent)], records: [record({ status: 'unknown' })] });
    expect(verdict).toMatchObject({ ok: true, unknowns: ['c1'], inFlightAtKills: 0 });
  });

  it('passes when a repeat carried the same wire id and both tries are in the trail', () => {
    const log = [seen(silent), seen({ at: 2000, answeredAt: 2010, duplicate: true })];
    const verdict = judge({ log, records: [record({ attempts: twice })] });
    expect(verdict).toMatchObject({ ok: true, duplicates: 1 });
  });

  it('passes when a command without an answer ended as unacknowledged', () => {
    const log = [seen({ ...silent, says: 'nothing' })];
    const given = { accepted: [accepted({ ack: 'none' })], log };
    expect(judge({ ...given, records: [record({ status: 'unacknowledged' })] }).ok).toBe(true);
    expect(problemOf(given)).toContain('ended as succeeded, but may only be unacknowledged');
  });

  it('passes when a probe found the effect of a lost answer, and only then', () => {
    const inferred = [record({ inferred: true })];
    expect(judge({ log: [seen(silent)], records: inferred }).ok).toBe(true);
    const untouched = [seen({ ...silent, executed: false })];
    expect(problemOf({ log: untouched, records: inferred })).toContain('ended as succeeded');
  });
});

describe('it turns red when', () => {
  it('a command is lost', () => {
    expect(problemOf({ log: [], records: [] })).toContain('is lost: it has no record');
  });

  it('a command is not final', () => {
    const { problems } = judge({ records: [record({ status: 'sent' })] });
    expect(problems.join()).toContain('is not final: it is sent');
  });

  it('a record belongs to no accepted command', () => {
    const records = [record(), record({ id: 'c2', attempts: [] })];
    expect(problemOf({ records })).toContain('c2 has a record but was never accepted');
  });

  it('a command has two records, or one of another device', () => {
    expect(problemOf({ records: [record(), record()] })).toContain('has two records');
    const moved = [record({ deviceId: '04ab373b' })];
    expect(problemOf({ records: moved })).toContain('is recorded for device 04ab373b');
  });

  it('an answered command ended as unknown', () => {
    const records = [record({ status: 'unknown' })];
    expect(judge({ records }).problems[0]).toContain(
      'ended as unknown, but may only be succeeded: received at 1010, answered ack at 1020',
    );
  });

  it('a refused command ended as succeeded, or an accepted one as rejected', () => {
    const log = [seen({ intended: 'nack', says: 'nack' })];
    expect(problemOf({ log })).toContain('ended as succeeded, but may only be rejected');
    const records = [record({ status: 'rejected' })];
    expect(problemOf({ records })).toContain('ended as rejected, but may only be succeeded');
  });

  it('an unanswered command ended as succeeded', () => {
    expect(problemOf({ log: [seen(silent)] })).toContain('may only be unknown');
  });

  it('a command that no device received ended as succeeded', () => {
    expect(problemOf({ log: [] })).toContain('no frame reached the device');
  });

  it('a command expired, unless its run allows it', () => {
    const gone = { log: [], records: [record({ status: 'expired', attempts: [] })] };
    expect(problemOf(gone)).toContain('ended as expired');
    expect(judge(gone, { mayExpire: true }).ok).toBe(true);
  });

  it('a written command ended as expired even where the run allows expiry', () => {
    const records = [record({ status: 'expired' })];
    expect(problemOf({ records }, { mayExpire: true })).toContain('ended as expired');
  });

  it('a never written command failed, unless the caller allows it', () => {
    const gone = { log: [], records: [record({ status: 'failed', attempts: [] })] };
    expect(problemOf(gone)).toContain('ended as failed');
    expect(judge(gone, { mayEndUnwritten: ['failed'] }).ok).toBe(true);
    const allowing = [accepted({ mayEnd: ['failed'] })];
    expect(judge({ ...gone, accepted: allowing }).ok).toBe(true);
  });

  it('a repeatable command is unknown while attempts remain', () => {
    const given = { accepted: [accepted({ repeatable: true, attempts: 2 })] };
    const records = [record({ status: 'unknown', attempts: twice })];
    expect(problemOf({ ...given, log: [seen(silent)], records })).toContain('nothing final');
    const spent = [seen(silent), seen({ ...silent, at: 2000, duplicate: true })];
    expect(judge({ ...given, log: spent, records }).ok).toBe(true);
  });

  it('a device received a frame that no command explains', () => {
    const log = [seen(), seen({ wireId: 77, frame: 'abcd' })];
    expect(problemOf({ log })).toContain('no accepted command explains: wire id 77, abcd');
  });

  it('a write is not in the trail', () => {
    const log = [seen(silent), seen({ at: 2000, answeredAt: 2010, duplicate: true })];
    expect(problemOf({ log })).toContain('2 times under wire id 5, its trail shows 1');
  });

  it('the trail does not know the write at all, though its content tells whose it is', () => {
    const given = [accepted({ content: 'beef' })];
    const records = [record({ attempts: [] })];
    expect(problemOf({ accepted: given, records })).toContain('1 times under wire id 5');
  });

  it('the bytes that arrived are not those in the trail', () => {
    const records = [record({ attempts: [{ wireId: 5, frameOut: 'fcff00' }] })];
    expect(problemOf({ records })).toContain('which is not in its trail');
  });

  it('a repeat carries another wire id, in the log or in the trail', () => {
    const other = { wireId: 6, frame: 'fcff0016beef' };
    const log = [seen(silent), seen({ ...other, at: 2000, answeredAt: 2010 })];
    const attempts = [...record().attempts, { wireId: 6, frameOut: other.frame }];
    const problems = judge({ log, records: [record({ attempts })] }).problems.join('\n');
    expect(problems).toContain('sent again under another wire id: 5, 6');
    expect(problems).toContain('changes its wire id within its trail');
  });

  it('one wire id carried two commands', () => {
    const both = [accepted({ content: 'beef' }), accepted({ id: 'c2', content: 'cafe' })];
    const records = [record(), record({ id: 'c2' })];
    const log = [seen(), seen({ frame: 'fcff0015cafe', duplicate: true })];
    const problems = judge({ accepted: both, records, log }).problems.join('\n');
    expect(problems).toContain('share the wire id 5');
  });

  it("a wire id of the trail carried another command's frame", () => {
    const both = [accepted({ content: 'beef' }), accepted({ id: 'c2', content: 'cafe' })];
    const records = [
      record(),
      record({ id: 'c2', attempts: [{ wireId: 6, frameOut: 'fcff0016cafe' }] }),
    ];
    const log = [seen(), seen({ wireId: 6, frame: 'fcff0016beef' })];
    expect(judge({ accepted: both, records, log }).problems.join('\n')).toContain(
      'has the wire id 6 in its trail, but the frame under it is that of command c1',
    );
  });

  it('the log itself contradicts what it calls a duplicate', () => {
    expect(problemOf({ log: [seen({ duplicate: true })] })).toContain('but saw it first');
  });
});

describe('around a kill', () => {
  const dying = seen({ at: 4900, answeredAt: 4990 });
  const early = accepted({ acceptedAt: 4800 });
  const unknown = [record({ status: 'unknown' })];

  it('an answer on its way may be lost, which is counted', () => {
    const given = { accepted: [early], faults: [kill], log: [dying] };
    expect(judge({ ...given, records: unknown })).toMatchObject({
      ok: true,
      unknowns: ['c1'],
      inFlightAtKills: 1,
    });
    expect(judge(given).ok).toBe(true);
  });

  it('a repeatable command is tried again and does not end as unknown', () => {
    const given = [{ ...early, repeatable: true }];
    const evidence = { accepted: given, faults: [kill], log: [dying], records: unknown };
    expect(problemOf(evidence)).toContain('ended as unknown, but may only be succeeded');
  });

  it('an answer well before it, or a frame after it, is no excuse', () => {
    const before = { accepted: [accepted()], faults: [kill], records: unknown };
    expect(judge(before).ok).toBe(false);
    const after = [seen({ at: 9500, answeredAt: 9510 })];
    expect(judge({ ...before, log: after }).ok).toBe(false);
  });

  it('a store that restarts is no excuse either', () => {
    for (const kind of ['redis-restart', 'postgres-stop'] as const) {
      const faults = [{ ...kill, kind }];
      expect(judge({ accepted: [early], faults, log: [dying], records: unknown }).ok).toBe(false);
    }
  });

  it('a delivery under way may never arrive, but not more than a lane holds', () => {
    const ids = Array.from({ length: 6 }, (_, i) => `c${i}`);
    const lost = (some: readonly string[]) => ({
      accepted: some.map((id) => accepted({ id, acceptedAt: 4800 })),
      faults: [kill],
      log: [],
      records: some.map((id) => record({ id, status: 'unknown', attempts: [] })),
    });
    expect(judge(lost(ids.slice(0, 5))).ok).toBe(true);
    expect(problemOf(lost(ids))).toContain('6 commands of device 82200520004869');
  });

  it('a command accepted after it has no excuse for not arriving', () => {
    const log: SeenFrame[] = [];
    const given = [accepted({ acceptedAt: 9500 })];
    expect(problemOf({ accepted: given, faults: [kill], log, records: unknown })).toContain(
      'nothing final',
    );
  });
});

describe('around the end of a connection', () => {
  const log = [seen({ at: 4900, answeredAt: 4990 })];
  const records = [record({ status: 'unknown' })];
  const closed = (by: 'device' | 'reset' | 'server') => ({
    kind: 'close' as const,
    at: 5000,
    connection: 1,
    deviceIds: [device],
    by,
  });

  it('an answer may be lost when the server or a reset ended it', () => {
    expect(judge({ log: [...log, closed('server')], records }).ok).toBe(true);
    expect(judge({ log: [...log, closed('reset')], records }).ok).toBe(true);
  });

  it('an answer is not lost when the device ended it in good order', () => {
    expect(judge({ log: [...log, closed('device')], records }).ok).toBe(false);
  });

  it('a frame may be lost on the way to a device that leaves', () => {
    const unseen = [record({ status: 'unknown' })];
    expect(judge({ log: [closed('device')], records: unseen }).ok).toBe(true);
    expect(judge({ log: [{ ...closed('device'), at: 500 }], records: unseen }).ok).toBe(false);
  });
});

describe('a deadline that is near', () => {
  const silentLog = [seen({ ...silent, at: 9_000 })];
  const records = [record({ status: 'unknown' })];
  const short = accepted({
    repeatable: true,
    deadline: 10_000,
    retries: { ackTimeoutMs: 800, backoffMs: 300 },
  });

  it('leaves no time for another try, so that a silent frame ends the command as unknown', () => {
    expect(judge({ accepted: [short], log: silentLog, records }).ok).toBe(true);
  });

  it('is no excuse while there was time', () => {
    const long = { ...short, deadline: 60_000 };
    expect(judge({ accepted: [long], log: silentLog, records }).ok).toBe(false);
  });

  it('is no excuse for a frame that was answered', () => {
    expect(judge({ accepted: [short], log: [seen({ at: 9_000 })], records }).ok).toBe(false);
  });
});

describe('a no to a start that was tried twice', () => {
  const no = { at: 2_000, says: 'nack', intended: 'nack', answeredAt: 2_010 } as const;
  const log = [seen(silent), seen({ ...no, duplicate: true })];
  const unknown = record({ status: 'unknown', attempts: twice });

  it('may speak of what the first one did, so that nothing is known', () => {
    expect(judge({ log, records: [unknown] }).ok).toBe(true);
  });

  it('is an answer where there was one try alone', () => {
    const records = [record({ status: 'unknown' })];
    expect(judge({ log: [seen(no)], records }).ok).toBe(false);
  });

  it('is an answer where the command may be repeated', () => {
    const given = [accepted({ repeatable: true })];
    expect(judge({ accepted: given, log, records: [unknown] }).ok).toBe(false);
  });
});

describe('a probe', () => {
  const asks = seen({ at: 1_500, wireId: 6, frame: 'fcff001d' });
  const start = seen({ ...silent, executed: true });
  const inferred = record({
    inferred: true,
    attempts: [
      { wireId: 5, frameOut: frameHex },
      { wireId: 6, frameOut: 'fcff001d', probe: true },
    ],
  });

  it('stands in the trail of what it asks about and is no frame of it', () => {
    expect(judge({ log: [start, asks], records: [inferred] })).toMatchObject({ ok: true });
  });

  it('is unexplained where no trail names it, unless a worker was killed', () => {
    const records = [record({ inferred: true })];
    const isProbe = ({ frame }: SeenFrame) => frame === 'fcff001d';
    expect(problemOf({ log: [start, asks], records }, { isProbe })).toContain('no accepted');
    expect(judge({ log: [start, asks], records, faults: [kill] }, { isProbe }).ok).toBe(true);
  });
});
