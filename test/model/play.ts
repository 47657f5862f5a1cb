/** Plays a batch of sequences against the running processes and gathers their stories. */

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import type { Stack } from '../support/stack.ts';
import type { Batch, PlannedOutage } from './plan.ts';
import { caps, createPlayer, type Numbers } from './player.ts';
import { createSights, showAll } from './sights.ts';
import type { Outage, Story } from './story.ts';

/** The environment that the model's processes need. */
export const stackEnv = {
  DOWNLINK_OUTBOUND_MAX_PER_KEY: String(caps.maxPerKey),
  DOWNLINK_OUTBOUND_MAX_PER_DEVICE: String(caps.maxPerDevice),
  // Devices of a killed gateway count as gone that soon.
  DOWNLINK_GATEWAY_LEASE_MS: '2000',
  DOWNLINK_WORKER_DRAIN_MS: '2000',
  DOWNLINK_GATEWAY_DRAIN_MS: '1000',
};

/** What a worker that died had read of a stream is taken over after 15 s, within another 5 s. */
const lateAnswersMs = 24_000;
const lookAgainMs = 1_000;

export type Played = {
  stories: Story[];
  tookMs: number;
};

/** `isSound` is asked when all has ended, and again for a while: late answers may be on their way to their rows. */
export async function play(
  stack: Stack,
  batch: Batch,
  numbers: Numbers,
  isSound: (stories: readonly Story[]) => boolean,
): Promise<Played> {
  const startedAt = performance.now();
  const stalls = monitorEventLoopDelay({ resolution: 5 });
  stalls.enable();
  const outages: Outage[] = [];
  const players = await Promise.all(batch.plans.map((plan) => createPlayer(stack, plan, numbers)));
  const sights = createSights(stack, new Date().toISOString());
  const dying = inflict(stack, batch.outages, outages);
  try {
    await Promise.all(players.map((player) => player.act()));
    await dying;
    await Promise.all(players.map((player) => player.settleDown()));
    const commands = players.flatMap((player) => player.accepted());
    await sights.everyEnd(commands);
    const ids = commands.map(({ id }) => id);
    const look = async () => {
      const records = await showAll(stack, ids);
      const stallMs = Math.ceil(stalls.max / 1e6);
      return players.map((player) =>
        player.story({ outages, sights: sights.all, records, stallMs }),
      );
    };
    let stories = await look();
    const until = performance.now() + lateAnswersMs;
    while (!isSound(stories) && performance.now() < until) {
      await delay(lookAgainMs);
      stories = await look();
    }
    return { stories, tookMs: Math.round(performance.now() - startedAt) };
  } finally {
    stalls.disable();
    await sights.stop();
    for (const player of players) player.stop();
  }
}

async function inflict(
  stack: Stack,
  planned: readonly PlannedOutage[],
  outages: Outage[],
): Promise<void> {
  for (const { role, signal, afterMs, downMs } of planned) {
    await delay(afterMs);
    const outage = { role, signal, from: Date.now(), to: Number.POSITIVE_INFINITY };
    outages.push(outage);
    await stack.kill(role, signal);
    await delay(downMs);
    await stack.restart(role);
    outage.to = Date.now();
  }
}
