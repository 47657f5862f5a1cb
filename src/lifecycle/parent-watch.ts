/** Ends a child process when its parent is gone without having done so, a SIGKILL included. */
import { type ChildProcess, spawn } from 'node:child_process';

export type ParentWatch = { stop(): void };

export type ParentWatchOptions = {
  pid: number;
  /** Asks the child to end; a SIGKILL follows after ten seconds. */
  signal: NodeJS.Signals;
  /** Removed afterwards. */
  folder?: string | undefined;
  /** Where `kill`, `sleep` and `rm` are found. */
  path?: string;
};

const systemPath = '/usr/local/bin:/usr/bin:/bin';

// The shell waits on a pipe that this process holds; it closes with the process, however that ends.
const script = [
  'read -r _',
  'kill -CONT "$1"; kill -"$2" "$1"',
  'i=0; while kill -0 "$1" && [ $i -lt 100 ]; do i=$((i+1)); sleep 0.1; done',
  'kill -KILL "$1"',
  '[ -z "$3" ] || rm -rf "$3"',
].join('\n');

export function watchParent(options: ParentWatchOptions): ParentWatch {
  const { pid, signal, folder = '', path = systemPath } = options;
  const args = ['-c', script, 'downlink-watch', String(pid), signal.slice(3), folder];
  const watch: ChildProcess = spawn('/bin/sh', args, {
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore'],
    env: { PATH: path } as NodeJS.ProcessEnv,
    detached: true,
  });
  watch.on('error', () => undefined);
  watch.unref();
  const pipe = watch.stdin;
  if (pipe && 'unref' in pipe) (pipe as typeof pipe & { unref(): void }).unref();
  return { stop: () => void watch.kill('SIGKILL') };
}
