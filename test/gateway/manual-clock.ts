import type { Clock } from '../../src/gateway/clock.ts';
import { createTimerWheel, type TimerWheel } from '../../src/gateway/timer-wheel.ts';

export type ManualClock = Clock & {
  wheel: TimerWheel;
  /** Lets time pass, millisecond by millisecond, with everything that falls due on the way. */
  pass(ms: number): void;
};

const WALL_START = 1_700_000_000_000;

/** Time that moves only when told to. */
export function createManualClock(): ManualClock {
  let elapsed = 0;
  const calls = new Set<{ at: number; call: () => void }>();
  const clock: Clock = {
    now: () => WALL_START + elapsed,
    ticks: () => elapsed,
    after(delayMs, call) {
      const due = { at: elapsed + delayMs, call };
      calls.add(due);
      return () => void calls.delete(due);
    },
  };
  const wheel = createTimerWheel({
    clock,
    onError(error) {
      throw error;
    },
  });
  return {
    ...clock,
    wheel,
    pass(ms) {
      for (let i = 0; i < ms; i += 1) {
        elapsed += 1;
        for (const due of calls) {
          if (due.at > elapsed) continue;
          calls.delete(due);
          due.call();
        }
        wheel.advance();
      }
    },
  };
}
