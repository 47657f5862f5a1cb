/** Lets connections with more to be read take turns: a flood on many of them holds up nobody else for long. */

/** What is called when its turn has come; it may queue again. */
export type TurnTarget = { onTurn(): void };

export type Turns = {
  /** Once for each turn. */
  add(target: TurnTarget): void;
  stop(): void;
};

/** Between two looks at the sockets: what a frame of a device that behaves waits for at most. */
const BUDGET_MS = 2;

export function createTurns({ budgetMs = BUDGET_MS }: { budgetMs?: number } = {}): Turns {
  let waiting: TurnTarget[] = [];
  let next = 0;
  let scheduled: NodeJS.Immediate | undefined;

  function run(): void {
    scheduled = undefined;
    const until = performance.now() + budgetMs;
    while (next < waiting.length && performance.now() < until) {
      const target = waiting[next]!;
      next += 1;
      target.onTurn();
    }
    if (next === waiting.length) {
      waiting = [];
      next = 0;
      return;
    }
    if (next > 1_024) {
      waiting = waiting.slice(next);
      next = 0;
    }
    // After the sockets were looked at.
    scheduled ??= setImmediate(run);
  }

  return {
    add(target) {
      waiting.push(target);
      scheduled ??= setImmediate(run);
    },
    stop() {
      waiting = [];
      next = 0;
      if (scheduled) clearImmediate(scheduled);
      scheduled = undefined;
    },
  };
}
