/** One delivery on its way through a lane, and how urgent it is there. */
import type { Delivery } from '../bridge/messages.ts';
import type { UnwrittenReason } from '../outcome.ts';
import type { CommandSpec } from '../protocols/protocol.ts';

export type LaneEntry = {
  readonly delivery: Delivery;
  readonly spec: CommandSpec;
  readonly frame: Uint8Array;
  /** By the monotonic clock. */
  readonly arrivedAt: number;
  /** Where it waits or is in flight; null before and after. */
  lane: Holder | null;
  /** Unix milliseconds. */
  writtenAt: number | null;
  /** By the monotonic clock. */
  ackDueAt: number;
};

/** The lane, as far as an entry's finder may ask of it. */
type Holder = {
  withdraw(entry: LaneEntry): boolean;
  sendBack(reason: UnwrittenReason): void;
};

/** Above every priority: a stop waits only for the gap. */
const stopRank = 10;

export function isStop({ spec }: LaneEntry): boolean {
  return spec.preempts === true;
}

/** The greater goes first. */
export function rankOf(entry: LaneEntry): number {
  return isStop(entry) ? stopRank : entry.delivery.priority;
}
