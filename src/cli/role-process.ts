/** One role of downlink as a child process: started, awaited until ready, ended. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { DownlinkError } from '../errors.ts';
import { watchParent } from '../lifecycle/parent-watch.ts';

export const roles = ['gateway', 'worker', 'api'] as const;
export type Role = (typeof roles)[number];

/** The process's ready line, as it printed it. */
export type Ready = { role: Role; tcp?: string; tls?: string; admin?: string; http?: string };

export type RoleProcess = {
  role: Role;
  pid: number;
  ready: Ready;
  /** Resolves when it has ended, whatever ended it. */
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** Sends the signal; nothing happens when it has ended. */
  signal(signal: NodeJS.Signals): void;
  /** Sends the signal and resolves when the process is gone. */
  end(signal?: NodeJS.Signals): Promise<void>;
};

export type RoleProcessOptions = {
  role: Role;
  env: NodeJS.ProcessEnv;
  /** Where its log lines go; null: nowhere. */
  onLog?: (text: string) => void;
  nodeArgs?: readonly string[];
};

const readyTimeoutMs = 30_000;
const maxReadyLine = 4_096;
/** How much of its log is shown when it does not become ready. */
const tailChars = 2_000;

/**
 * A worker holds hundreds of commands for the moments between two stores: a young generation that is too
 * small for them is copied over and over.
 */
const defaultNodeArgs: Record<Role, readonly string[]> = {
  gateway: [],
  worker: ['--max-semi-space-size=64'],
  api: [],
};

const extension = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
const program = fileURLToPath(new URL(`./main.${extension}`, import.meta.url));

/** Starts a role and resolves with its ready line; rejects with the end of its log when it does not come up. */
export async function startRole(options: RoleProcessOptions): Promise<RoleProcess> {
  const { role, env, onLog, nodeArgs = [] } = options;
  const args = [...defaultNodeArgs[role], ...nodeArgs, program, 'start', '--role', role];
  const child = spawn(process.execPath, args, {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own: Ctrl-C reaches the parent alone, which then asks each role to end, once.
    detached: true,
  });
  const watch = child.pid ? watchParent({ pid: child.pid, signal: 'SIGTERM' }) : undefined;
  const ended = new Promise<Awaited<RoleProcess['ended']>>((resolve) => {
    child.once('exit', (code, signal) => {
      watch?.stop();
      resolve({ code, signal });
    });
  });
  let tail = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    tail = (tail + text).slice(-tailChars);
    onLog?.(text);
  });
  const ready = await Promise.race([
    readyLineOf(child),
    ended.then(({ code, signal }) => {
      throw notReady(role, `it ended with ${signal ?? code}`, tail);
    }),
    new Promise<never>((_, reject) => {
      const giveUp = () => reject(notReady(role, `not ready after ${readyTimeoutMs} ms`, tail));
      setTimeout(giveUp, readyTimeoutMs).unref();
    }),
  ]).catch((error: unknown) => {
    child.kill('SIGKILL');
    throw error;
  });
  return {
    role,
    pid: child.pid!,
    ready,
    ended,
    signal: (signal) => void child.kill(signal),
    async end(signal = 'SIGTERM') {
      child.kill(signal);
      await ended;
    },
  };
}

function notReady(role: Role, what: string, tail: string): DownlinkError {
  return new DownlinkError('TIMEOUT', `the ${role} did not start: ${what}\n${tail}`.trim());
}

function readyLineOf(child: ChildProcess): Promise<Ready> {
  return new Promise((resolve, reject) => {
    let text = '';
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      if (text.length > maxReadyLine) return;
      text += chunk;
      const end = text.indexOf('\n');
      if (end < 0) return;
      try {
        resolve(JSON.parse(text.slice(0, end)) as Ready);
      } catch (cause) {
        const shown = text.slice(0, 200);
        reject(new DownlinkError('INTERNAL', `not a ready line: ${shown}`, { cause }));
      }
    });
  });
}
