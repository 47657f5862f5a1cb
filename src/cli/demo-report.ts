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
  /** Without the devices that were made to refuse, to be slow or to forget. */
  calm: KindFigures;
  /** From the first accept until 95 of 100 commands had ended. */
  mostMs: number;
  mostPerS: number;
  elapsedMs: number;
  retried: number;
};

const most = 0.95;

/** Outcomes and latencies by kind of command, from the API's own records. */
export function figuresOf(
  commands: readonly ShownCommand[],
  isCalm: (deviceId: string) => boolean,
): Figures {
  const byKind = Map.groupBy(commands, ({ command }) => command);
  const kinds = [...byKind].sort(([a], [b]) => a.localeCompare(b));
  const firstAt = minOf(commands.map(({ acceptedAt }) => Date.parse(acceptedAt)));
  const ends = commands
    .map(({ settledAt }) => Date.parse(settledAt ?? '') - firstAt)
    .filter(Number.isFinite)
    .sort((a, b) => a - b);
  const mostEnds = Math.ceil(ends.length * most);
  const mostMs = ends[mostEnds - 1] ?? 0;
  return {
    kinds: kinds.map(([command, some]) => kindOf(command, some)),
    total: kindOf('all', commands),
    calm: kindOf(
      'calm devices',
      commands.filter(({ deviceId }) => isCalm(deviceId)),
    ),
    mostMs,
    mostPerS: Math.round((mostEnds * 1000) / Math.max(1, mostMs)),
    elapsedMs: ends.at(-1) ?? 0,
    retried: commands.filter(({ attempts }) => attempts.length > 1).length,
  };
}

/** A table for 80 columns. */
export function tableOf(figures: Figures): string[] {
  const { kinds, total, calm, mostMs, mostPerS, elapsedMs, retried } = figures;
  const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
  return [
    `${' '.repeat(44)}accepted→written     written→acked`,
    rowOf(['command', 'sent', 'ok', 'no', 'n/a', '?', ...percentiles, ...percentiles]),
    rule,
    ...kinds.map(rowOfKind),
    rule,
    rowOfKind(total),
    rowOfKind(calm),
    '',
    'ok: succeeded · no: the device refused · n/a: no answer defined · ?: unknown',
    'Times in ms. A device takes one command at a time, AP3000 one every 500 ms;',
    'a tenth of the devices were made to refuse, to be slow or to forget.',
    '',
    `95 of 100 commands had ended after ${seconds(mostMs)} (${mostPerS}/s, as paced), the last after`,
    `${seconds(elapsedMs)}; ${retried} were tried more than once.`,
  ];
}

const percentiles = ['p50', 'p95', 'p99'];
const rule = '─'.repeat(79);

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
    if (line !== said && accepted > 0) stream.write(`${line} (${rate(ended)}/s)\n`);
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

const widths = [14, 6, 6, 5, 5, 4, 7, 6, 6, 8, 6, 6];

function rowOf(cells: readonly string[]): string {
  return cells
    .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
    .join('');
}

function minOf(values: readonly number[]): number {
  return values.reduce((least, value) => Math.min(least, value), Number.POSITIVE_INFINITY);
}
