/** The one line a process prints on standard output when it is ready; nothing else goes there before. */

export type ReadyLine =
  | { role: 'gateway'; tcp: string; tls?: string; admin: string }
  | { role: 'worker'; admin: string }
  | { role: 'api'; http: string };

export function printReady(line: ReadyLine): void {
  process.stdout.write(`${JSON.stringify({ ready: true, ...line })}\n`);
}
