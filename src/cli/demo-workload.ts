/** What the demo sends: to every device a round of commands as an operator would, at a steady pace. */
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../errors.ts';
import { protocolNamed } from '../protocols/index.ts';
import type { Sent } from '../simulator/expectation.ts';
import type { DeviceSpec } from '../simulator/fleet.ts';
import { createRandom } from '../simulator/random.ts';
import type { ApiClient, CommandBody } from './demo-client.ts';

/** How a device was made; the stubborn ones show refusals, patience and retries. */
export type Temper = 'calm' | 'refusing' | 'slow' | 'forgetful';

export type Member = DeviceSpec & { temper: Temper };

/** One command of the plan; it is sent once the earlier one has ended. */
type Step = { member: Member; body: CommandBody; after: number | null };

export type Workload = {
  sent: Sent[];
  /** Requests that the API did not accept. */
  refused: { deviceId: string; command: string; says: string }[];
};

export type WorkloadDeps = {
  client: ApiClient;
  members: readonly Member[];
  commands: number;
  seed: number;
  /** Nothing is sent after it; what was sent till then is the workload. */
  signal: AbortSignal;
  onAccepted: (id: string) => void;
};

/** An AP3000 device wants half a second between commands. */
const roundMs = 600;
const maxRequests = 64;
const endPollMs = 200;
const endWaitMs = 30_000;

/** So many of each thousand devices are like that. */
const shares: [Temper, number][] = [
  ['refusing', 50],
  ['slow', 50],
  ['forgetful', 30],
];

const knobsOf: Record<Temper, NonNullable<DeviceSpec['knobs']>> = {
  calm: { ackDelayMs: [5, 60] },
  refusing: { ackDelayMs: [5, 60], refusal: 0.5 },
  slow: { ackDelayMs: [800, 2000] },
  forgetful: { ackDelayMs: [5, 60], loss: 0.4 },
};

/** Devices of both protocols, most of them calm. */
export function membersOf(count: number, seed: number): Member[] {
  const random = createRandom(seed, 'tempers');
  return Array.from({ length: count }, (_, i) => {
    const protocol = i % 2 === 0 ? ('bkv' as const) : ('ap3000' as const);
    const deviceId =
      protocol === 'bkv'
        ? `8220${String(i + 1).padStart(10, '0')}`
        : (0x04a0_0000 + i + 1).toString(16).padStart(8, '0');
    const temper = temperOf(random.whole(1, 1000));
    return { deviceId, protocol, temper, knobs: knobsOf[temper] };
  });
}

function temperOf(draw: number): Temper {
  let below = 0;
  for (const [temper, share] of shares) {
    below += share;
    if (draw <= below) return temper;
  }
  return 'calm';
}

/** Sends them all; resolves when the last was accepted or refused. */
export async function sendWorkload(deps: WorkloadDeps): Promise<Workload> {
  const { client, members, commands, signal, onAccepted } = deps;
  const steps = planOf(members, commands);
  const ids = new Map<number, string>();
  const workload: Workload = { sent: [], refused: [] };
  const slots = createSlots(maxRequests);
  const startedAt = performance.now();

  const one = async (step: Step, index: number) => {
    const { deviceId, command } = step.body;
    // spread evenly over its round
    const dueMs = (index / members.length) * roundMs;
    try {
      await delay(Math.max(0, startedAt + dueMs - performance.now()), undefined, { signal });
      if (step.after !== null) await endOf(step.after);
      const { id } = await slots(() => client.send(step.body));
      ids.set(index, id);
      const spec = protocolNamed(step.member.protocol)!.commands[command]!;
      const { ack, repeatable } = spec;
      workload.sent.push({ id, deviceId, command, ack, repeatable });
      onAccepted(id);
    } catch (error) {
      if (signal.aborted) return;
      workload.refused.push({ deviceId, command, says: messageOf(error) });
    }
  };

  /** A stop that overtakes its start would replace it: that is a story of its own. */
  async function endOf(index: number): Promise<void> {
    const giveUpAt = performance.now() + endWaitMs;
    while (performance.now() < giveUpAt) {
      const id = ids.get(index);
      if (id !== undefined && (await slots(() => client.get(id))).final) return;
      await delay(endPollMs, undefined, { signal });
    }
  }

  await Promise.all(steps.map(one));
  return workload;
}

function planOf(members: readonly Member[], commands: number): Step[] {
  const steps: Step[] = [];
  for (let i = 0; i < commands; i += 1) {
    const member = members[i % members.length]!;
    const round = Math.floor(i / members.length);
    const { body, after } = stepOf(member, round);
    // the same device's command, so many rounds earlier
    const index = after === null ? null : i - after * members.length;
    steps.push({ member, body, after: index });
  }
  return steps;
}

type Line = [command: string, params: Record<string, unknown>, after?: number];

/** The command of a device in a round; ten rounds make a cycle. `after` counts rounds back. */
function stepOf(member: Member, round: number): { body: CommandBody; after: number | null } {
  const cycle = Math.floor(round / 10);
  const lines =
    member.temper === 'forgetful'
      ? forgetfulLines[member.protocol]
      : member.protocol === 'bkv'
        ? bkvLines(1 + (cycle % 200))
        : ap3000Lines(`${member.deviceId}-${cycle}`);
  const [command, params, after = null] = lines[round % lines.length]!;
  const { deviceId } = member;
  const body = { deviceId, command, params };
  if (member.temper !== 'forgetful') return { body, after };
  // little patience, so that the demo shows retries without waiting a minute for them
  return { body: { ...body, ackTimeoutMs: 1500, attempts: 4, backoffMs: 300 }, after };
}

function bkvLines(socket: number): Line[] {
  const mac = (0x4500_3070_0000 + socket).toString(16).padStart(12, '0');
  const windows = [{ from: '08:00', to: '20:00' }];
  return [
    ['charge.start', { socket, port: 0, mode: 'time', minutes: 240 }],
    ['port.query', { socket }],
    ['params.read', { socket }],
    ['charge.stop', { socket, port: 0 }, 3],
    ['params.set', { socket, maxMinutes: 600, highTemperatureC: 80 }],
    ['charge.start', { socket, port: 1, mode: 'energy', energyWh: 900 }],
    ['network.add', { socket, mac }],
    ['voice.window', { socket, port: 0, buzzer: true, voice: true, windows }],
    ['port.query', { socket }],
    ['charge.stop', { socket, port: 1 }, 4],
  ];
}

function ap3000Lines(order: string): Line[] {
  const [first, second] = [`${order}A`, `${order}B`];
  return [
    ['charge.start', { port: 0, mode: 'time', seconds: 7200, orderNo: first }],
    ['device.locate', { seconds: 3 }],
    ['charge.modify', { port: 0, mode: 'time', seconds: 9000 }, 2],
    ['port.query', {}],
    ['charge.stop', { port: 0, orderNo: first }, 2],
    ['params.set', { group: 'basic', floatPercent: 25 }],
    ['charge.start', { port: 1, mode: 'energy', energyWh: 500, orderNo: second }],
    ['params.read', { group: 'basic' }, 2],
    ['device.mute', { mute: false }],
    ['charge.stop', { port: 1, orderNo: second }, 3],
  ];
}

/** Commands whose answer nothing else can stand in for. */
const forgetfulLines: Record<Member['protocol'], Line[]> = {
  bkv: [
    ['params.read', { socket: 1 }],
    ['network.delete', { socket: 9 }],
  ],
  ap3000: [
    ['device.locate', { seconds: 1 }],
    ['params.read', { group: 'advanced' }],
  ],
};

/** Runs at most so many at a time; the others wait in line. */
function createSlots(count: number): <T>(run: () => Promise<T>) => Promise<T> {
  const line: (() => void)[] = [];
  let free = count;
  return async (run) => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => line.push(resolve));
    try {
      return await run();
    } finally {
      const next = line.shift();
      if (next) next();
      else free += 1;
    }
  };
}
