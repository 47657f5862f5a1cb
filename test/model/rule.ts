/** What all rules share: names, and how far clocks and arrivals may lie apart. */
import type { Case, Problem, View } from './case.ts';
import { short } from './story.ts';

export type Rule = (view: View) => Problem[];

/** How much later than its write a frame may have been noticed here. */
export function lagOf({ story }: View): number {
  return transportMs + story.stallMs;
}

export function named({ asked }: Case): string {
  return `${short(asked.id ?? '')} [${asked.orders}]`;
}

export function problem(rule: string, one: Case, text: string): Problem {
  return { rule, deviceId: one.asked.deviceId, text: `${named(one)} ${text}` };
}

export const finals = new Set([
  'succeeded',
  'rejected',
  'unacknowledged',
  'expired',
  'cancelled',
  'superseded',
  'failed',
  'unknown',
]);

export const neverWritten = new Set(['expired', 'cancelled', 'superseded', 'failed']);

/** From a receipt's clock to a row's, on one machine. */
export const clockMs = 5;

/** From a write to its arrival at a device that is awake. */
export const transportMs = 150;
