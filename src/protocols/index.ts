/** Every protocol there is: one line each. */
import { ap3000 } from './ap3000/index.ts';
import { bkv } from './bkv/index.ts';
import type { CommandSpec, Protocol } from './protocol.ts';

export const protocols: readonly Protocol[] = [bkv, ap3000];

/** The protocol of that name, or undefined. */
export function protocolNamed(name: string): Protocol | undefined {
  return protocols.find((protocol) => protocol.name === name);
}

/** The table's entry for a command, if there is one. Names come from outside: none reaches into a prototype. */
export function specOf(
  { protocol, command }: { protocol: string; command: string },
  among: readonly Protocol[] = protocols,
): CommandSpec | undefined {
  const commands = among.find(({ name }) => name === protocol)?.commands ?? {};
  return Object.hasOwn(commands, command) ? commands[command] : undefined;
}
