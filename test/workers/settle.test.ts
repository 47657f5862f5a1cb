import { describe, expect, it } from 'vitest';
import type { Command } from '../../src/command.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import type { Outcome } from '../../src/outcome.ts';
import { ambiguousReasons, refusedReasons, unwrittenReasons } from '../../src/outcome.ts';
import { protocolNamed } from '../../src/protocols/index.ts';
import type { Run } from '../../workers/run.ts';
import { type Circumstances, createSettle, judge } from '../../workers/settle.ts';

const now = 1_000_000;

type Change = Omit<Partial<Circumstances>, 'command'> & { command?: Partial<Command> };

function circumstances(change: Change = {}): Circumstances {
  const name = change.command?.command ?? 'port.query';
  const command: Command = {
    id: '0190-1',
    deviceId: '82200520004869',
    protocol: 'bkv',
    command: name,
    params: { socket: 1 },
    priority: 5,
    acceptedAt: now,
    notBefore: now,
    deadline: now + 60_000,
    ackTimeoutMs: 10_000,
    attempts: 4,
    backoffMs: 3_000,
    orderKey: null,
    onAmbiguous: name === 'charge.start' ? 'probe' : 'resend',
    labels: {},
    apiKey: 'test',
    waiter: null,
    replayOf: null,
    ...change.command,
  };
  return {
    attempt: 1,
    writtenBefore: false,
    revocation: null,
    blockedBy: null,
    unclear: null,
    now,
    random: 0,
    spec: protocolNamed('bkv')?.commands[name],
    ...change,
    command,
  };
}

const exchange = { writtenAt: now - 10, endedAt: now, frameIn: 'fcfe' };
const unwritten = (reason: (typeof unwrittenReasons)[number]): Outcome => ({
  kind: 'unwritten',
  reason,
});
const refused = (reason: (typeof refusedReasons)[number]): Outcome => ({
  kind: 'refused',
  reason,
  detail: 'why',
});
const ambiguous = (reason: (typeof ambiguousReasons)[number]): Outcome => ({
  kind: 'ambiguous',
  reason,
  writtenAt: now - 10,
  endedAt: now,
});

describe('the verdict on an answer', () => {
  it('succeeds with the result of the device', () => {
    expect(
      judge({ kind: 'acked', result: { businessNo: 104 }, ...exchange }, circumstances()),
    ).toEqual({
      kind: 'end',
      status: 'succeeded',
      reason: null,
      code: null,
      result: { businessNo: 104 },
    });
  });

  it('rejects with the code of the device and never retries', () => {
    const outcome: Outcome = {
      kind: 'rejected',
      code: '3',
      reason: 'port fault',
      result: {},
      ...exchange,
    };
    expect(judge(outcome, circumstances())).toMatchObject({
      kind: 'end',
      status: 'rejected',
      code: '3',
      reason: 'port fault',
    });
  });

  it('ends as unacknowledged where the protocol defines no answer', () => {
    expect(judge({ kind: 'unacknowledged', ...exchange }, circumstances())).toMatchObject({
      status: 'unacknowledged',
    });
  });
});

describe('the verdict on what was surely not written', () => {
  it.each(unwrittenReasons)('%s parks and spends no attempt', (reason) => {
    expect(judge(unwritten(reason), circumstances())).toMatchObject({
      kind: 'park',
      because: reason,
    });
  });

  it('expires at the deadline', () => {
    const late = circumstances({ now: now + 60_000 });
    expect(judge(unwritten('offline'), late)).toMatchObject({ status: 'expired' });
  });

  it('is unknown at the deadline when an earlier attempt was written', () => {
    const late = circumstances({ now: now + 60_000, writtenBefore: true });
    expect(judge(unwritten('offline'), late)).toMatchObject({ status: 'unknown' });
  });

  it.each([
    ['expired', 'expired'],
    ['superseded', 'superseded'],
    ['withdrawn', 'cancelled'],
    ['unsupported', 'failed'],
    ['invalid', 'failed'],
  ] as const)('a refusal as %s ends as %s', (reason, status) => {
    expect(judge(refused(reason), circumstances())).toMatchObject({ kind: 'end', status });
  });

  it.each(refusedReasons)('a refusal as %s after a write ends as unknown', (reason) => {
    const verdict = judge(refused(reason), circumstances({ writtenBefore: true }));
    expect(verdict).toMatchObject({ kind: 'end', status: 'unknown' });
  });
});

describe('the verdict on an ambiguous attempt', () => {
  it.each(ambiguousReasons)('%s retries a repeatable command after its backoff', (reason) => {
    expect(judge(ambiguous(reason), circumstances())).toMatchObject({
      kind: 'retry',
      delayMs: 3_000,
    });
  });

  it.each(ambiguousReasons)('%s ends what may not be repeated as unknown', (reason) => {
    const update = circumstances({ command: { command: 'ota.start', onAmbiguous: 'stop' } });
    expect(judge(ambiguous(reason), update)).toMatchObject({ kind: 'end', status: 'unknown' });
  });

  it.each(ambiguousReasons)('%s lets the device be asked what became of a start', (reason) => {
    const start = circumstances({ command: { command: 'charge.start' } });
    expect(judge(ambiguous(reason), start)).toMatchObject({
      kind: 'retry',
      reason: expect.stringContaining('asked before anything is sent again'),
    });
  });

  it('is unknown when a probe could not tell', () => {
    const start = circumstances({
      command: { command: 'charge.start' },
      unclear: 'the port charges for a card',
    });
    expect(judge(ambiguous('no-ack'), start)).toMatchObject({
      status: 'unknown',
      reason: expect.stringContaining('the port charges for a card'),
    });
  });

  it('of one that was superseded or cancelled gets no further attempt', () => {
    const superseded = { kind: 'superseded', by: 'c2' } as const;
    expect(judge(ambiguous('no-ack'), circumstances({ revocation: superseded }))).toMatchObject({
      status: 'unknown',
      code: 'SUPERSEDED',
    });
    const cancelled = { kind: 'cancelled', by: 'ops' } as const;
    expect(judge(ambiguous('no-ack'), circumstances({ revocation: cancelled }))).toMatchObject({
      status: 'unknown',
      code: 'CANCELLED',
    });
  });

  it('repeats nothing when the caller forbade it', () => {
    const query = circumstances({ command: { onAmbiguous: 'stop' } });
    expect(judge(ambiguous('no-ack'), query)).toMatchObject({ status: 'unknown' });
  });

  it('repeats a start only when the caller asked for it', () => {
    const start = circumstances({ command: { command: 'charge.start', onAmbiguous: 'resend' } });
    expect(judge(ambiguous('no-ack'), start)).toMatchObject({ kind: 'retry' });
  });

  it('doubles the backoff with every attempt and adds at most a fifth', () => {
    const delays = [1, 2, 3].map((attempt) =>
      judge(ambiguous('no-ack'), circumstances({ attempt, random: 0 })),
    );
    expect(delays).toMatchObject([{ delayMs: 3_000 }, { delayMs: 6_000 }, { delayMs: 12_000 }]);
    const jittered = judge(ambiguous('no-ack'), circumstances({ random: 0.999_999 }));
    expect(jittered).toMatchObject({ delayMs: 3_600 });
  });

  it('is unknown when the attempts are used up', () => {
    expect(judge(ambiguous('no-ack'), circumstances({ attempt: 4 }))).toMatchObject({
      status: 'unknown',
    });
  });

  it('is unknown when the backoff would pass the deadline', () => {
    const soon = circumstances({ command: { deadline: now + 3_000 } });
    expect(judge(ambiguous('no-ack'), soon)).toMatchObject({ status: 'unknown' });
  });
});

describe('the count of timeouts', () => {
  it.each(ambiguousReasons)(
    'holds %s only if the device did not answer in time',
    async (reason) => {
      const metrics = createMetrics('worker');
      const settle = createSettle({
        bridge: { settled: () => undefined, remember: () => undefined },
        routes: {
          release: async () => [],
          revocation: async () => null,
          keepUnanswered: async () => null,
          forgetUnanswered: async () => undefined,
        },
        recorder: {
          record: async () => undefined,
          recordLater: () => undefined,
          notifyWaiter: () => undefined,
          untilDone: (step) => step(),
        },
        parking: { park: async () => undefined } as never,
        metrics,
        now: () => now,
      });
      const { command, spec } = circumstances();
      const run = { job: { attemptsStarted: 1 }, base: { version: 0 }, command, spec, attempt: 1 };
      await expect(settle(run as Run, ambiguous(reason))).rejects.toThrow();
      const text = await metrics.registry.metrics();
      expect(text).toContain(`outbound_timeout_total ${reason === 'no-ack' ? 1 : 0}\n`);
      expect(text).toContain(`outbound_errors_total{type="${reason}"} 1\n`);
    },
  );
});
