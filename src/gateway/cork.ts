/** Frames that one event-loop turn writes to one socket leave it together. */
export type Corked = { uncork(): void };

export type Cork = {
  /** Remembers what was corked; it is uncorked at the end of the turn. */
  add(corked: Corked): void;
};

export function createCork(): Cork {
  let turn: Corked[] = [];

  function uncorkAll(): void {
    const corked = turn;
    turn = [];
    for (const each of corked) each.uncork();
  }

  return {
    add(corked) {
      if (turn.push(corked) === 1) process.nextTick(uncorkAll);
    },
  };
}
