/**
 * Makes a failing sequence short. Candidates are independent of one another, so that a whole round of them
 * runs side by side as one batch; what a round costs does not depend on how many there are.
 */
import type { Plan } from './plan.ts';

/** Plays the candidates, each several times if it likes, and says which of them fail. */
export type Fails = (candidates: readonly Plan[]) => Promise<boolean[]>;

export type Reduction = { plan: Plan; rounds: number };

export async function reduce(plan: Plan, fails: Fails, maxRounds: number): Promise<Reduction> {
  let best = plan;
  let parts = 2;
  let rounds = 0;
  while (rounds < maxRounds && best.steps.length > 1) {
    rounds += 1;
    const candidates = withoutParts(best, parts);
    const failing = await fails(candidates);
    const shorter = candidates.filter((_, i) => failing[i]);
    if (shorter.length > 0) {
      best = shorter.reduce((a, b) => (b.steps.length < a.steps.length ? b : a));
      parts = Math.max(2, parts - 1);
    } else if (parts >= best.steps.length) break;
    else parts = Math.min(best.steps.length, parts * 2);
  }
  return { plan: best, rounds };
}

/** The plan without each of its parts, and, where there are more than two, each part alone. */
function withoutParts(plan: Plan, parts: number): Plan[] {
  const { steps } = plan;
  const size = Math.ceil(steps.length / parts);
  const cuts = Array.from({ length: Math.ceil(steps.length / size) }, (_, i) => i * size);
  return cuts.map((from) => ({
    ...plan,
    steps: steps.filter((_, i) => i < from || i >= from + size),
  }));
}
