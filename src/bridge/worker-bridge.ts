/** The worker's end of the bridge: deliveries and their receipts. */
import type { Redis } from 'ioredis';
import { DownlinkError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Outcome } from '../outcome.ts';
import type { Keys } from './keys.ts';
import {
  type Delivery,
  type Event,
  parseBatch,
  type Receipt,
  type Unanswered,
} from './messages.ts';
import { createOutbox } from './outbox.ts';
import { liveGateways } from './presence.ts';
import { createWithdrawals, type Withdrawals } from './withdrawals.ts';
import { beatWorker } from './workers.ts';

export type DeliveryListener = {
  /** It stands in the lane of its device and waits there for its turn. */
  lined(): void;
  /** The gateway handed the bytes to the socket. May be called more than once. */
  written(at: number): void;
};

export type WorkerBridge = {
  readonly workerId: string;
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Publishes and waits for the end, whatever it is; bounded by the deadline and the ack timeout. */
  deliver(
    delivery: Delivery,
    target: { gatewayId: string; again: boolean },
    listener: DeliveryListener,
  ): Promise<Outcome>;
  settled(gatewayId: string, id: string, attempt: number): void;
  /** Tells a gateway of a written frame whose answer may come to it now. */
  remember(gatewayId: string, unanswered: Unanswered): void;
  /** Takes deliveries back; whoever waits for their ends hears of it in the usual way. */
  readonly withdrawals: Withdrawals;
  /** True when the outcome found somebody who waits for it. */
  offer(id: string, attempt: number, outcome: Outcome): boolean;
  /** Their jobs went to another worker: nothing is asked after here any more, and who waits settles nothing. */
  abandon(ids: readonly string[]): void;
  isLive(gatewayId: string): boolean;
  liveGatewayCount(): number;
  /** True while the bridge has heard itself lately. */
  alive(): boolean;
  /** Deliveries that wait for their end. */
  pending(): number;
};

export type WorkerBridgeDeps = {
  workerId: string;
  redis: Redis;
  subscriber: Redis;
  keys: Keys;
  log: Log;
  /** So many parked commands of this device may go. */
  onWake(deviceId: string, room: number, event: string): void;
  /** Redis is there again: words on the channels were missed. */
  onBack(): void;
  /** An end for which no delivery waits here. */
  onOrphan(orphan: { id: string; attempt: number; deviceId: string; outcome: Outcome }): void;
  onMessages?: (direction: 'in' | 'out', count: number) => void;
  now?: () => number;
};

/** A published delivery without any receipt is published again after so long. */
const receiptTimeoutMs = 1_000;
/** One that stands in a lane is asked after so often. */
const inquireEveryMs = 5_000;
/** The gateway measures the ack timeout; we wait so much longer before we call it silent. */
const backstopMs = 2_000;
const sweepEveryMs = 250;
/** A sweep that comes so late says that this process stood still. */
const maxStallMs = 2_000;
/** After an outage or a stall of our own, gateways have so long to repeat what we missed. */
const holdMs = 4_000;
const beatEveryMs = 2_000;

type PendingDelivery = {
  delivery: Delivery;
  gatewayId: string;
  again: boolean;
  publishedAt: number;
  receipt: 'none' | 'lined' | 'written';
  writtenAt: number | null;
  waiters: {
    resolve(outcome: Outcome): void;
    reject(error: Error): void;
    listener: DeliveryListener;
  }[];
};

export function createWorkerBridge(deps: WorkerBridgeDeps): WorkerBridge {
  const { workerId, redis, subscriber, keys, log } = deps;
  const now = deps.now ?? Date.now;
  const outbox = createOutbox({
    redis,
    from: workerId,
    onPublished: (count) => deps.onMessages?.('out', count),
  });
  const withdrawals = createWithdrawals({ from: workerId, outbox, keys });
  const own = keys.workerChannel(workerId);
  const pendings = new Map<string, PendingDelivery>();
  /** Gateway → until when its lease stands, by our own clock since we heard it. */
  const leases = new Map<string, number>();
  let timers: NodeJS.Timeout[] = [];
  let heardAt = now();
  let sweptAt = now();
  let judgeFrom = 0;

  function onMessage(channel: string, text: string): void {
    heardAt = now();
    if (channel === own) {
      const { messages, faults } = parseBatch('receipt', text);
      complain(faults);
      deps.onMessages?.('in', messages.length);
      for (const receipt of messages) onReceipt(receipt);
      return;
    }
    const { messages, faults } = parseBatch('event', text);
    complain(faults);
    for (const event of messages) onEvent(event);
  }

  function complain(faults: string[]): void {
    for (const fault of faults) log.warn({ fault: fault.slice(0, 300) }, 'bridge message refused');
  }

  function onReceipt(receipt: Receipt): void {
    withdrawals.receive(receipt);
    const pending = pendings.get(receipt.id);
    if (!pending || pending.delivery.attempt !== receipt.attempt) {
      if (receipt.t === 'ended') deps.onOrphan(receipt);
      return;
    }
    if (receipt.t === 'lined') {
      if (pending.receipt === 'none') pending.receipt = 'lined';
      for (const { listener } of pending.waiters) listener.lined();
      return;
    }
    if (receipt.t === 'ended') {
      const { kind } = receipt.outcome;
      const denied = kind === 'unwritten' || kind === 'refused';
      // A gateway that has forgotten the write, a namesake of the one that made it, cannot take it back.
      end(
        pending,
        denied && pending.writtenAt !== null ? lost(pending, 'gateway-lost') : receipt.outcome,
      );
      return;
    }
    pending.receipt = 'written';
    pending.writtenAt = receipt.at;
    for (const { listener } of pending.waiters) listener.written(receipt.at);
  }

  function onEvent(event: Event): void {
    if (event.t === 'gateway') leases.set(event.gatewayId, now() + event.leaseMs);
    else if (event.t === 'gateway-gone') leases.delete(event.gatewayId);
    else if (event.t === 'wake') deps.onWake(event.deviceId, event.room, event.event);
  }

  function end(pending: PendingDelivery, outcome: Outcome): void {
    pendings.delete(pending.delivery.id);
    for (const { resolve } of pending.waiters) resolve(outcome);
  }

  function publish(pending: PendingDelivery): void {
    const { again } = pending;
    pending.publishedAt = now();
    outbox.send(keys.gatewayChannel(pending.gatewayId), pending.delivery, (sent) => {
      // A publish that failed is sent again by the sweep: deliveries are idempotent.
      if ('error' in sent || sent.receivers > 0) return;
      if (pendings.get(pending.delivery.id) !== pending) return;
      // After an outage the gateway's subscription may come back later than ours: the sweep publishes
      // again, and as long as nobody listened it is still the first time.
      if (subscriber.status !== 'ready' || now() < judgeFrom) {
        pending.again = again;
        return;
      }
      if (again) end(pending, lost(pending, 'gateway-lost'));
      else end(pending, { kind: 'unwritten', reason: 'offline', detail: 'no gateway listened' });
    });
    // Whatever is published under this mark from now on is a repetition.
    pending.again = true;
  }

  function lost(pending: PendingDelivery, reason: 'gateway-lost' | 'gateway-silent'): Outcome {
    return { kind: 'ambiguous', reason, writtenAt: pending.writtenAt, endedAt: now() };
  }

  /** Asks after what is overdue and gives up what can no longer be answered. */
  function sweep(): void {
    // While Redis is away nobody can be heard, so nobody is judged.
    if (subscriber.status !== 'ready' || redis.status !== 'ready') return;
    const at = now();
    // We were stalled ourselves: what the gateways said meanwhile is still to be read.
    if (at - sweptAt > maxStallMs) hold();
    sweptAt = at;
    for (const pending of pendings.values()) {
      const { delivery, publishedAt, receipt, writtenAt } = pending;
      const waited = at - publishedAt;
      if (waited < receiptTimeoutMs) continue;
      const due = (writtenAt ?? Math.max(delivery.deadline, publishedAt)) + delivery.ackTimeoutMs;
      if (at < judgeFrom) publish(pending);
      else if (!isLive(pending.gatewayId)) end(pending, lost(pending, 'gateway-lost'));
      else if (at > due + backstopMs) end(pending, lost(pending, 'gateway-silent'));
      else if (receipt === 'none' || waited > inquireEveryMs) publish(pending);
    }
  }

  function alive(): boolean {
    return now() - heardAt < 3 * beatEveryMs;
  }

  function isLive(gatewayId: string): boolean {
    return (leases.get(gatewayId) ?? 0) > now();
  }

  /** Nobody is judged for a while; all that is open is asked after instead. */
  function hold(): void {
    judgeFrom = now() + holdMs;
  }

  /** After an outage of our own every gateway gets a whole lease to be heard again. */
  async function readDirectory(): Promise<void> {
    for (const { gatewayId, leaseMs } of (await liveGateways(redis, keys)).values()) {
      leases.set(gatewayId, now() + leaseMs);
    }
  }

  function onReady(): void {
    heardAt = now();
    hold();
    deps.onBack();
    for (const [gatewayId, until] of leases) leases.set(gatewayId, Math.max(until, now() + 10_000));
    readDirectory().catch(() => undefined);
  }

  return {
    workerId,
    async start() {
      subscriber.on('message', onMessage);
      await subscriber.subscribe(own, keys.eventsChannel());
      subscriber.on('ready', onReady);
      redis.on('ready', hold);
      await readDirectory();
      const beat = () => {
        const text = `{"v":1,"from":${JSON.stringify(workerId)},"m":[]}`;
        redis.publish(own, text).catch(() => undefined);
        beatWorker(redis, keys, workerId).catch(() => undefined);
        // Half open: Redis still counts us as a listener, and we hear nothing.
        if (subscriber.status === 'ready' && !alive()) subscriber.disconnect(true);
      };
      timers = [setInterval(sweep, sweepEveryMs), setInterval(beat, beatEveryMs)];
    },
    async stop() {
      for (const timer of timers) clearInterval(timer);
      subscriber.off('message', onMessage);
      subscriber.off('ready', onReady);
      redis.off('ready', hold);
      await subscriber.unsubscribe().catch(() => undefined);
    },
    deliver(delivery, { gatewayId, again }, listener) {
      return new Promise<Outcome>((resolve, reject) => {
        const known = pendings.get(delivery.id);
        if (known && known.delivery.attempt === delivery.attempt) {
          // The job was started again while its first run still waits: both get the one answer.
          known.waiters.push({ resolve, reject, listener });
          return;
        }
        // A run that lost its job to this one would wait for ever. It must settle nothing any more.
        for (const waiter of known?.waiters ?? []) {
          waiter.reject(
            new DownlinkError('CONFLICT', `a newer attempt of ${delivery.id} took over`),
          );
        }
        const pending: PendingDelivery = {
          delivery,
          gatewayId,
          again,
          publishedAt: now(),
          receipt: 'none',
          writtenAt: null,
          waiters: [{ resolve, reject, listener }],
        };
        pendings.set(delivery.id, pending);
        if (again && !isLive(gatewayId)) end(pending, lost(pending, 'gateway-lost'));
        else publish(pending);
      });
    },
    settled(gatewayId, id, attempt) {
      outbox.send(keys.gatewayChannel(gatewayId), { t: 'settled', id, attempt });
    },
    remember(gatewayId, { delivery, writtenAt, until }) {
      const forMs = Math.max(1, until - now());
      outbox.send(keys.gatewayChannel(gatewayId), { t: 'remember', delivery, writtenAt, forMs });
    },
    withdrawals,
    offer(id, attempt, outcome) {
      const pending = pendings.get(id);
      if (!pending || pending.delivery.attempt !== attempt) return false;
      end(pending, outcome);
      return true;
    },
    abandon(ids) {
      for (const id of ids) {
        const pending = pendings.get(id);
        pendings.delete(id);
        for (const { reject } of pending?.waiters ?? []) {
          reject(new DownlinkError('CONFLICT', `the job of ${id} went to another worker`));
        }
      }
    },
    isLive,
    liveGatewayCount: () => [...leases.keys()].filter(isLive).length,
    alive,
    pending: () => pendings.size,
  };
}
