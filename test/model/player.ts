/** Plays one sequence: asks, steers its two devices, and writes down what it was told. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Stack } from '../support/stack.ts';
import { createModelDevice, type ModelDevice } from './device.ts';
import type { DeviceIndex, Plan, Send, Step } from './plan.ts';
import type { AcceptedCommand } from './sights.ts';
import type { Asked, Cancelled, Held, Outage, Shown, Sight, Story } from './story.ts';
import { orderOf, type ProtocolName, type Worded, word } from './wishes.ts';

/** Numbers devices over all batches of a run. */
export type Numbers = { next: number };

export const caps = { maxPerKey: 3, maxPerDevice: 7 } as const;

/** A stalled job is found within two intervals of 5 s after its lock of 10 s; then its attempt is judged. */
const afterDeadlineMs = 35_000;
const protocols: readonly [ProtocolName, ProtocolName] = ['bkv', 'ap3000'];

type Common = {
  outages: readonly Outage[];
  sights: readonly Sight[];
  records: ReadonlyMap<string, Shown>;
  stallMs: number;
};

type Prepared = { worded: Worded; body: Record<string, unknown> };

export type Player = {
  act(): Promise<void>;
  /** Nothing is asked any more, and the devices do what they are told. */
  settleDown(): Promise<void>;
  accepted(): AcceptedCommand[];
  story(common: Common): Story;
  stop(): void;
};

export async function createPlayer(stack: Stack, plan: Plan, numbers: Numbers): Promise<Player> {
  const number = numbers.next;
  numbers.next += 1;
  const devices: readonly [ModelDevice, ModelDevice] = [
    createModelDevice({
      ...stack.tcp,
      deviceId: `8233${String(number).padStart(10, '0')}`,
      protocol: 'bkv',
      repeats: plan.repeats,
    }),
    createModelDevice({
      ...stack.tcp,
      deviceId: (0x04b0_0000 + number).toString(16).padStart(8, '0'),
      protocol: 'ap3000',
      repeats: plan.repeats,
    }),
  ];
  for (const one of devices) {
    await must(stack, 'PUT', `/v1/devices/${one.deviceId}`, { protocol: one.protocol });
    one.connect();
  }
  await Promise.all(devices.map((one) => one.loggedIn()));

  const asked: Asked[] = [];
  const cancelled: Cancelled[] = [];
  const held: Held[] = [];
  const orders = new Map<string, string>();
  let lastNumber = 0;
  let lastKeyed: { send: Send; prepared: Prepared; key: string } | null = null;

  /** Words the wish; the number makes its frame unlike any other of the device. */
  function prepare(send: Send): Prepared {
    const one = devices[send.device];
    lastNumber += 1;
    const { wish, options } = send;
    const portKey = 'port' in wish ? `${send.device} ${wish.port}` : '';
    const worded = word(protocols[send.device], wish, lastNumber, orders.get(portKey) ?? null);
    if (wish.what === 'start') orders.set(portKey, orderOf(lastNumber));
    const { ownLine, onAmbiguous, ...rest } = options;
    const line = worded.kind === 'query' && ownLine ? 'mine' : null;
    // What has no probe is refused with one.
    const policy = onAmbiguous === 'probe' && worded.kind !== 'start' ? undefined : onAmbiguous;
    const body = {
      deviceId: one.deviceId,
      command: worded.command,
      params: worded.params,
      ...rest,
      ...(policy !== undefined && { onAmbiguous: policy }),
      ...(line !== null && { orderKey: line }),
    };
    return { worded: { ...worded, line: worded.line ?? line }, body };
  }

  async function ask(send: Send): Promise<void> {
    const prepared = prepare(send);
    const key = send.keyed ? `${devices[send.device].deviceId}-${lastNumber}` : null;
    if (key !== null) lastKeyed = { send, prepared, key };
    await post(prepared, key, 'first');
  }

  async function again(other: boolean): Promise<void> {
    if (!lastKeyed) return;
    const { send, prepared, key } = lastKeyed;
    await (other ? post(prepare(send), key, 'other') : post(prepared, key, 'same'));
  }

  async function post(
    { worded, body }: Prepared,
    key: string | null,
    keyUse: Asked['keyUse'],
  ): Promise<void> {
    const askedAt = Date.now();
    const headers: Record<string, string> = key === null ? {} : { 'idempotency-key': key };
    const answer = await stack.api.request('POST', '/v1/commands', body, headers);
    const shown = answer.body;
    const isAccepted = answer.status === 202 || answer.status === 200;
    asked.push({
      ...worded,
      deviceId: String(body['deviceId']),
      askedAt,
      answeredAt: Date.now(),
      status: answer.status,
      code: isAccepted ? null : String(shown['code']),
      because: isAccepted ? null : String(shown['id'] ?? shown['detail']),
      id: isAccepted ? String(shown['id']) : null,
      acceptedAt: isAccepted ? Date.parse(shown['acceptedAt']) : askedAt,
      dueAt: isAccepted ? Date.parse(shown['notBefore']) : askedAt,
      deadline: isAccepted ? Date.parse(shown['deadline']) : askedAt,
      ackTimeoutMs: Number(body['ackTimeoutMs']),
      attempts: isAccepted ? Number(shown['maxAttempts']) : 0,
      key,
      keyUse,
      body: JSON.stringify(body),
    });
  }

  async function cancel(back: number): Promise<void> {
    const ids = asked.flatMap(({ id }) => (id === null ? [] : [id]));
    const id = ids.at(-1 - back);
    if (id === undefined) return;
    const askedAt = Date.now();
    const answer = await stack.api.request('DELETE', `/v1/commands/${id}`);
    cancelled.push({
      id,
      askedAt,
      answeredAt: Date.now(),
      status: answer.status,
      code: answer.status < 300 ? null : String(answer.body['code']),
    });
  }

  async function hold(what: Held['what'], index: DeviceIndex): Promise<void> {
    const { deviceId } = devices[index];
    const askedAt = Date.now();
    const answer = await stack.api.request('POST', `/v1/devices/${deviceId}/${what}`, {});
    held.push({ deviceId, what, askedAt, answeredAt: Date.now(), status: answer.status });
  }

  async function act(step: Step): Promise<void> {
    switch (step.do) {
      case 'send':
        return ask(step);
      case 'burst':
        await Promise.all(step.sends.map((one) => ask(one)));
        return;
      case 'again':
        return again(step.other);
      case 'cancel':
        return cancel(step.back);
      case 'connect':
        return devices[step.device].connect();
      case 'leave':
        return devices[step.device].leave(step.how);
      case 'meet':
        return devices[step.device].meet(step.fates);
      case 'finish':
        return devices[step.device].finish();
      case 'pause':
      case 'resume':
        return hold(step.do, step.device);
      case 'wait':
        await delay(step.ms);
    }
  }

  return {
    async act() {
      for (const step of plan.steps) await act(step);
    },
    async settleDown() {
      for (const index of [0, 1] as const) {
        const last = held.findLast(({ deviceId }) => deviceId === devices[index].deviceId);
        if (last?.what === 'pause') await hold('resume', index);
        devices[index].calm();
        devices[index].connect();
      }
      await Promise.all(devices.map((one) => one.loggedIn()));
    },
    accepted: () =>
      asked.flatMap(({ id, deadline, ackTimeoutMs }) =>
        id === null ? [] : [{ id, giveUpAt: deadline + ackTimeoutMs + afterDeadlineMs }],
      ),
    story({ outages, sights, records, stallMs }) {
      const ids = new Set(asked.flatMap(({ id }) => (id === null ? [] : [id])));
      return {
        asked,
        cancelled,
        held,
        frames: devices.flatMap((one) => one.frames),
        closes: devices.flatMap((one) => one.closes),
        outages,
        sights: sights.filter(({ id }) => ids.has(id)),
        records: [...ids].flatMap((id) => records.get(id) ?? []),
        stallMs,
        inFlight: Object.fromEntries(devices.map(({ deviceId }) => [deviceId, 1])),
        ...caps,
      };
    },
    stop() {
      for (const one of devices) one.stop();
    },
  };
}

async function must(stack: Stack, method: string, path: string, body: unknown): Promise<void> {
  const answer = await stack.api.request(method, path, body);
  if (answer.status < 300) return;
  throw new Error(`${method} ${path} → ${answer.status} ${JSON.stringify(answer.body)}`);
}
