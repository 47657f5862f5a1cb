/**
 * Random sequences against real processes, judged by rules that hold whatever happens. Sequences of a batch
 * run side by side, each with devices of its own; workers and gateways die under all of them.
 *
 *   MODEL_RUNS        sequences, 300 unless given
 *   MODEL_SEED        the same sequences again, though not in the same timing
 *   MODEL_PATH        of a run that failed, only the batch that did
 *   MODEL_BATCH       sequences side by side, 25 unless given
 *   MODEL_KEEP_GOING  1: plays all batches, whatever the first ones show
 *   MODEL_REDUCE      1: makes the first failing sequence short, which takes minutes
 *   MODEL_REPLAY      a file with a reduced sequence, played 25 times over
 *   MODEL_REPORT      a file that gets the stories of failing sequences
 *   MODEL_WITHOUT     names of rules that are not looked at
 */
import { appendFileSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { type Stack, startStack } from '../support/stack.ts';
import type { Problem } from './case.ts';
import { explain, judge } from './judge.ts';
import { leftovers } from './leftovers.ts';
import { type Batch, batchOf, type Plan, type PlannedOutage } from './plan.ts';
import { play, stackEnv } from './play.ts';
import type { Numbers } from './player.ts';
import { reduce } from './reduce.ts';
import type { Story } from './story.ts';

const { env } = process;
const sequences = Number(env['MODEL_RUNS'] ?? 300);
const perBatch = Math.min(sequences, Number(env['MODEL_BATCH'] ?? 25));
const batches = Math.ceil(sequences / perBatch);
const seed = Number(env['MODEL_SEED'] ?? Date.now() % 2_147_483_647);
const keepGoing = env['MODEL_KEEP_GOING'] === '1';
const without = (env['MODEL_WITHOUT'] ?? '').split(',');
const batchLimitMs = 120_000;
/** Lines are looked through for what a process that died left in them. */
const leftoversMs = 60_000;
const reduceRounds = 40;
/** A candidate is played so often in a round: what depends on timing does not fail every time. */
const copies = 3;

/** A run of so many sequences that saw none of these has gone blind. */
const tellingRun = 300;
const toSee = [
  'succeeded',
  'rejected',
  'expired',
  'cancelled',
  'superseded',
  'failed',
  'unknown',
  'late',
  'inferred',
  'probed',
  'repeated',
  'CONFLICT',
  'TOO_MANY_WAITING',
  'IDEMPOTENCY_CONFLICT',
  'ALREADY_SENT',
  'DELETE 200',
];

let stack: Stack;
const numbers: Numbers = { next: 1 };

beforeAll(async () => {
  stack = await startStack({ env: stackEnv });
});

afterAll(() => stack?.stop());

const shortening = env['MODEL_REDUCE'] === '1';
const timeout = batches * batchLimitMs + leftoversMs + (shortening ? reduceRounds * 60_000 : 0);

test(`whatever happens in ${sequences} sequences, every promise is kept`, { timeout }, async () => {
  const startedAt = performance.now();
  const counts = new Map<string, number>();
  const found: Problem[] = [];
  let played = 0;
  say(`${batches} batches of ${perBatch} sequences, MODEL_SEED=${seed}`);
  const property = fc.asyncProperty(arbitrary(), async (batch) => {
    played += 1;
    const { problems, stories, failed } = await playAndJudge(
      batch,
      `${played} of ${batches}`,
      counts,
    );
    found.push(...problems);
    for (const i of failed) report(stories[i]!);
    if (failed[0] !== undefined && shortening) {
      await shorten(batch, failed[0], new Set(problems.map(({ rule }) => rule)));
    }
    if (!keepGoing) expect(sentences(problems)).toEqual([]);
  });
  // A batch takes seconds: a failing sequence is made short by `reduce`, which plays many candidates at once.
  const result = await fc.check(property, {
    seed,
    numRuns: batches,
    endOnFailure: true,
    ...(env['MODEL_PATH'] !== undefined && { path: env['MODEL_PATH'] }),
  });
  const seconds = Math.round((performance.now() - startedAt) / 1000);
  say(`${[...counts].map(([status, count]) => `${status} ${count}`).join(', ')}; ${seconds} s`);
  if (!result.failed) {
    expect(sentences(found)).toEqual([]);
    await eventually(async () => expect(await leftovers(stack)).toEqual([]), {
      withinMs: leftoversMs,
      everyMs: 1_000,
    });
    if (sequences >= tellingRun) expect(toSee.filter((name) => !counts.has(name))).toEqual([]);
    return;
  }
  say(`the batch that failed: MODEL_SEED=${seed} MODEL_PATH=${result.counterexamplePath}`);
  throw result.errorInstance;
});

/** The batches of a run; those of a replay are all the same. */
function arbitrary(): fc.Arbitrary<Batch> {
  const file = env['MODEL_REPLAY'];
  if (file === undefined) return batchOf(perBatch);
  const { plan, outages } = JSON.parse(readFileSync(file, 'utf8')) as {
    plan: Plan;
    outages: PlannedOutage[];
  };
  return fc.constant({ plans: Array<Plan>(perBatch).fill(plan), outages });
}

async function playAndJudge(batch: Batch, name: string, counts: Map<string, number>) {
  const { stories, tookMs } = await play(stack, batch, numbers, isSound);
  const verdicts = stories.map((story) => judge(story, without));
  for (const verdict of verdicts) {
    for (const [name, count] of verdict.counts) counts.set(name, (counts.get(name) ?? 0) + count);
  }
  const problems = verdicts.flatMap((verdict) => verdict.problems);
  const failed = verdicts.flatMap((verdict, i) => (verdict.problems.length > 0 ? [i] : []));
  const outages = stories[0]?.outages.map(({ role, signal }) => `${signal} ${role}`) ?? [];
  const deaths = outages.join(', ') || 'nothing dies';
  const stalled = `stalled at most ${stories[0]?.stallMs} ms`;
  say(`batch ${name}: ${tookMs} ms, ${stalled}; ${deaths}; ${problems.length} problems`);
  return { problems, stories, failed };
}

/** Rules that a late answer, or a row on its way, may still satisfy. */
const mendable = new Set(['one end', 'honest end', 'in trail']);

function isSound(stories: readonly Story[]): boolean {
  const problems = stories.flatMap((story) => judge(story, without).problems);
  return !problems.some(({ rule }) => mendable.has(rule));
}

/** The shortest sequence that still breaks a rule which the batch broke. */
async function shorten(batch: Batch, failed: number, broken: ReadonlySet<string>): Promise<void> {
  const { outages } = batch;
  let last: Story | null = null;
  // What is broken for good need not be waited for.
  const isMended = [...broken].some((rule) => mendable.has(rule)) ? isSound : () => true;
  const breaks = (story: Story) =>
    judge(story, without).problems.some(({ rule }) => broken.has(rule));
  const fails = async (candidates: readonly Plan[]): Promise<boolean[]> => {
    const plans = candidates.flatMap((plan) => Array<Plan>(copies).fill(plan));
    const { stories } = await play(stack, { plans, outages }, numbers, isMended);
    const failing = stories.map(breaks);
    last = stories[failing.indexOf(true)] ?? last;
    return candidates.map((_, i) => failing.slice(i * copies, (i + 1) * copies).includes(true));
  };
  const { plan, rounds } = await reduce(batch.plans[failed]!, fails, reduceRounds);
  say(`${plan.steps.length} steps are left after ${rounds} rounds, for MODEL_REPLAY:`);
  say(JSON.stringify({ plan, outages }));
  if (last) report(last);
}

function report(story: Story): void {
  const text = explain(story, judge(story, without).problems);
  if (env['MODEL_REPORT']) appendFileSync(env['MODEL_REPORT'], `${text}\n\n`);
  else process.stdout.write(`\n${text}\n\n`);
}

function sentences(problems: readonly Problem[]): string[] {
  return problems.map(({ rule, deviceId, text }) => `${rule}: ${deviceId} ${text}`);
}

function say(line: string): void {
  process.stdout.write(`  model: ${line}\n`);
}
