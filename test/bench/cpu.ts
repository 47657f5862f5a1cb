/** CPU time of processes, as the system accounts it; zeros where it does not tell. */
import { readdirSync, readFileSync } from 'node:fs';

const ticksPerSecond = 100;
const parentField = 1;
const userField = 11;
const systemField = 12;

/** Remembers what the processes and their children have spent, and tells what they spend from now on. */
export function watchCpu<K extends string>(pids: Record<K, number>) {
  const names = Object.keys(pids) as K[];
  const before = names.map((name) => familyMs(pids[name]));
  return {
    spentMs(): Record<K, number> {
      const spent = names.map((name, index) => [name, familyMs(pids[name]) - before[index]!]);
      return Object.fromEntries(spent) as Record<K, number>;
    },
  };
}

/** A server such as PostgreSQL works in many processes: those of its children count as its own. */
function familyMs(parent: number): number {
  let ms = ownMs(statOf(String(parent)));
  for (const entry of entriesOfProc()) {
    const stat = statOf(entry);
    if (Number(stat[parentField]) === parent) ms += ownMs(stat);
  }
  return ms;
}

function ownMs(stat: readonly string[]): number {
  const ticks = Number(stat[userField] ?? 0) + Number(stat[systemField] ?? 0);
  return (ticks * 1000) / ticksPerSecond;
}

/** The fields of /proc/PID/stat after the command's name, which may hold anything. */
function statOf(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
  } catch {
    return [];
  }
}

function entriesOfProc(): string[] {
  try {
    return readdirSync('/proc').filter((entry) => /^\d+$/.test(entry));
  } catch {
    return [];
  }
}
