/** The gateway's end of the bridge on Redis: lease, presence, receipts, streams. */
import type { Redis } from 'ioredis';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Outcome } from '../outcome.ts';
import type { GatewayBridge, GatewayHandlers, Report } from './gateway-bridge.ts';
import type { Keys } from './keys.ts';
import { type Delivery, parseBatch, type StreamedOutcome, wholeLane } from './messages.ts';
import { createOutbox, type Sent } from './outbox.ts';
import { withBridgeScripts } from './scripts.ts';

export type GatewayBridgeDeps = {
  gatewayId: string;
  /** Fails fast while Redis is away. */
  redis: Redis;
  subscriber: Redis;
  keys: Keys;
  log: Log;
  leaseMs?: number;
  /** Most entries in the uplink stream before heartbeats, and only they, are dropped. */
  maxUplinkEntries?: number;
  /** Monotonic milliseconds. */
  clock?: () => number;
  onMessages?: (direction: 'in' | 'out', count: number) => void;
};

/** Takeovers of one id within the window before it counts as flapping. */
const flapWindowMs = 60_000;
const maxTakeovers = 30;
/** An end that its worker has not called settled by then goes to the stream as well. */
const settleGraceMs = 10_000;
const resendEveryMs = 2_000;
const registerChunk = 500;
/** An answer that comes within this time tells of the write as well, and saves its receipt. */
const receiptDelayMs = 15;

type Unsettled = { delivery: Delivery; outcome: Outcome; since: number; sentAt: number };

const isRefusal = ({ kind }: Outcome) => kind === 'unwritten' || kind === 'refused';

/** See `GatewayBridge`. Nothing happens before `start`. */
export function createGatewayBridge(deps: GatewayBridgeDeps): GatewayBridge {
  const { gatewayId, subscriber, keys, log, leaseMs = 10_000, maxUplinkEntries = 500_000 } = deps;
  const clock = deps.clock ?? (() => performance.now());
  const redis = withBridgeScripts(deps.redis);
  const outbox = createOutbox({
    redis,
    from: gatewayId,
    onPublished: (count) => deps.onMessages?.('out', count),
  });
  const own = keys.gatewayChannel(gatewayId);
  const unsettled = new Map<string, Unsettled>();
  /** At most the devices that were ever here: a login or a lane's room adds one. */
  const unheard = new Set<string>();
  const receipts = new Map<string, { channel: string; message: object }>();
  let receiptTimer: NodeJS.Timeout | undefined;
  let handlers: GatewayHandlers | undefined;
  let timers: NodeJS.Timeout[] = [];
  let draining = false;
  let leaseUntil = 0;
  let heardAt = 0;
  let beatNo = 0;
  let mustRegister = false;
  let uplinkFull = false;

  function onMessage(_channel: string, text: string): void {
    if (!handlers) return;
    heardAt = clock();
    const { messages, faults } = parseBatch('toGateway', text);
    for (const fault of faults) log.warn({ fault: fault.slice(0, 300) }, 'bridge message refused');
    deps.onMessages?.('in', messages.length);
    for (const message of messages) {
      if (message.t === 'deliver') handlers.deliver(message);
      else if (message.t === 'withdraw') handlers.withdraw(message);
      else if (message.t === 'evict') handlers.evict(message);
      else {
        unsettled.delete(`${message.id}:${message.attempt}`);
        handlers.settled(message);
      }
    }
  }

  /** Renews the lease. The clock is read before the write: a slow answer shortens the lease, never stretches it. */
  async function beat(): Promise<void> {
    const asked = clock();
    const load = handlers?.load() ?? { connections: 0, sessions: 0 };
    const [seconds, micros] = await redis.time();
    const at = Number(seconds) * 1000 + Math.floor(Number(micros) / 1000);
    const entry = JSON.stringify({ at, leaseMs, draining, ...load });
    const added = await redis.hset(keys.gateways(), gatewayId, entry);
    // Redis had forgotten us: it was flushed, or lost its memory on the way through a restart.
    if (added === 1 && leaseUntil !== 0) mustRegister = true;
    if (leaseUntil !== 0 && asked > leaseUntil) mustRegister = true;
    leaseUntil = asked + leaseMs;
    outbox.send(keys.eventsChannel(), { t: 'gateway', gatewayId, leaseMs, draining, ...load });
    // One's own channel echoes an empty batch: proof that the subscription lives.
    await redis.publish(own, `{"v":1,"from":${JSON.stringify(gatewayId)},"n":${beatNo++},"m":[]}`);
    announceUnheard();
    // Half open: Redis still counts us as a listener, and we hear nothing.
    if (subscriber.status === 'ready' && !alive()) subscriber.disconnect(true);
    if (mustRegister) {
      await registerAll();
      mustRegister = false;
    }
    if (beatNo % 3 === 0) uplinkFull = (await redis.xlen(keys.uplink())) > maxUplinkEntries;
  }

  /** After a flush or a lapse: every session stands again under its original epoch. */
  async function registerAll(): Promise<void> {
    const sessions = [...(handlers?.sessions() ?? [])];
    for (let i = 0; i < sessions.length; i += registerChunk) {
      await Promise.all(
        sessions.slice(i, i + registerChunk).map(async ({ deviceId, protocol, epoch }) => {
          const [ours, parked] = await redis.dlRegister(
            keys.presence(deviceId),
            keys.parked(deviceId),
            gatewayId,
            protocol,
            String(epoch),
          );
          if (Number(ours) === 0) {
            // Of an older epoch than the one that stands there; a newer session of ours stays.
            handlers?.evict({ t: 'evict', deviceId, epoch: epoch + 1 });
          } else if (Number(parked) > 0) announce(deviceId, wholeLane);
        }),
      );
    }
    if (sessions.length > 0) log.info({ sessions: sessions.length }, 'sessions registered again');
  }

  function registerSoon(): void {
    heardAt = clock();
    mustRegister = true;
  }

  function alive(): boolean {
    return clock() - heardAt < leaseMs;
  }

  /** A word that no worker heard is said again with the next heartbeats. */
  function announce(deviceId: string, room: number): void {
    outbox.send(keys.eventsChannel(), { t: 'wake', deviceId, room }, (sent) => {
      if ('error' in sent || sent.receivers === 0) unheard.add(deviceId);
    });
  }

  function announceUnheard(): void {
    const again = [...unheard];
    unheard.clear();
    for (const deviceId of again) announce(deviceId, wholeLane);
  }

  function sendReceipts(): void {
    receiptTimer = undefined;
    for (const { channel, message } of receipts.values()) outbox.send(channel, message);
    receipts.clear();
  }

  function publishEnd(entry: Unsettled): void {
    const { delivery, outcome } = entry;
    entry.sentAt = clock();
    const message = {
      t: 'ended',
      id: delivery.id,
      attempt: delivery.attempt,
      deviceId: delivery.deviceId,
      outcome,
    };
    outbox.send(keys.workerChannel(delivery.workerId), message, (sent: Sent) => {
      // A failed publish is tried again by `resend`.
      if ('receivers' in sent && sent.receivers === 0) toStreamQuietly(entry);
    });
  }

  function toStreamQuietly(entry: Unsettled): void {
    toStream(entry, false).catch((error) => {
      log.warn({ error: messageOf(error) }, 'outcome not stored yet');
    });
  }

  /** An end that nobody settled. A refusal needs no keeping: a new delivery finds out by itself. */
  async function toStream(entry: Unsettled, late: boolean): Promise<void> {
    const { delivery, outcome } = entry;
    const { id, attempt, deviceId, epoch, wireId, frame } = delivery;
    if (isRefusal(outcome)) return;
    const streamed: StreamedOutcome = {
      id,
      attempt,
      deviceId,
      gatewayId,
      epoch,
      wireId,
      frame,
      late,
      outcome,
    };
    await redis.xadd(keys.outcomes(), '*', 'o', JSON.stringify(streamed));
    unsettled.delete(`${id}:${attempt}`);
  }

  function resend(): void {
    const now = clock();
    for (const entry of unsettled.values()) {
      if (now - entry.sentAt < resendEveryMs) continue;
      if (now - entry.since < settleGraceMs) publishEnd(entry);
      else {
        entry.sentAt = now;
        toStreamQuietly(entry);
      }
    }
  }

  function beatQuietly(): void {
    beat().catch((error) => log.warn({ error: messageOf(error) }, 'heartbeat failed'));
  }

  return {
    gatewayId,
    async start(given) {
      handlers = given;
      subscriber.on('message', onMessage);
      await subscriber.subscribe(own);
      heardAt = clock();
      // Deaf for a moment: what was said meanwhile is made up for by announcing what is parked.
      subscriber.on('ready', registerSoon);
      await beat();
      timers = [setInterval(beatQuietly, leaseMs / 4), setInterval(resend, resendEveryMs / 4)];
    },
    drain() {
      draining = true;
      beatQuietly();
    },
    async stop() {
      for (const timer of timers) clearInterval(timer);
      leaseUntil = 0;
      for (const entry of unsettled.values()) {
        await toStream(entry, false).catch((error) => {
          log.error(
            { commandId: entry.delivery.id, error: messageOf(error) },
            'outcome not stored',
          );
        });
      }
      subscriber.off('message', onMessage);
      subscriber.off('ready', registerSoon);
      await subscriber.unsubscribe(own).catch(() => undefined);
      await redis.hdel(keys.gateways(), gatewayId).catch(() => undefined);
      const gone = JSON.stringify({ v: 1, from: gatewayId, m: [{ t: 'gateway-gone', gatewayId }] });
      await redis.publish(keys.eventsChannel(), gone).catch(() => undefined);
    },
    async login(deviceId, protocol) {
      const reply = await redis.dlLogin(
        keys.presence(deviceId),
        keys.parked(deviceId),
        gatewayId,
        protocol,
        flapWindowMs,
        maxTakeovers,
      );
      if (Number(reply[0]) === 0) {
        return { granted: false, reason: 'flapping', retryAfterMs: Number(reply[1]) };
      }
      const epoch = Number(reply[1]);
      const parked = Number(reply[2]);
      const [, , , oldGateway] = reply;
      if (oldGateway && oldGateway !== gatewayId) {
        outbox.send(keys.gatewayChannel(String(oldGateway)), { t: 'evict', deviceId, epoch });
      }
      if (parked > 0) announce(deviceId, wholeLane);
      return { granted: true, epoch, parked };
    },
    async logout(deviceId, epoch) {
      await redis.dlLogout(keys.presence(deviceId), gatewayId, String(epoch));
    },
    holdsLease: () => clock() < leaseUntil,
    alive,
    lined(workerId, id, attempt) {
      outbox.send(keys.workerChannel(workerId), { t: 'lined', id, attempt });
    },
    written(workerId, id, attempt, at) {
      const message = { t: 'written', id, attempt, at };
      receipts.set(`${id}:${attempt}`, { channel: keys.workerChannel(workerId), message });
      if (receiptTimer === undefined) receiptTimer = setTimeout(sendReceipts, receiptDelayMs);
    },
    ended(delivery, outcome) {
      const entry = { delivery, outcome, since: clock(), sentAt: 0 };
      receipts.delete(`${delivery.id}:${delivery.attempt}`);
      if (!isRefusal(outcome)) unsettled.set(`${delivery.id}:${delivery.attempt}`, entry);
      publishEnd(entry);
    },
    keep(delivery, outcome, late) {
      return toStream({ delivery, outcome, since: 0, sentAt: 0 }, late);
    },
    roomFor: (deviceId) => announce(deviceId, 1),
    async report(report: Report) {
      if (uplinkFull && report.weight === 'heartbeat') return;
      await redis.xadd(keys.uplink(), '*', 'r', JSON.stringify(report));
    },
  };
}
