/** What the demo shows: how far it is, and how it went. */
import { SingleBar } from 'cli-progress';
import type { Difference } from '../simulator/expectation.ts';
import type { ShownCommand } from './demo-client.ts';
import type { Stack } from './demo-stack.ts';

export type Latency = { p50: number; p95: number; p99: number };

export type KindFigures = {
  command: string;
  sent: number;
  /** Commands by their end. */
  ends: Record<string, number>;
  acceptedToWrittenMs: Latency | null;
  writtenToAckedMs: Latency | null;
};

export type Figures = {
  kinds: KindFigures[];
  total: KindFigures;
  elapsedMs: number;
  endedPerS: number;
  retried: number;
};

/** Outcomes and latencies by kind of command, from the API's own records. */
export function figuresOf(commands: readonly ShownCommand[]): Figures {
  const byKind = Map.groupBy(commands, ({ command }) => command);
  const kinds = [...byKind].sort(([a], [b]) => a.localeCompare(b));
  const accepted = commands.map(({ acceptedAt }) => Date.parse(acceptedAt));
  const settled = commands.map(({ settledAt }) => Date.parse(settledAt ?? ''));
  const elapsedMs = Math.max(1, maxOf(settled.filter(Number.isFinite)) - minOf(accepted));
  return {
    kinds: kinds.map(([command, some]) => kindOf(command, some)),
    total: kindOf('all', commands),
    elapsedMs,
    endedPerS: Math.round((commands.length / elapsedMs) * 10_000) / 10,
    retried: commands.filter(({ attempts }) => attempts.length > 1).length,
  };
}

/** A table for 80 columns. */
export function tableOf({ kinds, total, elapsedMs, endedPerS, retried }: Figures): string[] {
  const head = ' '.repeat(48);
  return [
    `${head}accepted→written  written→acked`,
    `${rowOf(['command', 'sent', 'ok', 'no', 'n/a', '?', 'p50', 'p95', 'p99', 'p50', 'p95', 'p99'])}`,
    '─'.repeat(79),
    ...kinds.map(rowOfKind),
    '─'.repeat(79),
    rowOfKind(total),
    '',
    'ok succeeded · no rejected by the device · n/a no answer defined · ? unknown',
    'Latencies in ms. A busy device takes one command at a time, AP3000 every 500 ms.',
    `${total.sent} commands in ${(elapsedMs / 1000).toFixed(1)} s (${endedPerS}/s, paced), ${retried} of them tried more than once.`,
  ];
}

const listedDifferences = 20;

export function differencesOf(differences: readonly Difference[]): string[] {
  const lines = differences
    .slice(0, listedDifferences)
    .map(({ id, deviceId, command, says }) => `  ${id} ${command} to ${deviceId}: ${says}`);
  const more = differences.length - lines.length;
  return more > 0 ? [...lines, `  … and ${more} more`] : lines;
}

/** What `--keep` leaves running, and how to talk to it. */
export function invitation(stack: Stack, example: { deviceId: string; body: object }): string[] {
  const { apiUrl, apiKey, board, admin } = stack;
  return [
    `API       ${apiUrl}`,
    `docs      ${apiUrl}/docs`,
    `API key   ${apiKey}`,
    `board     ${board.url}   user ${board.user}   password ${board.password}`,
    `metrics   ${Object.values(admin)
      .map((url) => `${url}/metrics`)
      .join('\n          ')}`,
    `devices   ${stack.tcp.host}:${stack.tcp.port}`,
    '',
    'Start a charge and wait for the device to answer:',
    '',
    `  curl -s '${apiUrl}/v1/commands?wait=10000' \\`,
    `    -H 'authorization: Bearer ${apiKey}' \\`,
    `    -H 'content-type: application/json' \\`,
    `    -d '${JSON.stringify(example.body)}'`,
    '',
    'Ctrl-C ends it.',
  ];
}

export type Progress = {
  update(accepted: number, ended: number): void;
  end(): void;
};

const lineEveryMs = 1000;

/** A bar on a terminal, a line now and then elsewhere. */
export function createProgress(total: number, stream: NodeJS.WriteStream): Progress {
  const startedAt = performance.now();
  const rate = (ended: number) =>
    Math.round((ended / Math.max(1, performance.now() - startedAt)) * 1000);
  if (stream.isTTY) {
    const bar = new SingleBar({
      stream,
      format: '{bar} {percentage}% · {accepted} accepted · {value}/{total} ended · {rate}/s',
      barsize: 22,
      barCompleteChar: '█',
      barIncompleteChar: '░',
      hideCursor: true,
    });
    bar.start(total, 0, { accepted: 0, rate: 0 });
    return {
      update: (accepted, ended) => bar.update(ended, { accepted, rate: rate(ended) }),
      end: () => bar.stop(),
    };
  }
  let saidAt = Number.NEGATIVE_INFINITY;
  let said = '';
  const say = (accepted: number, ended: number) => {
    const line = `${accepted} accepted, ${ended} of ${total} ended`;
    if (line !== said) stream.write(`${line} (${rate(ended)}/s)\n`);
    said = line;
    saidAt = performance.now();
  };
  let last: [number, number] = [0, 0];
  return {
    update(accepted, ended) {
      last = [accepted, ended];
      if (performance.now() - saidAt >= lineEveryMs) say(accepted, ended);
    },
    end: () => say(...last),
  };
}

function kindOf(command: string, some: readonly ShownCommand[]): KindFigures {
  const ends: Record<string, number> = {};
  for (const { status } of some) ends[status] = (ends[status] ?? 0) + 1;
  return {
    command,
    sent: some.length,
    ends,
    acceptedToWrittenMs: latencyOf(some.map(writtenAfterMs)),
    writtenToAckedMs: latencyOf(some.map(ackedAfterMs)),
  };
}

function writtenAfterMs({ acceptedAt, attempts }: ShownCommand): number {
  const writes = attempts.map(({ writtenAt }) => Date.parse(writtenAt ?? ''));
  return minOf(writes.filter(Number.isFinite)) - Date.parse(acceptedAt);
}

/** From the write of the attempt that was answered. */
function ackedAfterMs({ status, attempts }: ShownCommand): number {
  const answered = status === 'succeeded' || status === 'rejected';
  return answered ? (attempts.at(-1)?.ms ?? Number.NaN) : Number.NaN;
}

function latencyOf(values: readonly number[]): Latency | null {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length === 0) return null;
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)]!;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}

function rowOfKind({ command, sent, ends, acceptedToWrittenMs, writtenToAckedMs }: KindFigures) {
  const count = (status: string) => String(ends[status] ?? 0);
  const times = (latency: Latency | null) =>
    latency ? [latency.p50, latency.p95, latency.p99].map(String) : ['-', '-', '-'];
  return rowOf([
    command,
    String(sent),
    count('succeeded'),
    count('rejected'),
    count('unacknowledged'),
    count('unknown'),
    ...times(acceptedToWrittenMs),
    ...times(writtenToAckedMs),
  ]);
}

const widths = [14, 6, 6, 5, 5, 5, 7, 6, 6, 7, 6, 6];

function rowOf(cells: readonly string[]): string {
  return cells
    .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
    .join('');
}

function minOf(values: readonly number[]): number {
  return values.reduce((least, value) => Math.min(least, value), Number.POSITIVE_INFINITY);
}

function maxOf(values: readonly number[]): number {
  return values.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
}
