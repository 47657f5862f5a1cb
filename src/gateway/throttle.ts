/** Keeps a log line that a broken store or a hostile peer would repeat thousands of times to one in a while. */
import type { Clock } from './clock.ts';

export type Throttle = (say: (times: number) => void) => void;

const EVERY_MS = 10_000;

/** Says it at once, then at most once per interval, with the number of times it was due since. */
export function createThrottle(clock: Clock, everyMs = EVERY_MS): Throttle {
  let quietUntil = Number.NEGATIVE_INFINITY;
  let times = 0;
  return (say) => {
    times += 1;
    const now = clock.ticks();
    if (now < quietUntil) return;
    quietUntil = now + everyMs;
    const said = times;
    times = 0;
    say(said);
  };
}
