/**
 * The status byte of a hole, BKV V1.7 §"status report". This is the one place that reads its
 * bits.
 *
 * Doubts: the vendor lists seven names for eight bits, so the table is the reading that fits its
 * one commented example (0x98 = online, metering normal, charging, no load) and what devices were
 * seen to send: 0x80 idle, 0x90 charging, 0xB0 at the normal end of a timed charge. Bit 5 was
 * only ever seen with bit 4, and may be the metering fault in place of bit 6. Raw values are
 * therefore always kept beside what is read here.
 */
import type { EndReason, PortState } from '../sighting.ts';

export const holeStatusBits = [
  { bit: 7, flag: 'online' },
  { bit: 6, flag: 'meteringFault' },
  { bit: 5, flag: 'quotaReached' },
  { bit: 4, flag: 'charging' },
  { bit: 3, flag: 'noLoad' },
  { bit: 2, flag: 'temperatureAbnormal' },
  { bit: 1, flag: 'currentAbnormal' },
  { bit: 0, flag: 'powerAbnormal' },
] as const;

/** Online, and nothing else. */
export const idleStatus = 0x80;

export type HoleFlag = (typeof holeStatusBits)[number]['flag'];

/** The flags that are set in a hole's status byte. */
export function holeFlags(status: number): HoleFlag[] {
  return holeStatusBits.filter(({ bit }) => (status >> bit) & 1).map(({ flag }) => flag);
}

/** A port with one of these is not fit to charge, whatever else it says. */
const faults: ReadonlySet<HoleFlag> = new Set([
  'meteringFault',
  'temperatureAbnormal',
  'currentAbnormal',
  'powerAbnormal',
]);

/** The state of a hole. Whether something is plugged in, BKV does not tell while nothing charges. */
export function holePortState(status: number): PortState {
  const flags = holeFlags(status);
  if (!flags.includes('online')) return 'unknown';
  if (flags.some((flag) => faults.has(flag))) return 'fault';
  return flags.includes('charging') ? 'charging' : 'idle';
}

/**
 * Why a charge ended, from the status in the report of its end: the first that applies. What was
 * only inferred of the bits comes after what the vendor explains.
 */
const endings: readonly (readonly [HoleFlag, EndReason])[] = [
  ['temperatureAbnormal', 'fault-temperature'],
  ['currentAbnormal', 'fault-current'],
  ['powerAbnormal', 'overload'],
  ['noLoad', 'no-load'],
  ['quotaReached', 'quota-up'],
  ['meteringFault', 'fault-metering'],
];

/** The reason for the end of a charge; `other` where no bit gives one. */
export function endReasonOf(status: number): EndReason {
  const flags = holeFlags(status);
  return endings.find(([flag]) => flags.includes(flag))?.[1] ?? 'other';
}
