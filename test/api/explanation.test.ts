import { describe, expect, it } from 'vitest';
import {
  becauses,
  explain,
  type Facts,
  type Other,
  type Whereabouts,
} from '../../src/api/explanation.ts';
import { attemptOf, newRecord } from '../store/records.ts';

const now = Date.parse('2030-01-31T08:00:00Z');
const later = (seconds: number) => now + seconds * 1_000;

/** Connected, with everything alive, waiting in the queue: nothing hinders it. */
const well: Whereabouts = {
  revocation: null,
  withGateway: null,
  written: false,
  gateway: { gatewayId: 'gw-1', draining: false },
  liveGateways: 1,
  liveWorkers: 1,
  queuePaused: false,
  ahead: [],
  underWay: [],
  parked: null,
  job: { state: 'prioritized', dueAt: null },
  waiting: 8,
};

const record = newRecord({
  acceptedAt: now - 5_000,
  notBefore: now - 5_000,
  deadline: later(55),
  status: 'queued',
});
const other: Other = { id: 'other', command: 'charge.stop', answerDueAt: later(4) };
const written = { '1': attemptOf(1, { writtenAt: now - 3_000 }) };

type Given = Partial<Omit<Facts, 'whereabouts' | 'record'>> & {
  record?: Partial<Facts['record']>;
  whereabouts?: Partial<Whereabouts> | null;
};

function factsOf({ record: wanted, whereabouts, ...given }: Given): Facts {
  return {
    now,
    source: 'ledger',
    pause: null,
    lastSeenAt: null,
    record: { ...record, ...wanted },
    whereabouts: whereabouts === null ? null : { ...well, ...whereabouts },
    ...given,
  };
}

const device = record.deviceId;

const cases: [string, Given, (typeof becauses)[number], string][] = [
  [
    'scheduled',
    { record: { status: 'scheduled', notBefore: later(90) } },
    'scheduled',
    'it is scheduled until 2030-01-31T08:01:30.000Z, in 90 s',
  ],
  [
    'offline',
    {
      record: { status: 'parked' },
      whereabouts: { gateway: null, parked: 'waiting' },
      lastSeenAt: now - 60_000,
    },
    'offline',
    `device ${device} is not connected: it was last seen at 2030-01-31T07:59:00.000Z`,
  ],
  [
    'never seen',
    { whereabouts: { gateway: null } },
    'offline',
    `device ${device} is not connected: it was never seen`,
  ],
  [
    'behind one whose answer is due',
    { record: { status: 'parked' }, whereabouts: { ahead: [other], parked: 'blocked' } },
    'behind',
    'an older command of its order key port:1:0 is unfinished: command other (charge.stop), whose answer is due in 4 s',
  ],
  [
    'behind several of which nothing more is known',
    {
      whereabouts: {
        ahead: [
          { id: 'a', command: null, answerDueAt: null },
          { id: 'b', command: null, answerDueAt: null },
        ],
      },
    },
    'behind',
    '2 older commands of its order key port:1:0 are unfinished, first of all command a',
  ],
  [
    'behind one that is overdue',
    { whereabouts: { ahead: [{ ...other, answerDueAt: now }] } },
    'behind',
    'an older command of its order key port:1:0 is unfinished: command other (charge.stop), whose answer is overdue, and about to be judged',
  ],
  [
    'in the lane behind another',
    {
      whereabouts: {
        withGateway: { gatewayId: 'gw-1', attempt: 1 },
        underWay: [{ id: 'far', command: null, answerDueAt: null }, other],
        job: { state: 'active', dueAt: null },
      },
    },
    'in-lane',
    "attempt 1 of 4 waits in the device's lane at gateway gw-1, behind command other (charge.stop), whose answer is due in 4 s",
  ],
  [
    'handed to the gateway',
    { whereabouts: { withGateway: { gatewayId: 'gw-1', attempt: 1 } } },
    'in-lane',
    'attempt 1 of 4 was handed to gateway gw-1 and is about to be written',
  ],
  [
    'sent',
    {
      record: { status: 'sent', trail: written },
      whereabouts: { withGateway: { gatewayId: 'gw-1', attempt: 1 }, underWay: [other] },
    },
    'sent',
    "attempt 1 of 4 was written by gateway gw-1: the device's answer is due in 7 s",
  ],
  [
    'in backoff',
    {
      record: { trail: written, reason: 'the device did not answer in time; attempt 2 follows' },
      whereabouts: { written: true, job: { state: 'delayed', dueAt: later(3) } },
    },
    'backoff',
    'it pauses after attempt 1 of 4 ("the device did not answer in time; attempt 2 follows"): the next follows at 2030-01-31T08:00:03.000Z',
  ],
  [
    'lane full',
    { record: { status: 'parked' }, whereabouts: { parked: 'waiting', underWay: [other, other] } },
    'lane-full',
    "2 other commands are in the device's lane, which takes no more: first of all command other (charge.stop), whose answer is due in 4 s",
  ],
  [
    'parked for a reason that only the ledger knows',
    {
      record: { status: 'parked', reason: 'the gateway of this device is shutting down' },
      whereabouts: { parked: 'waiting', job: { state: 'delayed', dueAt: later(60) } },
    },
    'parked',
    'it is parked, and goes as soon as it can: the gateway of this device is shutting down',
  ],
  [
    'at a gateway that is shutting down',
    { whereabouts: { parked: 'waiting', gateway: { gatewayId: 'gw-1', draining: true } } },
    'parked',
    'it is parked, and goes as soon as it can: gateway gw-1 is shutting down',
  ],
  [
    'device paused',
    { pause: { since: now - 60_000, by: 'ada', reason: 'electrician on site' } },
    'device-paused',
    `device ${device} is paused by ada since 2030-01-31T07:59:00.000Z (electrician on site)`,
  ],
  [
    'device paused, while the ledger cannot tell by whom',
    { pause: { since: now - 60_000, by: null, reason: null } },
    'device-paused',
    `device ${device} is paused since 2030-01-31T07:59:00.000Z`,
  ],
  [
    'queue paused',
    { whereabouts: { queuePaused: true } },
    'queue-paused',
    'the whole queue is paused: POST /v1/queue/resume lets it go on',
  ],
  [
    'no gateway',
    { whereabouts: { gateway: null, liveGateways: 0 } },
    'no-gateway',
    'no gateway is alive, so that no device is connected',
  ],
  [
    'no worker',
    { whereabouts: { liveWorkers: 0 } },
    'no-worker',
    'no worker is alive to send it: start one',
  ],
  [
    'queued',
    {},
    'queued',
    'it waits for a worker, with at most 7 other commands in the queue before it',
  ],
  [
    'woken',
    { whereabouts: { parked: 'woken', waiting: 2 } },
    'queued',
    'it waits for a worker, with at most 1 other command in the queue before it',
  ],
  [
    'in a worker’s hand',
    { whereabouts: { job: { state: 'active', dueAt: null } } },
    'in-hand',
    'a worker has it in hand and is about to send it',
  ],
  [
    'not in the queue',
    { whereabouts: { job: null } },
    'not-queued',
    'it stands in the ledger only: a worker puts it into the queue within moments',
  ],
  [
    'ended in the queue, but not yet in the ledger',
    { whereabouts: { job: { state: 'failed', dueAt: null } } },
    'ending',
    'it has ended, and its end is on its way to the ledger',
  ],
  [
    'past its time to live',
    { record: { deadline: now - 1 } },
    'overdue',
    'its time to live ended at 2030-01-31T07:59:59.999Z: it is about to end',
  ],
  [
    'superseded, unwritten',
    { whereabouts: { revocation: { kind: 'superseded', by: 'newer' } } },
    'revoked',
    'command newer replaced it: it is about to end as superseded',
  ],
  [
    'cancelled after the write',
    {
      record: { status: 'sent' },
      whereabouts: { revocation: { kind: 'cancelled', by: 'app' }, written: true },
    },
    'revoked',
    'app cancelled it: it may have been written, so that it ends as unknown unless the device answers',
  ],
  [
    'Redis away',
    {
      record: { status: 'parked', reason: 'the device is not connected' },
      whereabouts: null,
    },
    'queue-store-away',
    'Redis does not answer, so that nothing is sent and nobody can tell where it stands; the ledger last saw it parked (the device is not connected)',
  ],
  [
    'ledger away',
    { source: 'queue', whereabouts: { gateway: null } },
    'offline',
    `device ${device} is not connected: it was never seen; the ledger shows nothing of its attempts at the moment`,
  ],
  [
    'succeeded',
    { record: { status: 'succeeded', settledAt: now }, whereabouts: null },
    'ended',
    'it ended as succeeded at 2030-01-31T08:00:00.000Z: the device acknowledged it',
  ],
  [
    'succeeded late',
    { record: { status: 'succeeded', late: true, settledAt: now } },
    'ended',
    'it ended as succeeded at 2030-01-31T08:00:00.000Z: the device acknowledged it late',
  ],
  [
    'succeeded, as a probe showed',
    { record: { status: 'succeeded', inferred: true, settledAt: now } },
    'ended',
    'it ended as succeeded at 2030-01-31T08:00:00.000Z: a probe showed that it took effect',
  ],
  [
    'rejected',
    { record: { status: 'rejected', code: '03', reason: 'port faulty', settledAt: now } },
    'ended',
    'it ended as rejected at 2030-01-31T08:00:00.000Z: the device refused it with 03: port faulty',
  ],
  [
    'expired',
    { record: { status: 'expired', reason: 'its time was up', settledAt: now } },
    'ended',
    'it ended as expired at 2030-01-31T08:00:00.000Z: its time was up',
  ],
  [
    'unknown',
    { record: { status: 'unknown', reason: 'the device did not answer', settledAt: now } },
    'ended',
    'it ended as unknown at 2030-01-31T08:00:00.000Z: the device did not answer; it may have reached the device',
  ],
];

const givenOf = (name: string) => cases.find(([title]) => title === name)![1];

describe('the sentence of a command that is', () => {
  it.each(cases)('%s', (_, given, because, sentence) => {
    const explained = explain(factsOf(given));
    expect(explained.sentence).toBe(sentence);
    expect(explained.because).toBe(because);
    expect(explained.also).toEqual([]);
  });

  it('something, is told for every reason there is', () => {
    expect(new Set(cases.map(([, , because]) => because))).toEqual(new Set(becauses));
  });
});

describe('several obstacles', () => {
  it('are told by the first, and the others are named', () => {
    const explained = explain(
      factsOf({
        pause: { since: now, by: 'ada', reason: null },
        whereabouts: { queuePaused: true, gateway: null, ahead: [other], liveWorkers: 0 },
      }),
    );
    expect(explained.because).toBe('device-paused');
    expect(explained.also).toEqual(['queue-paused', 'no-worker', 'offline', 'behind']);
  });

  it('do not matter to what is over, revoked or with a gateway already', () => {
    const everything = { queuePaused: true, gateway: null, liveWorkers: 0 };
    for (const whereabouts of [
      { revocation: { kind: 'cancelled' as const, by: 'app' } },
      { withGateway: { gatewayId: 'gw-1', attempt: 1 } },
    ]) {
      expect(explain(factsOf({ whereabouts: { ...everything, ...whereabouts } })).also).toEqual([]);
    }
  });
});

describe('the fields', () => {
  it.each([
    [givenOf('scheduled'), { notBefore: '2030-01-31T08:01:30.000Z' }],
    [
      givenOf('behind one whose answer is due'),
      {
        orderKey: 'port:1:0',
        ahead: 1,
        behind: { id: 'other', command: 'charge.stop', answerDueAt: '2030-01-31T08:00:04.000Z' },
      },
    ],
    [givenOf('sent'), { gatewayId: 'gw-1', attempt: 1, answerDueAt: '2030-01-31T08:00:07.000Z' }],
    [givenOf('in backoff'), { attempt: 1, nextAttemptAt: '2030-01-31T08:00:03.000Z' }],
  ])('say the same to a program: %#', (given, fields) => {
    expect(explain(factsOf(given)).fields).toEqual(fields);
  });
});
