/** How a process ends: what was opened is closed in reverse, once, within a bound. */
import closeWithGrace from 'close-with-grace';
import { DownlinkError } from '../errors.ts';
import type { Log } from '../log/log.ts';

export type Closer = () => unknown;

export type Lifecycle = {
  /** Remembers how to close what was just opened. A closer that takes longer is left behind. */
  onClose(name: string, close: Closer, timeoutMs?: number): void;
  /** Closes everything, the last opened first. Goes on after an error; rejects with the first. */
  close(): Promise<void>;
  /**
   * SIGTERM, SIGINT and uncaught errors close everything and end the process: with 0 after a
   * signal, with 1 after an error or when closing takes longer than the bound. A second signal
   * ends it at once. SIGHUP ends it too, unless somebody listens for it.
   */
  endOnSignals(options: { graceMs: number }): void;
  closing(): boolean;
};

const CLOSER_TIMEOUT_MS = 10_000;

export function createLifecycle({ log }: { log: Log }): Lifecycle {
  const closers: { name: string; close: Closer; timeoutMs: number }[] = [];
  let closed: Promise<void> | undefined;

  async function closeAll(): Promise<void> {
    const errors: unknown[] = [];
    for (let closer = closers.pop(); closer; closer = closers.pop()) {
      const { name, close, timeoutMs } = closer;
      try {
        await bounded(name, close, timeoutMs);
        log.debug({ name }, 'closed');
      } catch (error) {
        log.warn({ name, error }, 'closing failed');
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }

  function close(): Promise<void> {
    closed ??= closeAll();
    return closed;
  }

  return {
    onClose(name, closer, timeoutMs = CLOSER_TIMEOUT_MS) {
      closers.push({ name, close: closer, timeoutMs });
    },
    close,
    closing: () => closed !== undefined,
    endOnSignals({ graceMs }) {
      closeWithGrace(
        {
          delay: graceMs,
          // A process that could not start ends by itself, with the code that says so.
          skip: ['SIGHUP', 'beforeExit'],
          logger: { error: (problem: unknown) => log.error({ error: problem }, 'shutdown') },
          onSecondSignal: (signal) => log.warn({ signal }, 'second signal: ending at once'),
          onTimeout: (delay) => log.error({ ms: delay }, 'shutdown took too long: ending at once'),
        },
        async ({ signal, err }) => {
          if (err) log.fatal({ error: err }, 'uncaught error: shutting down');
          else log.info({ signal }, 'shutting down');
          await close();
        },
      );
      process.on('SIGHUP', () => {
        // Who reads something again at a SIGHUP does not want to end by it.
        if (process.listenerCount('SIGHUP') === 1) process.kill(process.pid, 'SIGTERM');
      });
    },
  };
}

/** Runs when the process ends, however it does short of SIGKILL; must not wait for anything. */
export function onExit(action: () => void): () => void {
  process.once('exit', action);
  return () => {
    process.removeListener('exit', action);
  };
}

/** Runs an action at every such signal, in place of ending; for processes that only forward them. */
export function onSignal(signal: NodeJS.Signals, action: () => void): () => void {
  process.on(signal, action);
  return () => {
    process.removeListener(signal, action);
  };
}

async function bounded(name: string, close: Closer, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_resolve, reject) => {
    const error = new DownlinkError('TIMEOUT', `${name} did not close within ${timeoutMs} ms`);
    timer = setTimeout(() => reject(error), timeoutMs);
  });
  try {
    await Promise.race([close(), timeout]);
  } finally {
    clearTimeout(timer);
  }
}
