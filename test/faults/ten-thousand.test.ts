/**
 * 10,000 commands to 500 devices that drop, stall, answer late, refuse and reconnect; nothing of ours dies.
 * What each device wrote down decides which end its commands may have: `expired` only where no frame came,
 * `unknown` only where a frame went unanswered.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type RemoteFleet, startRemoteFleet } from '../../src/simulator/remote.ts';
import type { ShownCommand } from '../support/api-client.ts';
import { eventually } from '../support/eventually.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { type Accepted, check, type Verdict } from './checker.ts';
import { type Planned, planCommands } from './fault-workload.ts';

const deviceCount = 500;
const commandCount = 10_000;
/** Over which the commands are sent, evenly. */
const loadMs = 50_000;
const tickMs = 100;
const ackTimeoutMs = 1_000;
const backoffMs = 200;
const attempts = 8;
/** Every tenth command has little time: its device may be away for longer. */
const shortTtlMs = 1_500;
const everyEndMs = 90_000;
/** The latest answer, its way into the row, and as much again. */
const lateMs = 15_000;
const conflictRetryMs = 250;

let stack: Stack;
let fleet: RemoteFleet;

beforeAll(async () => {
  stack = await startStack();
  fleet = await startRemoteFleet({
    ...stack.tcp,
    devices: deviceCount,
    knobs: {
      ackDelayMs: [20, 300],
      loss: 0.04,
      refusal: 0.06,
      disconnect: 0.02,
      late: 0.04,
      lateMs: [1_500, 4_000],
      garbage: 0.01,
      reconnectMs: [300, 8_000],
      loginRepeatMs: 2_000,
      stateAtLogin: true,
    },
  });
});

afterAll(async () => {
  await fleet?.stop();
  await stack?.stop();
});

test('10,000 commands to 500 unruly devices end as the devices saw them', {
  timeout: 300_000,
}, async () => {
  const startedAt = performance.now();
  const load = createLoad();
  const unrest = createUnrest();
  await load.send();
  await unrest.end();
  say(`${load.accepted.length} accepted after ${load.conflicts} conflicts`);
  expect(load.accepted).toHaveLength(commandCount);

  const records = await everyEnd(load.accepted);
  const verdict = await soundVerdict(load.accepted, records);
  say(
    Object.entries(verdict.counts)
      .map(([status, count]) => `${status} ${count}`)
      .join(', '),
  );
  say(`${verdict.framesSeen} frames seen, ${verdict.duplicates} of them again`);
  say(`took ${Math.round((performance.now() - startedAt) / 1000)} s`);
  expect(verdict.problems).toEqual([]);
  // The run was as unruly as it says.
  for (const status of ['succeeded', 'rejected', 'expired', 'unknown']) {
    expect(verdict.counts[status] ?? 0, status).toBeGreaterThan(0);
  }
});

function createLoad() {
  const plan = planCommands(fleet.deviceIds, commandCount).map(inThisRun);
  const accepted: Accepted[] = [];
  const load = { accepted, conflicts: 0, send };

  async function send(): Promise<void> {
    const perTick = Math.ceil(commandCount / (loadMs / tickMs));
    const requests: Promise<void>[] = [];
    for (let next = 0; next < plan.length; next += perTick) {
      for (const planned of plan.slice(next, next + perTick)) requests.push(post(planned));
      await delay(tickMs);
    }
    await Promise.all(requests);
  }

  /** A start is refused while the one before it is unfinished: then it is sent again. */
  async function post(planned: Planned): Promise<void> {
    const { body, repeatable, content } = planned;
    const answer = await stack.api.request('POST', '/v1/commands', body);
    if (answer.status === 409) {
      load.conflicts += 1;
      await delay(conflictRetryMs);
      return post(planned);
    }
    expect(answer.status).toBe(202);
    accepted.push({
      id: answer.body['id'],
      deviceId: body.deviceId,
      command: body.command,
      repeatable,
      acceptedAt: Date.parse(answer.body['acceptedAt']),
      deadline: Date.parse(answer.body['deadline']),
      attempts: body.attempts,
      retries: { ackTimeoutMs, backoffMs },
      ...(content !== undefined && { content }),
      // A newer set of the same values takes the place of one that waits.
      ...(body.command === 'params.set' && { mayEnd: ['superseded'] }),
    });
  }

  return load;
}

function inThisRun(planned: Planned, index: number): Planned {
  const short = index % 10 === 7 && { ttlMs: shortTtlMs };
  return { ...planned, body: { ...planned.body, ackTimeoutMs, attempts, backoffMs, ...short } };
}

/** Devices stall for some seconds and lose their connections, a few at a time. */
function createUnrest(): { end(): Promise<void> } {
  const { deviceIds } = fleet;
  let over = false;
  let turn = 0;
  const running = (async () => {
    while (!over) {
      turn += 1;
      const pick = (i: number) => deviceIds[(turn * 37 + i * 61) % deviceIds.length]!;
      const silent = Array.from({ length: 8 }, (_, i) => pick(i));
      for (const id of silent) await fleet.steer(id, { what: 'silence', on: true });
      for (let i = 8; i < 12; i += 1) await fleet.steer(pick(i), { what: 'dropConnection' });
      await delay(2_000);
      for (const id of silent) await fleet.steer(id, { what: 'silence', on: false });
    }
  })();
  return {
    async end() {
      over = true;
      await running;
    },
  };
}

/** The records of all accepted commands once they are final. */
async function everyEnd(accepted: readonly Accepted[]): Promise<ShownCommand[]> {
  const ids = new Set(accepted.map(({ id }) => id));
  let shown: ShownCommand[] = [];
  await eventually(
    async () => {
      shown = await stack.api.list();
      expect(shown.filter(({ id, final }) => final && ids.has(id))).toHaveLength(ids.size);
    },
    { withinMs: everyEndMs, everyMs: 1_000 },
  ).catch(() => undefined);
  return shown;
}

/** The checker's word, once late answers have reached their rows. */
async function soundVerdict(
  accepted: readonly Accepted[],
  ended: readonly ShownCommand[],
): Promise<Verdict> {
  const judge = async (records: readonly ShownCommand[]) =>
    check({ accepted, faults: [], log: await fleet.entries(), records }, { mayExpire: true });
  let verdict = await judge(ended);
  const until = performance.now() + lateMs;
  while (!verdict.ok && performance.now() < until) {
    await delay(1_000);
    verdict = await judge(await stack.api.list());
  }
  return verdict;
}

function say(line: string): void {
  process.stdout.write(`  ten thousand: ${line}\n`);
}
