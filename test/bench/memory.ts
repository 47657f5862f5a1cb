/** Memory of a process once it has settled: after a collection, when its resident set has come to rest. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export type Memory = {
  /** Bytes the system counts; NaN where it does not tell. */
  rss: number;
  /** JavaScript heap in use, and what it holds outside; NaN where the process has no metrics. */
  heap: number;
};

/** Lets a process be told to collect its garbage. */
export const collectable = [
  '--expose-gc',
  '--import',
  fileURLToPath(new URL('./collect-garbage.ts', import.meta.url)),
];

const lookEveryMs = 400;
const looks = 12;
const atRest = 1.01;

/** Collects twice, then reads until two readings agree, at most for five seconds. */
export async function settledMemory(pid: number, admin?: string): Promise<Memory> {
  for (let times = 0; times < 2; times += 1) {
    process.kill(pid, 'SIGWINCH');
    await pause();
  }
  let rss = rssOf(pid);
  for (let look = 0; look < looks; look += 1) {
    await pause();
    const now = rssOf(pid);
    const rests = Math.max(now, rss) <= atRest * Math.min(now, rss);
    rss = now;
    if (rests) break;
  }
  return { rss, heap: admin === undefined ? Number.NaN : await heapOf(admin) };
}

export function rssOf(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
  } catch {
    return Number.NaN;
  }
}

/** How many descriptors the process may open; NaN where the system does not tell. */
export function descriptorLimit(pid: number): number {
  try {
    const limits = readFileSync(`/proc/${pid}/limits`, 'utf8');
    const soft = /^Max open files\s+(\S+)/m.exec(limits)?.[1];
    return soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft);
  } catch {
    return Number.NaN;
  }
}

async function heapOf(admin: string): Promise<number> {
  const text = await scrape(admin);
  return sample(text, 'nodejs_heap_size_used_bytes') + sample(text, 'nodejs_external_memory_bytes');
}

export async function scrape(admin: string): Promise<string> {
  const signal = AbortSignal.timeout(10_000);
  return (await fetch(`http://${admin}/metrics`, { signal })).text();
}

/** The value of a metric without labels. */
export function sample(text: string, name: string): number {
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN);
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, lookEveryMs));
}
