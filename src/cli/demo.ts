/**
 * `downlink demo`: the whole system on this machine, a fleet of simulated devices, commands through the
 * HTTP API, and at the end the devices' own account of it beside the API's.
 */
import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { DownlinkError } from '../errors.ts';
import { createLifecycle, onSignal } from '../lifecycle/lifecycle.ts';
import { createLog } from '../log/log.ts';
import { compare, type Difference } from '../simulator/expectation.ts';
import { createFleet, type Fleet } from '../simulator/fleet.ts';
import { type ApiClient, createApiClient, type ShownCommand } from './demo-client.ts';
import {
  createProgress,
  differencesOf,
  type Figures,
  figuresOf,
  invitation,
  tableOf,
} from './demo-report.ts';
import { type Stack, startStack } from './demo-stack.ts';
import { type Member, membersOf, sendWorkload, type Workload } from './demo-workload.ts';

export type DemoOptions = {
  /** Stay up afterwards, until Ctrl-C. */
  keep?: boolean;
  devices?: number;
  commands?: number;
  /** One JSON object on standard output in place of the table. */
  json?: boolean;
  seed?: number;
};

const defaultDevices = 200;
const defaultCommands = 2000;
const pollMs = 500;
const onlineTimeoutMs = 30_000;
/** After the last command was accepted. */
const endTimeoutMs = 120_000;
const allStatuses = 'scheduled,queued,parked,sent';

/**
 * Runs the demo; resolves with true when every command ended as the devices say it should. Sets the
 * exit code otherwise.
 */
export async function runDemo(options: DemoOptions = {}): Promise<boolean> {
  const { keep = false, json = false, seed = 7 } = options;
  const { devices = defaultDevices, commands = defaultCommands } = options;
  const stop = new AbortController();
  // every command that is still to be sent listens
  setMaxListeners(0, stop.signal);
  // the second signal finds no handler and ends the process at once
  const forget = (['SIGINT', 'SIGTERM'] as const).map((signal) =>
    onSignal(signal, () => {
      say('stopping');
      stop.abort();
      for (const one of forget) one();
    }),
  );
  const log = createLog({ level: 'warn', role: 'demo' });
  const lifecycle = createLifecycle({ log });
  let ok = false;
  try {
    const stack = await startStack({ lifecycle, log, say, onLog: sayRaw });
    stop.signal.throwIfAborted();
    for (const { name, from } of stack.stores) say(`${name.padEnd(11)}${from}`);

    const members = membersOf(devices, seed);
    const fleet = await connectFleet(stack, members, seed);
    lifecycle.onClose('devices', () => fleet.stop());
    const client = createApiClient({ url: stack.apiUrl, key: stack.apiKey });
    await allOnline(client, members, stop.signal);
    say(`${devices} devices are connected; sending ${commands} commands`);

    const run = await runWorkload({ stack, client, members, commands, seed, signal: stop.signal });
    const differences = differencesIn(run, fleet, stack);
    const calm = new Set(members.filter(isCalm).map(({ deviceId }) => deviceId));
    const figures = figuresOf(run.shown, (deviceId) => calm.has(deviceId));
    ok = differences.length === 0;
    if (json) printJson({ ok, devices, figures, differences, fleet, stack });
    else printTable(figures, differences);

    if (keep && !stop.signal.aborted) {
      // with --json standard output holds that object alone
      (json ? tell : print)(['', ...invitation(stack, exampleOf(members))]);
      await untilAborted(stop.signal);
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    say('interrupted');
  } finally {
    stop.abort();
    for (const one of forget) one();
    if (!ok) process.exitCode = 1;
    await lifecycle.close();
  }
  return ok;
}

async function connectFleet(stack: Stack, members: Member[], seed: number): Promise<Fleet> {
  say(`connecting ${members.length} devices`);
  const fleet = createFleet({ ...stack.tcp, devices: members, seed });
  try {
    await fleet.start();
  } catch (error) {
    await fleet.stop();
    throw error;
  }
  return fleet;
}

/** A device is known to the API a moment after its login was answered. */
async function allOnline(
  client: ApiClient,
  members: readonly Member[],
  signal: AbortSignal,
): Promise<void> {
  const giveUpAt = performance.now() + onlineTimeoutMs;
  for (;;) {
    const online = new Set(await client.online());
    const missing = members.filter(({ deviceId }) => !online.has(deviceId));
    if (missing.length === 0) return;
    if (performance.now() > giveUpAt) {
      const text = `${missing.length} of ${members.length} connected devices are not shown as online by the API within ${onlineTimeoutMs} ms`;
      throw new DownlinkError('TIMEOUT', text);
    }
    await delay(pollMs, undefined, { signal });
  }
}

type Run = Workload & { shown: ShownCommand[] };

/** Sends everything and waits for every end, showing how far it is. */
async function runWorkload(deps: {
  stack: Stack;
  client: ApiClient;
  members: readonly Member[];
  commands: number;
  seed: number;
  signal: AbortSignal;
}): Promise<Run> {
  const { stack, client, commands, signal } = deps;
  // clocks agree, but the first command may be accepted within this millisecond
  const from = new Date(Date.now() - 1000).toISOString();
  const progress = createProgress(commands, process.stderr);
  const ids = new Set<string>();
  const enough = new AbortController();
  const until = AbortSignal.any([signal, enough.signal]);
  setMaxListeners(0, until);
  let workload: Workload | undefined;
  const sending = sendWorkload({ ...deps, signal: until, onAccepted: (id) => ids.add(id) }).then(
    (result) => {
      workload = result;
      return result;
    },
  );
  // awaited below, on every way but that of an error, which tells more
  sending.catch(() => undefined);
  try {
    let giveUpAt = Number.POSITIVE_INFINITY;
    while (performance.now() < giveUpAt && stack.casualties().length === 0) {
      const accepted = ids.size;
      const listed = await client.list({ from, status: allStatuses });
      const unfinished = listed.filter(({ id }) => ids.has(id)).length;
      progress.update(accepted, Math.max(0, accepted - unfinished));
      if (workload && unfinished === 0 && accepted === ids.size) break;
      if (workload) giveUpAt = Math.min(giveUpAt, performance.now() + endTimeoutMs);
      await delay(pollMs, undefined, { signal });
    }
  } finally {
    progress.end();
    enough.abort();
  }
  const { sent, refused } = await sending;
  const shown = (await client.list({ from })).filter(({ id }) => ids.has(id));
  return { sent, refused, shown };
}

function differencesIn({ sent, refused, shown }: Run, fleet: Fleet, stack: Stack): Difference[] {
  const byId = new Map(shown.map((command) => [command.id, command]));
  return [
    ...stack.casualties().map((says) => ({ id: '-', deviceId: '-', command: '-', says })),
    ...refused.map((one) => ({ id: '-', ...one, says: `not accepted: ${one.says}` })),
    ...compare(sent, byId, fleet.log.frames()),
  ];
}

function printTable(figures: Figures, differences: readonly Difference[]): void {
  print(['', ...tableOf(figures), '']);
  if (differences.length === 0) {
    print(['Every command ended as its device says it should.']);
    return;
  }
  print([`${differences.length} differences between the API and the devices:`]);
  print(differencesOf(differences));
}

function printJson(run: {
  ok: boolean;
  devices: number;
  figures: Figures;
  differences: readonly Difference[];
  fleet: Fleet;
  stack: Stack;
}): void {
  const { fleet, stack, ...rest } = run;
  print([JSON.stringify({ ...rest, simulator: fleet.stats(), stores: stack.stores })]);
}

function isCalm({ temper }: Member): boolean {
  return temper === 'calm';
}

/** A port of a calm device that the commands so far did not touch. */
function exampleOf(members: readonly Member[]): { deviceId: string; body: object } {
  const calm = members.filter(isCalm);
  const bkv = calm.find(({ protocol }) => protocol === 'bkv');
  if (bkv) {
    const { deviceId } = bkv;
    const params = { socket: 250, port: 0, mode: 'time', minutes: 240 };
    return { deviceId, body: { deviceId, command: 'charge.start', params } };
  }
  const { deviceId } = calm[0] ?? members[0]!;
  const params = { port: 0, mode: 'time', seconds: 3600, orderNo: 'DEMO' };
  return { deviceId, body: { deviceId, command: 'charge.start', params } };
}

function untilAborted(signal: AbortSignal): Promise<void> {
  // nothing else may hold the process open
  const pulse = setInterval(() => undefined, 60_000);
  return new Promise((resolve) => {
    const end = () => {
      clearInterval(pulse);
      resolve();
    };
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  });
}

function say(sentence: string): void {
  process.stderr.write(`${sentence}\n`);
}

function tell(lines: readonly string[]): void {
  say(lines.join('\n'));
}

function sayRaw(text: string): void {
  process.stderr.write(text);
}

function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}
