/** The circuit breaker around the handling of connections. It counts our own failures, never a peer's garbage. */
import type { Clock } from '../clock.ts';

export type BreakerState = 'closed' | 'open' | 'half-open';

/** The number of each state in the metrics. */
export const breakerStateCode = { closed: 0, open: 1, 'half-open': 2 } as const satisfies Record<
  BreakerState,
  number
>;

export type BreakerChange = {
  from: BreakerState;
  to: BreakerState;
  /** What had been counted when it changed. */
  failures: number;
  /** Unix milliseconds. */
  at: number;
};

/** An admitted connection. It reports once; what it says later, or after a change of state, does not count. */
export type Trial = {
  /** A login was answered. */
  succeeded(): void;
  /** We failed while handling it. */
  failed(): void;
  /** Neither: its peer went away, or sent garbage. */
  abandoned(): void;
};

export type Breaker = {
  /** Null while it refuses. */
  admit(): Trial | null;
  /** Stops its timer; an open one then opens half with the next connection that is due. */
  close(): void;
  readonly state: BreakerState;
  /** Failures that count in this state; while open, those that opened it. */
  readonly failures: number;
  /** How often it has opened. */
  readonly trips: number;
  /** A connection that had its success failed after all. Says nothing about the trials of a half-open breaker. */
  failed(): void;
};

export type BreakerDeps = {
  /** Failures, less the successes since, that open it. */
  threshold: number;
  /** How long it refuses, and how long a trial may keep its slot without a word. */
  timeoutMs: number;
  /** Trials at a time, those that succeeded included. */
  halfOpenMax: number;
  clock: Clock;
  onChange: (change: BreakerChange) => void;
};

type Report = 'success' | 'failure' | 'nothing';

/** Shared by all trials between two changes of state; theirs count for as long as it is the current one. */
type Generation = { report(trial: TrialConnection, report: Report): void };

class TrialConnection implements Trial {
  #generation: Generation | null;
  readonly admittedAt: number;

  constructor(generation: Generation, admittedAt: number) {
    this.#generation = generation;
    this.admittedAt = admittedAt;
  }

  succeeded(): void {
    this.#report('success');
  }

  failed(): void {
    this.#report('failure');
  }

  abandoned(): void {
    this.#report('nothing');
  }

  #report(report: Report): void {
    const generation = this.#generation;
    this.#generation = null;
    generation?.report(this, report);
  }
}

/** A closed breaker. */
export function createBreaker({
  threshold,
  timeoutMs,
  halfOpenMax,
  clock,
  onChange,
}: BreakerDeps): Breaker {
  const needed = Math.ceil(halfOpenMax / 2);
  let state: BreakerState = 'closed';
  let failures = 0;
  let trips = 0;
  let openUntil = 0;
  let successes = 0;
  /** Of the half-open state, oldest first. */
  const trials = new Set<TrialConnection>();
  let cancelTimer: (() => void) | null = null;
  let closed = false;
  let generation = nextGeneration();

  function nextGeneration(): Generation {
    const self: Generation = {
      report(trial, report) {
        if (self === generation) heard(trial, report);
      },
    };
    return self;
  }

  function heard(trial: TrialConnection, report: Report): void {
    if (state === 'half-open') heardOfTrial(trial, report);
    else if (report === 'success') failures = Math.max(0, failures - 1);
    else if (report === 'failure') failed();
  }

  function failed(): void {
    failures += 1;
    if (failures >= threshold) open();
  }

  function heardOfTrial(trial: TrialConnection, report: Report): void {
    trials.delete(trial);
    if (report === 'failure') {
      failures += 1;
      open();
    } else if (report === 'success') {
      successes += 1;
      if (successes >= needed) change('closed', 0);
    }
  }

  function open(): void {
    trips += 1;
    openUntil = clock.ticks() + timeoutMs;
    if (!closed) {
      cancelTimer = clock.after(timeoutMs, () => {
        cancelTimer = null;
        openHalf();
      });
    }
    change('open', failures);
  }

  function openHalf(): void {
    cancelTimer?.();
    cancelTimer = null;
    change('half-open', 0);
  }

  function change(to: BreakerState, failuresAfter: number): void {
    const told = { from: state, to, failures, at: clock.now() };
    state = to;
    failures = failuresAfter;
    successes = 0;
    trials.clear();
    generation = nextGeneration();
    onChange(told);
  }

  function admitTrial(): Trial | null {
    const ticks = clock.ticks();
    if (trials.size + successes >= halfOpenMax) dropOverdue(ticks);
    if (trials.size + successes >= halfOpenMax) return null;
    const trial = new TrialConnection(generation, ticks);
    trials.add(trial);
    return trial;
  }

  /** Peers that say nothing must not keep it half-open; what an overdue trial reports still counts. */
  function dropOverdue(ticks: number): void {
    for (const trial of trials) {
      if (ticks - trial.admittedAt < timeoutMs) return;
      trials.delete(trial);
    }
  }

  return {
    admit() {
      // The timer may be late, or stopped.
      if (state === 'open' && clock.ticks() >= openUntil) openHalf();
      if (state === 'open') return null;
      if (state === 'half-open') return admitTrial();
      return new TrialConnection(generation, clock.ticks());
    },
    failed() {
      if (state === 'closed') failed();
    },
    close() {
      closed = true;
      cancelTimer?.();
      cancelTimer = null;
    },
    get state() {
      return state;
    },
    get failures() {
      return failures;
    },
    get trips() {
      return trips;
    },
  };
}
