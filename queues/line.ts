/** Which line a command stands in, and what it says of itself there. */
import type { JoinRequest } from '../src/bridge/routes-contract.ts';
import type { Command } from '../src/command.ts';
import type { CommandSpec } from '../src/protocols/protocol.ts';

export type Caps = { maxPerKey: number; maxPerDevice: number };

/**
 * The line's name in the queue store. A key of the caller's own opens a line of its own, even if it reads like one
 * of the table's: what supersedes what is the table's business alone.
 */
export function lineOf(command: Command, spec: CommandSpec | undefined): string | null {
  const { orderKey, params } = command;
  if (orderKey === null) return null;
  return spec?.orderKey(params) === orderKey ? `t:${orderKey}` : `o:${orderKey}`;
}

/** True when the table's rules on stopping, starting and replacing apply, which a key of one's own would evade. */
export function standsInItsLine(spec: CommandSpec): boolean {
  return spec.preempts === true || spec.supersedes.length > 0 || (spec.excludes?.length ?? 0) > 0;
}

export function joinOf(
  command: Command,
  spec: CommandSpec,
  mode: JoinRequest['mode'],
  { maxPerKey, maxPerDevice }: Caps,
): JoinRequest {
  const line = lineOf(command, spec);
  const rules = line?.startsWith('t:') ? spec : null;
  return {
    id: command.id,
    deviceId: command.deviceId,
    line,
    command: command.command,
    priority: command.priority,
    supersedes: rules?.supersedes ?? [],
    covers: rules?.covers?.(command.params) ?? null,
    preempts: rules?.preempts === true,
    excludes: rules?.excludes ?? [],
    dueAt: Math.max(command.acceptedAt, command.notBefore),
    mode,
    maxPerKey,
    maxPerDevice,
  };
}
