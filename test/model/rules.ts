/** What must hold in every story. Each rule returns the sentences that say where it does not. */
import { honestEnd, oneEnd, promptly } from './ends.ts';
import { cancelled, keys, refusals } from './requests.ts';
import type { Rule } from './rule.ts';
import { inFlight, inOrder, inTime, inTrail, paused, stopped } from './writes.ts';

export const rules: Readonly<Record<string, Rule>> = {
  oneEnd,
  honestEnd,
  inFlight,
  inOrder,
  stopped,
  inTime,
  promptly,
  cancelled,
  inTrail,
  refusals,
  keys,
  paused,
};
