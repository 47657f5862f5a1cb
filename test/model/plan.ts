/** Random sequences: what is asked, what the devices do, and when processes die. */
import fc from 'fast-check';
import type { Fate } from './device.ts';
import type { Wish } from './wishes.ts';

/** Of the two devices of a sequence: 0 speaks BKV, 1 AP3000. */
export type DeviceIndex = 0 | 1;

export type Options = {
  priority?: number;
  ttlMs: number;
  ackTimeoutMs: number;
  attempts?: number;
  backoffMs: number;
  delayMs?: number;
  onAmbiguous?: 'resend' | 'probe' | 'stop';
  /** Only for what the protocol leaves without a line. */
  ownLine?: true;
};

export type Send = { device: DeviceIndex; wish: Wish; options: Options; keyed: boolean };

export type Step =
  | ({ do: 'send' } & Send)
  /** At once, so that nobody knows which comes first. */
  | { do: 'burst'; sends: readonly Send[] }
  /** The last POST with a key again, with its body or another one. */
  | { do: 'again'; other: boolean }
  /** Of the commands so far, the newest is 0. */
  | { do: 'cancel'; back: number }
  | { do: 'connect'; device: DeviceIndex }
  | { do: 'leave'; device: DeviceIndex; how: 'device' | 'reset' }
  | { do: 'meet'; device: DeviceIndex; fates: readonly Fate[] }
  | { do: 'finish'; device: DeviceIndex }
  | { do: 'pause'; device: DeviceIndex }
  | { do: 'resume'; device: DeviceIndex }
  | { do: 'wait'; ms: number };

export type Plan = { repeats: 'same' | 'state'; steps: readonly Step[] };

export type PlannedOutage = {
  role: 'gateway' | 'worker';
  signal: 'SIGKILL' | 'SIGTERM';
  /** From the start of the batch, or the end of the outage before. */
  afterMs: number;
  /** Until it is started again. */
  downMs: number;
};

/** Sequences that run side by side, each with devices of its own; processes die under all of them. */
export type Batch = { plans: readonly Plan[]; outages: readonly PlannedOutage[] };

const device = fc.oneof(
  { weight: 3, arbitrary: fc.constant<DeviceIndex>(0) },
  { weight: 2, arbitrary: fc.constant<DeviceIndex>(1) },
);
const port = fc.oneof(
  { weight: 4, arbitrary: fc.constant<0 | 1>(0) },
  { weight: 1, arbitrary: fc.constant<0 | 1>(1) },
);

const wish: fc.Arbitrary<Wish> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ what: fc.constant('start' as const), port }) },
  { weight: 4, arbitrary: fc.record({ what: fc.constant('stop' as const), port }) },
  { weight: 4, arbitrary: fc.record({ what: fc.constant('set' as const), both: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ what: fc.constant('modify' as const), port }) },
  { weight: 2, arbitrary: fc.constant<Wish>({ what: 'query' }) },
  { weight: 2, arbitrary: fc.constant<Wish>({ what: 'read' }) },
);

/** A value now and then; the default of the product otherwise. */
function sometimes<T>(value: fc.Arbitrary<T>, weight = 1): fc.Arbitrary<T | undefined> {
  return fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight, arbitrary: value });
}

const options: fc.Arbitrary<Options> = fc
  .record({
    priority: sometimes(fc.integer({ min: 0, max: 9 })),
    ttlMs: fc.constantFrom(6_000, 1_000, 1_500, 2_500, 4_000, 6_000),
    ackTimeoutMs: fc.constantFrom(300, 100, 150, 600),
    attempts: sometimes(fc.integer({ min: 1, max: 4 }), 2),
    backoffMs: fc.constantFrom(0, 50, 200, 500),
    delayMs: sometimes(fc.constantFrom(150, 500, 1_200)),
    onAmbiguous: sometimes(fc.constantFrom('resend' as const, 'probe' as const, 'stop' as const)),
    ownLine: sometimes(fc.constant(true as const)),
  })
  .map((given) => withoutUndefined(given) as Options);

const send: fc.Arbitrary<Send> = fc.record({
  device,
  wish,
  options,
  keyed: fc.integer({ min: 0, max: 3 }).map((n) => n === 3),
});

const yes: Fate = {
  heard: true,
  answers: true,
  refuses: false,
  delayMs: 0,
  drops: 'no',
  backMs: 0,
};
const backMs = fc.constantFrom(20, 150, 600);
const fate: fc.Arbitrary<Fate> = fc.oneof(
  { weight: 4, arbitrary: fc.constant(yes) },
  { weight: 3, arbitrary: fc.constant({ ...yes, refuses: true }) },
  // it never got through
  { weight: 3, arbitrary: fc.constant({ ...yes, heard: false, answers: false }) },
  // it was obeyed, and the answer was lost
  { weight: 3, arbitrary: fc.constant({ ...yes, answers: false }) },
  {
    weight: 5,
    arbitrary: fc.constantFrom(60, 250, 500, 900, 1_800).map((delayMs) => ({ ...yes, delayMs })),
  },
  {
    weight: 2,
    arbitrary: backMs.map((ms) => ({
      ...yes,
      heard: false,
      answers: false,
      drops: 'before' as const,
      backMs: ms,
    })),
  },
  { weight: 1, arbitrary: backMs.map((ms) => ({ ...yes, drops: 'after' as const, backMs: ms })) },
  {
    weight: 1,
    arbitrary: backMs.map((ms) => ({
      ...yes,
      answers: false,
      drops: 'after' as const,
      backMs: ms,
    })),
  },
);

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 30,
    arbitrary: send.map((one) => ({ do: 'send' as const, ...one })),
  },
  {
    weight: 3,
    arbitrary: fc
      .array(send, { minLength: 2, maxLength: 4 })
      .map((sends) => ({ do: 'burst' as const, sends })),
  },
  {
    weight: 2,
    arbitrary: fc
      .integer({ min: 0, max: 3 })
      .map((n) => ({ do: 'again' as const, other: n === 3 })),
  },
  {
    weight: 7,
    arbitrary: fc.integer({ min: 0, max: 5 }).map((back) => ({ do: 'cancel' as const, back })),
  },
  { weight: 7, arbitrary: fc.record({ do: fc.constant('connect' as const), device }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('leave' as const),
      device,
      how: fc.constantFrom('device' as const, 'reset' as const),
    }),
  },
  {
    weight: 14,
    arbitrary: fc.record({
      do: fc.constant('meet' as const),
      device,
      fates: fc.array(fate, { minLength: 1, maxLength: 4 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('finish' as const), device }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('pause' as const), device }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('resume' as const), device }) },
  {
    weight: 14,
    arbitrary: fc.constantFrom(10, 40, 120, 300, 700).map((ms) => ({ do: 'wait' as const, ms })),
  },
);

export const plan: fc.Arbitrary<Plan> = fc.record({
  repeats: fc.constantFrom('same' as const, 'state' as const),
  steps: fc.array(step, { minLength: 30, maxLength: 45, size: 'max' }),
});

const outage: fc.Arbitrary<PlannedOutage> = fc.record({
  role: fc.constantFrom('gateway' as const, 'worker' as const),
  signal: fc.constantFrom('SIGKILL' as const, 'SIGTERM' as const),
  afterMs: fc.integer({ min: 100, max: 2_500 }),
  downMs: fc.constantFrom(0, 100, 400),
});

export function batchOf(sequences: number): fc.Arbitrary<Batch> {
  return fc.record({
    plans: fc.array(plan, { minLength: sequences, maxLength: sequences, size: 'max' }),
    outages: fc.array(outage, { maxLength: 3, size: 'max' }),
  });
}

function withoutUndefined(record: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined));
}
