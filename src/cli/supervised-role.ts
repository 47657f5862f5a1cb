/** Keeps one process of a role running: when it ends by itself it is started again. */
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../errors.ts';
import { onExit } from '../lifecycle/lifecycle.ts';
import type { Log } from '../log/log.ts';
import type { RoleProcess } from './role-process.ts';

export type SupervisedRole = {
  /** The process that runs, or ran last. */
  readonly current: RoleProcess;
  /** Hands a signal on; nothing happens while there is no process. */
  signal(signal: NodeJS.Signals): void;
  /** Ends the process and starts none after it. */
  end(): Promise<void>;
};

export type SupervisedRoleDeps = {
  launch: () => Promise<RoleProcess>;
  /** Told of every process that is ready. */
  onReady: (process: RoleProcess) => void;
  log: Log;
};

const restartAfterMs = 1_000;
const restartAfterMaxMs = 30_000;

/** Resolves when the first process is ready; rejects when it does not become so. */
export async function superviseRole(deps: SupervisedRoleDeps): Promise<SupervisedRole> {
  const { launch, onReady, log } = deps;
  const ending = new AbortController();
  let current = await launch();
  onReady(current);
  const kept = keep();
  // A second signal ends this process at once: what it still waited for is not to drain on by itself.
  const forget = onExit(() => current.signal('SIGKILL'));

  async function keep(): Promise<void> {
    while (!ending.signal.aborted) {
      const { role, pid, ended } = current;
      const { code, signal } = await ended;
      if (ending.signal.aborted) return;
      log.error({ role, pid, code, signal }, 'process ended; it is started again');
      await launchAgain();
    }
  }

  /** Tries until there is a process, or none is wanted any more. */
  async function launchAgain(): Promise<void> {
    for (let waitMs = restartAfterMs; ; waitMs = Math.min(waitMs * 2, restartAfterMaxMs)) {
      await delay(waitMs, undefined, { signal: ending.signal }).catch(() => undefined);
      if (ending.signal.aborted) return;
      try {
        current = await launch();
        if (!ending.signal.aborted) onReady(current);
        return;
      } catch (error) {
        log.error({ error: messageOf(error) }, 'process does not start; it is tried again');
      }
    }
  }

  return {
    get current() {
      return current;
    },
    signal: (signal) => current.signal(signal),
    async end() {
      ending.abort();
      await current.end();
      await kept;
      // one that was being started when this was called
      await current.end();
      forget();
    },
  };
}
