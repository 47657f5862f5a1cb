/** One timer for a whole fleet: ten thousand idle devices cost one tick, not ten thousand timers. */

/** Something that is due at a moment. One object may be on the wheel once at a time. */
export type Due = { dueTick: number; run(): void };

export type Wheel = {
  /** Runs `due` after at least `delayMs`, to the tick. */
  add(due: Due, delayMs: number): void;
  /** The same for a plain function. */
  after(delayMs: number, run: () => void): void;
  /** Called at every tick. */
  onTick(run: () => void): void;
  start(): void;
  stop(): void;
};

export type WheelOptions = { tickMs?: number; slots?: number; clock?: () => number };

/** A hashed wheel; what is due further ahead than one turn stays in its slot until its turn comes. */
export function createWheel({
  tickMs = 20,
  slots = 1024,
  clock = () => performance.now(),
}: WheelOptions = {}): Wheel {
  const wheel: Due[][] = Array.from({ length: slots }, () => []);
  const everyTick: (() => void)[] = [];
  let tick = 0;
  let startedAt = clock();
  let timer: NodeJS.Timeout | null = null;

  const add = (due: Due, delayMs: number) => {
    const now = Math.max(tick, Math.floor((clock() - startedAt) / tickMs));
    due.dueTick = now + Math.max(1, Math.ceil(delayMs / tickMs));
    wheel[due.dueTick % slots]!.push(due);
  };

  const turn = () => {
    const target = Math.floor((clock() - startedAt) / tickMs);
    // a process that stood still for long does not walk the same slots again and again
    if (target - tick > slots) tick = target - slots;
    while (tick < target) {
      tick += 1;
      const slot = wheel[tick % slots]!;
      if (slot.length === 0) continue;
      const rest: Due[] = [];
      wheel[tick % slots] = rest;
      for (const due of slot) {
        if (due.dueTick <= tick) due.run();
        else rest.push(due);
      }
    }
    for (const run of everyTick) run();
  };

  return {
    add,
    after: (delayMs, run) => add({ dueTick: 0, run }, delayMs),
    onTick: (run) => {
      everyTick.push(run);
    },
    start() {
      if (timer) return;
      startedAt = clock() - tick * tickMs;
      timer = setInterval(turn, tickMs);
    },
    stop() {
      if (timer) clearInterval(timer);
      timer = null;
      for (let i = 0; i < slots; i += 1) wheel[i] = [];
    },
  };
}
