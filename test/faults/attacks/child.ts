/** A program of the attack tests as a process of its own: one line of JSON for each question and answer. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { watchParent } from '../../../src/lifecycle/parent-watch.ts';

export type Child = {
  ask<T>(what: string, given?: object): Promise<T>;
  signal(signal: NodeJS.Signals): void;
  /** Ends the process, whatever it does. */
  end(): Promise<void>;
};

type Question = { id: number; what: string; given: unknown };
type Answer = { id: number; result?: unknown; error?: string };

/** Starts a program of this folder. */
export function startChild(file: string): Child {
  const program = fileURLToPath(new URL(file, import.meta.url));
  // A session of its own: the system shares the processor out by session first.
  const child = spawn(process.execPath, [program], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true,
  });
  // One that is stopped does not see its input end.
  const watch = child.pid ? watchParent({ pid: child.pid, signal: 'SIGKILL' }) : undefined;
  const waiters = new Map<number, (answer: Answer) => void>();
  let lastId = 0;
  let gone = false;
  const ended = new Promise<void>((resolve) => {
    child.once('exit', (code, signal) => {
      gone = true;
      watch?.stop();
      const error = `${file} is gone: ${signal ?? code}`;
      for (const [id, tell] of waiters) tell({ id, error });
      resolve();
    });
  });
  child.stdin.on('error', () => undefined);
  createInterface({ input: child.stdout }).on('line', (line) => {
    const answer = JSON.parse(line) as Answer;
    waiters.get(answer.id)?.(answer);
    waiters.delete(answer.id);
  });

  return {
    ask<T>(what: string, given: object = {}) {
      return new Promise<T>((resolve, reject) => {
        if (gone) {
          reject(new Error(`${file} is gone`));
          return;
        }
        lastId += 1;
        waiters.set(lastId, ({ result, error }) => {
          if (error === undefined) resolve(result as T);
          else reject(new Error(error));
        });
        child.stdin.write(`${JSON.stringify({ id: lastId, what, given } satisfies Question)}\n`);
      });
    },
    signal: (signal) => void child.kill(signal),
    async end() {
      if (!gone) child.kill('SIGKILL');
      await ended;
    },
  };
}

/** The child's side: answers until its input ends, and ends with it. */
export function serve(answer: (what: string, given: never) => unknown): void {
  const lines = createInterface({ input: process.stdin });
  lines.on('line', async (line) => {
    const { id, what, given } = JSON.parse(line) as Question;
    let reply: Answer;
    try {
      reply = { id, result: (await answer(what, given as never)) ?? null };
    } catch (error) {
      reply = { id, error: String(error) };
    }
    process.stdout.write(`${JSON.stringify(reply)}\n`);
  });
  lines.on('close', () => process.exit(0));
}
