/** Judges stories: every rule over every story. */
import { type Problem, type View, viewOf } from './case.ts';
import { rules } from './rules.ts';
import { type Story, tell } from './story.ts';

export type Verdict = {
  problems: Problem[];
  /** How often each status, refusal and remarkable thing came up. */
  counts: Map<string, number>;
};

export function judge(story: Story, without: readonly string[] = []): Verdict {
  const view = viewOf(story);
  const chosen = Object.entries(rules).filter(([name]) => !without.includes(name));
  const problems = chosen.flatMap(([, rule]) => rule(view));
  return { problems, counts: count(view) };
}

function count({ cases, story }: View): Map<string, number> {
  const counts = new Map<string, number>();
  const add = (name: string) => counts.set(name, (counts.get(name) ?? 0) + 1);
  for (const { record, probes, writes } of cases) {
    add(record.status);
    if (record.late) add('late');
    if (record.inferred) add('inferred');
    if (probes.length > 0) add('probed');
    if (writes.length > 1) add('repeated');
  }
  for (const { code } of story.asked) if (code) add(code);
  for (const { status, code } of story.cancelled) add(code ?? `DELETE ${status}`);
  return counts;
}

/** The problems of a story, each device's with all that it saw. */
export function explain(story: Story, problems: readonly Problem[]): string {
  const byDevice = Map.groupBy(problems, ({ deviceId }) => deviceId);
  return [...byDevice]
    .map(([deviceId, its]) => {
      const heads = its.map(({ rule, text }) => `✗ ${rule}: ${text}`);
      return [`device ${deviceId}`, ...heads, ...tell(story, deviceId)].join('\n');
    })
    .join('\n\n');
}
