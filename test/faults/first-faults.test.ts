/**
 * One run in which every process and every store dies once while commands keep coming. Every command that
 * was accepted must end, as what its device wrote down allows, and nothing may be left behind.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import { type RemoteFleet, startRemoteFleet } from '../../src/simulator/remote.ts';
import type { ShownCommand } from '../support/api-client.ts';
import { eventually } from '../support/eventually.ts';
import { type FaultyStack, startFaultyStack } from '../support/stack.ts';
import {
  type Accepted,
  check,
  type Fault,
  type FaultKind,
  type FinalRecord,
  type SeenClose,
  type SeenFrame,
} from './checker.ts';
import { type Planned, planCommands } from './fault-workload.ts';

const deviceCount = 150;
const commandCount = 1_000;
/** Sent in one go just before each fault, so that there is something to lose. */
const burst = 100;
/** Between the others, which are sent evenly, whatever goes on. */
const trickleEveryMs = 70;
const outageMs = 1_000;
const postgresOutageMs = 10_000;
const calmMs = 2_000;
/** Shorter than the minute after which a parked command looks around by itself: it must be woken. */
const endWithinMs = 45_000;

let stack: FaultyStack;
let fleet: RemoteFleet;

beforeAll(async () => {
  stack = await startFaultyStack();
  fleet = await startRemoteFleet({
    ...stack.tcp,
    devices: deviceCount,
    knobs: {
      ackDelayMs: [50, 300],
      refusal: 0.03,
      loss: 0.005,
      reconnectMs: [100, 800],
      loginRepeatMs: 2_000,
    },
  });
});

afterAll(async () => {
  await fleet?.stop();
  await stack?.stop();
});

test('nothing is lost while workers, gateway and stores die', { timeout: 150_000 }, async () => {
  const startedAt = performance.now();
  const load = createLoad();
  const faults: Fault[] = [];

  async function inflict(
    kind: FaultKind,
    break_: () => Promise<void>,
    mend: () => Promise<void>,
    ms = outageMs,
  ): Promise<void> {
    load.burst();
    await delay(150);
    const from = Date.now();
    await break_();
    await delay(ms);
    await mend();
    await eventually(async () => expect((await fleet.stats()).loggedIn).toBe(deviceCount), {
      withinMs: 20_000,
      everyMs: 100,
    });
    faults.push({ kind, from, to: Date.now() });
    say(`${kind}: over after ${Date.now() - from} ms`);
    await delay(calmMs);
  }

  const { redis, postgres } = stack;
  const trickle = load.trickle();
  await delay(calmMs);
  await inflict(
    'worker-kill',
    () => stack.kill('worker'),
    () => stack.restart('worker'),
  );
  await inflict(
    'gateway-kill',
    () => stack.kill('gateway'),
    () => stack.restart('gateway'),
  );
  await inflict(
    'postgres-stop',
    () => postgres.server.kill('SIGKILL'),
    () => postgres.server.start(),
    postgresOutageMs,
  );
  await inflict(
    'redis-restart',
    () => redis.server.kill('SIGTERM'),
    () => redis.server.start(),
  );
  await inflict(
    'redis-restart',
    () => redis.server.kill('SIGKILL'),
    () => redis.server.start(),
  );
  await trickle;
  await load.answered();
  const { accepted, refused } = load;
  say(`accepted ${accepted.length}, answered 503 ${refused.length}; ${load.durability()}`);
  expect(accepted.length + refused.length).toBe(commandCount);
  expect(accepted.length).toBeGreaterThan(commandCount * 0.9);

  const drainedFrom = performance.now();
  const records = await everyEnd(accepted);
  say(`all ended ${Math.round(performance.now() - drainedFrom)} ms after the last was sent`);
  const log = await fleet.entries();
  const verdict = check({ accepted, faults, log, records });
  say(tally(records.map(({ status }) => status)));
  say(`${verdict.framesSeen} frames seen, ${verdict.duplicates} of them again`);
  const codes = records.filter(({ id }) => verdict.unknowns.includes(id)).map(({ code }) => code);
  say(
    `unknown ${codes.length} of ${verdict.inFlightAtKills} in flight at the kills (${tally(codes)})`,
  );
  for (const problem of verdict.problems) tellStory(problem, records, log);
  expect(verdict.problems).toEqual([]);
  expect(verdict.counts['expired'] ?? 0).toBe(0);
  const repeatable = new Set(accepted.filter((one) => one.repeatable).map(({ id }) => id));
  expect(verdict.unknowns.filter((id) => repeatable.has(id))).toEqual([]);
  expect(verdict.unknowns.length).toBeLessThanOrEqual(verdict.inFlightAtKills);

  // Retries wait seconds, answers come within a second: an end that takes longer was forgotten.
  await eventually(async () => expect(await leftovers()).toEqual([]), { withinMs: 20_000 });
  say(`took ${Math.round((performance.now() - startedAt) / 1000)} s`);
});

type Load = {
  accepted: Accepted[];
  refused: { status: number; id: string | undefined }[];
  burst(): void;
  trickle(): Promise<void>;
  /** Resolves when every request was answered. */
  answered(): Promise<void>;
  durability(): string;
};

/** Sends the plan from its front, in bursts and evenly. */
function createLoad(): Load {
  const plan = planCommands(fleet.deviceIds, commandCount);
  const accepted: Accepted[] = [];
  const refused: Load['refused'] = [];
  const durabilities: string[] = [];
  const requests: Promise<void>[] = [];
  const bursts = 5 * burst;
  let next = 0;

  async function send({ body, repeatable, content }: Planned): Promise<void> {
    const answer = await stack.api.request('POST', '/v1/commands', body);
    const { id, acceptedAt, deadline, durability } = answer.body;
    if (answer.status !== 202) {
      expect(answer.status).toBe(503);
      refused.push({ status: answer.status, id });
      return;
    }
    durabilities.push(durability);
    accepted.push({
      id,
      deviceId: body.deviceId,
      command: body.command,
      repeatable,
      acceptedAt: Date.parse(acceptedAt),
      deadline: Date.parse(deadline),
      attempts: body.attempts,
      ...(content !== undefined && { content }),
    });
  }

  const sendNext = () => {
    const planned = plan[next];
    next += 1;
    if (planned) requests.push(send(planned));
  };

  return {
    accepted,
    refused,
    burst() {
      for (let i = 0; i < burst; i += 1) sendNext();
    },
    async trickle() {
      for (let i = 0; i < commandCount - bursts; i += 1) {
        sendNext();
        await delay(trickleEveryMs);
      }
    },
    async answered() {
      await Promise.all(requests);
    },
    durability: () => tally(durabilities),
  };
}

/** The records of all accepted commands, once they are final, as the API lists them. */
async function everyEnd(accepted: readonly Accepted[]): Promise<ShownCommand[]> {
  const ids = new Set(accepted.map(({ id }) => id));
  let shown: ShownCommand[] = [];
  await eventually(
    async () => {
      shown = await stack.api.list();
      const ended = shown.filter(({ id, final }) => final && ids.has(id)).length;
      expect(ended).toBe(ids.size);
    },
    { withinMs: endWithinMs, everyMs: 500 },
  ).catch((error: unknown) => {
    // The checker names what is missing better than a count does.
    say(`not all ended: ${error instanceof Error ? error.message : error}`);
  });
  return shown;
}

/** Everything about the command of a problem, for whoever has to find out. */
function tellStory(
  problem: string,
  records: readonly FinalRecord[],
  log: readonly (SeenFrame | SeenClose)[],
): void {
  const record = records.find(({ id }) => problem.includes(id));
  if (!record) return;
  say(JSON.stringify(record));
  for (const entry of log) {
    const mine =
      entry.kind === 'close'
        ? entry.deviceIds.includes(record.deviceId)
        : entry.deviceId === record.deviceId;
    if (mine) say(`  ${JSON.stringify(entry)}`);
  }
}

/** What still stands in Redis of commands that are over. */
async function leftovers(): Promise<string[]> {
  const client = connectRedis({ url: stack.redisUrl, purpose: 'blocking', name: 'leftovers' });
  try {
    const left: string[] = [];
    for (const key of await client.keys(`{${stack.prefix}-*}:marks:*`)) {
      // What a device got last, a wire id, a place, a stop, is kept among its marks.
      for (const [field, mark] of Object.entries(await client.hgetall(key))) {
        if (!field.startsWith('#')) left.push(`${key} ${field} ${mark}`);
      }
    }
    for (const kind of ['parked', 'outcome', 'line']) {
      left.push(...(await client.keys(`{${stack.prefix}-*}:${kind}:*`)));
    }
    for (const stream of ['outcomes', 'settlements', 'uplink']) {
      const entries = await client.xlen(`${stack.prefix}:${stream}`);
      if (entries > 0) left.push(`${entries} entries in the stream ${stream}`);
    }
    for (const key of await client.keys('*:outbound-*:*')) {
      const name = key.split(':').at(-1)!;
      if (['active', 'wait', 'paused'].includes(name)) {
        const ids = await client.lrange(key, 0, -1);
        if (ids.length > 0) left.push(`${key} ${ids.join(' ')}`);
      } else if (['delayed', 'prioritized'].includes(name)) {
        const ids = await client.zrange(key, '0', '-1');
        if (ids.length > 0) left.push(`${key} ${ids.join(' ')}`);
      } else if (name === 'lock') left.push(key);
    }
    return left;
  } finally {
    await closeRedis(client);
  }
}

function tally(names: readonly (string | null)[]): string {
  const counts = Map.groupBy(names, (name) => name);
  return [...counts].map(([name, group]) => `${name} ${group.length}`).join(', ');
}

function say(line: string): void {
  process.stdout.write(`  first faults: ${line}\n`);
}
