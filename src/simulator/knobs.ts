/** How well or badly a simulated device behaves. Probabilities are 0–1, times milliseconds. */
import type { Random } from './random.ts';

/** One value, or a range from which each use draws. */
export type Range = number | readonly [number, number];

export type Knobs = {
  /** From the frame's arrival to the answer. */
  ackDelayMs: Range;
  /** A command gets no answer: half of these never reached the device's logic, half lost their answer. */
  loss: number;
  /** A command is answered with no, where its protocol has a way to say so. */
  refusal: number;
  /** A command makes the device drop the connection: half before, half after its answer. */
  disconnect: number;
  /** Noise bytes stand before and after a frame. */
  garbage: number;
  /** An answer comes after `lateMs` instead of `ackDelayMs`. */
  late: number;
  lateMs: Range;
  /** From a lost connection to the next try. */
  reconnectMs: Range;
  /** null: the interval of the protocol. */
  heartbeatMs: number | null;
  /** A login is repeated after this, until it is answered. */
  loginRepeatMs: number;
  /**
   * After a login it reports its state: BKV every socket that was spoken of, or socket 1 while none was;
   * AP3000 every port that charges.
   */
  stateAtLogin: boolean;
  /** What an AP3000 says to a start that it has obeyed under the same message id: the same once more, or 2. */
  repeatedStart: 'same-answer' | 'same-state';
  /** Port reports of a charging port; null: the interval of the protocol (5 min). */
  reportMs: number | null;
  /** A charge ends by itself after this; null: after the time that was ordered. */
  chargeMs: Range | null;
  /** From the end of a charge to its report. */
  settlementMs: number;
  /** The report is repeated after this until it is answered; null: BKV 10 s, AP3000 30 min. */
  settlementRepeatMs: number | null;
};

export const calmKnobs: Knobs = {
  ackDelayMs: 0,
  loss: 0,
  refusal: 0,
  disconnect: 0,
  garbage: 0,
  late: 0,
  lateMs: [16_000, 20_000],
  reconnectMs: [500, 2000],
  heartbeatMs: null,
  loginRepeatMs: 20_000,
  stateAtLogin: false,
  repeatedStart: 'same-answer',
  reportMs: null,
  chargeMs: null,
  settlementMs: 2000,
  settlementRepeatMs: null,
};

/** A value of the range. */
export function draw(range: Range, random: Random): number {
  if (typeof range === 'number') return range;
  const [from, to] = range;
  return from === to ? from : random.whole(from, to);
}
