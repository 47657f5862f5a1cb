/** How a benchmark says what it measured. */
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';

export type Report = {
  name: string;
  /** Keys are stable; values are plain numbers. */
  figures: Record<string, number>;
  /** Server versions and the like. */
  versions: Record<string, string>;
  /** Sentences that belong under the figures. */
  notes: string[];
};

/** One line of JSON, for machines. */
export function printJson({ name, figures, versions, notes }: Report): void {
  const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}`;
  const at = new Date().toISOString();
  process.stdout.write(
    `${JSON.stringify({ name, at, machine, versions: { ...ownVersions(), ...versions }, figures, notes })}\n`,
  );
}

/** A table, for people. */
export function print({ name, figures, versions, notes }: Report): void {
  const width = Math.max(...Object.keys(figures).map((key) => key.length));
  const lines = [`\n${name}`];
  for (const [key, value] of Object.entries(figures)) {
    lines.push(
      `  ${key.padEnd(width)}  ${value.toLocaleString('en-US', { maximumFractionDigits: 2 })}`,
    );
  }
  for (const note of notes) lines.push(`  ${note}`);
  const all = Object.entries({ ...ownVersions(), ...versions });
  lines.push(`  ${all.map(([key, value]) => `${key} ${value}`).join(' · ')}`, '');
  process.stdout.write(lines.join('\n'));
}

function ownVersions(): Record<string, string> {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const { version, dependencies } = JSON.parse(text) as {
    version: string;
    dependencies: Record<string, string>;
  };
  return { downlink: version, node: process.versions.node, bullmq: dependencies['bullmq'] ?? '?' };
}
