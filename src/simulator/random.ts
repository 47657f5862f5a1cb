/** Chance that can be repeated: the same seed gives the same numbers. */
export type Random = {
  /** A number in [0, 1). */
  next(): number;
  /** A whole number in [from, to]. */
  whole(from: number, to: number): number;
  /** True with this probability; draws nothing for 0 and 1. */
  chance(probability: number): boolean;
};

/** A stream of its own for each name under one seed, so that devices do not disturb each other. */
export function createRandom(seed: number, name = ''): Random {
  let state = seed >>> 0;
  for (let i = 0; i < name.length; i += 1) {
    state = Math.imul(state ^ name.charCodeAt(i), 0x01000193) >>> 0;
  }
  // mulberry32: 32 bits of state are plenty for dice
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  };
  return {
    next,
    whole: (from, to) => from + Math.floor(next() * (to - from + 1)),
    chance: (probability) => probability >= 1 || (probability > 0 && next() < probability),
  };
}
