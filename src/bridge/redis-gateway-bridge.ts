/** The gateway's end of the bridge on Redis: lease, presence, receipts, streams. */
import type { Redis } from 'ioredis';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Pacer } from '../pacer.ts';
import { createEnds, resendEveryMs } from './ends.ts';
import { createFlush } from './flush.ts';
import type { GatewayBridge, GatewayHandlers, Login, Report } from './gateway-bridge.ts';
import type { Keys } from './keys.ts';
import { type AdmissionRule, createLogins, type Takeover } from './logins.ts';
import { parseBatch } from './messages.ts';
import { createOutbox } from './outbox.ts';
import { createRecall } from './recall.ts';
import { withBridgeScripts } from './scripts.ts';

export type GatewayBridgeDeps = {
  gatewayId: string;
  /** Fails fast while Redis is away. */
  redis: Redis;
  subscriber: Redis;
  keys: Keys;
  log: Log;
  leaseMs?: number;
  /** Who keeps a device id that logs in twice: its newest login, or the session that lives. */
  takeover?: Takeover;
  /** Whether any device may log in, or only those of the copy of known devices. */
  admission?: AdmissionRule;
  /** Paces the announcing of devices that return to parked commands; without it all are announced at once. */
  flushPacer?: Pacer;
  /** Most entries in the uplink stream before heartbeats, and only they, are dropped. */
  maxUplinkEntries?: number;
  /** Monotonic milliseconds. */
  clock?: () => number;
  onMessages?: (direction: 'in' | 'out', count: number) => void;
};

const registerChunk = 500;
/** An answer that comes within this time tells of the write as well, and saves its receipt. */
const receiptDelayMs = 15;

/** Parked commands from this score on wait for an older command of their line, not for their device. */
const blockedScore = 2_000;

type Registration = { deviceId: string; protocol: string; epoch: number };
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
  const ends = createEnds({ gatewayId, redis, keys, outbox, log, clock });
  const flush = createFlush({
    ...(deps.flushPacer ? { pacer: deps.flushPacer } : {}),
    announce(deviceId, room, onHeard) {
      wakes += 1;
      const event = `${gatewayId}-${wakes}`;
      outbox.send(keys.eventsChannel(), { t: 'wake', deviceId, room, event }, (sent) => {
        onHeard('receivers' in sent && sent.receivers > 0);
      });
    },
  });
  const recall = createRecall({ redis, keys, log });
  const { takeover = 'newest', admission = 'open' } = deps;
  const logins = createLogins({ gatewayId, redis, keys, takeover, admission });
  const receipts = new Map<string, { channel: string; message: object }>();
  let receiptTimer: NodeJS.Timeout | undefined;
  let handlers: GatewayHandlers | undefined;
  let timers: NodeJS.Timeout[] = [];
  let draining = false;
  let leaseUntil = 0;
  let heardAt = 0;
  let beatNo = 0;
  let wakes = 0;
  let mustRegister = false;
  let registering = false;
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
      else if (message.t === 'remember') handlers.remember(message);
      else if (message.t === 'evict') {
        if (message.removed) logins.forget(message.deviceId);
        flush.left(message.deviceId, message.epoch - 1);
        handlers.evict(message);
      } else {
        ends.settled(message);
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
    flush.repeat();
    // Half open: Redis still counts us as a listener, and we hear nothing.
    if (subscriber.status === 'ready' && !alive()) subscriber.disconnect(true);
    if (mustRegister && !registering) await registerAll();
    if (beatNo % 3 === 0) uplinkFull = (await redis.xlen(keys.uplink())) > maxUplinkEntries;
  }

  /** After a flush or a lapse: every session stands again under its original epoch. */
  async function registerAll(): Promise<void> {
    const sessions = [...(handlers?.sessions() ?? [])];
    registering = true;
    mustRegister = false;
    try {
      for (let i = 0; i < sessions.length; i += registerChunk) {
        await Promise.all(sessions.slice(i, i + registerChunk).map(register));
      }
    } catch (error) {
      mustRegister = true;
      throw error;
    } finally {
      registering = false;
    }
    if (sessions.length > 0) log.info({ sessions: sessions.length }, 'sessions registered again');
  }

  async function register({ deviceId, protocol, epoch }: Registration): Promise<void> {
    const parkedKey = keys.parked(deviceId);
    const [{ verdict, parked }, unanswered] = await Promise.all([
      logins.register({ deviceId, protocol, epoch }),
      redis.hlen(keys.unanswered(deviceId)),
    ]);
    if (verdict !== 'registered') {
      // Of an older epoch than the one that stands there; a newer session of ours stays.
      const evict = { t: 'evict', deviceId, epoch: epoch + 1 } as const;
      handlers?.evict(verdict === 'removed' ? { ...evict, removed: true } : evict);
      flush.left(deviceId, epoch);
      return;
    }
    // What was to be remembered while we were deaf was said to nobody.
    if (unanswered > 0) await remembered(deviceId, unanswered);
    if (parked === 0) return;
    const range = ['-inf', `(${blockedScore}`, 'WITHSCORES', 'LIMIT', 0, 1] as const;
    const [, urgency] = await redis.zrangebyscore(parkedKey, ...range);
    if (urgency !== undefined) flush.returned(deviceId, epoch, Number(urgency));
  }

  function remembered(deviceId: string, count: number): Promise<void> {
    return recall(deviceId, count, (remember) => handlers?.remember(remember));
  }

  function registerSoon(): void {
    heardAt = clock();
    mustRegister = true;
  }

  function alive(): boolean {
    return clock() - heardAt < leaseMs;
  }

  function sendReceipts(): void {
    receiptTimer = undefined;
    for (const { channel, message } of receipts.values()) outbox.send(channel, message);
    receipts.clear();
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
      timers = [setInterval(beatQuietly, leaseMs / 4), setInterval(ends.resend, resendEveryMs / 4)];
    },
    drain() {
      draining = true;
      // What is woken from now on would only be sent back.
      flush.stop();
      beatQuietly();
    },
    async stop() {
      for (const timer of timers) clearInterval(timer);
      leaseUntil = 0;
      flush.stop();
      clearTimeout(receiptTimer);
      sendReceipts();
      await ends.keepAll();
      subscriber.off('message', onMessage);
      subscriber.off('ready', registerSoon);
      await subscriber.unsubscribe(own).catch(() => undefined);
      await redis.hdel(keys.gateways(), gatewayId).catch(() => undefined);
      const gone = JSON.stringify({ v: 1, from: gatewayId, m: [{ t: 'gateway-gone', gatewayId }] });
      await redis.publish(keys.eventsChannel(), gone).catch(() => undefined);
    },
    async login(deviceId, protocol, standsHere = () => false) {
      const grant = await logins.logIn(deviceId, protocol, standsHere);
      if (!grant.granted) return grant;
      const { epoch, parked, unanswered, urgency, old } = grant;
      const login: Login = { granted: true, epoch, parked };
      if (old && old.gatewayId !== gatewayId) {
        outbox.send(keys.gatewayChannel(old.gatewayId), { t: 'evict', deviceId, epoch });
        login.takenFrom = logins.isLive(old.gatewayId).then(
          (lived) => (lived ? old : null),
          () => null,
        );
      }
      // None where an older command holds back all that is parked: that one's end wakes them.
      if (urgency !== null) flush.returned(deviceId, epoch, urgency);
      if (unanswered > 0) login.recalled = remembered(deviceId, unanswered);
      return login;
    },
    vouchesFor: logins.vouchesFor,
    async logout(deviceId, epoch) {
      flush.left(deviceId, epoch);
      await redis.dlLogout(keys.presence(deviceId), gatewayId, String(epoch));
    },
    holdsLease: () => clock() < leaseUntil,
    alive,
    lined(workerId, id, attempt) {
      outbox.send(keys.workerChannel(workerId), { t: 'lined', id, attempt });
    },
    written(workerId, id, attempt, at) {
      const message = { t: 'written', id, attempt, at };
      receipts.set(`${id}:${attempt}`, {
        channel: keys.workerChannel(workerId),
        message,
      });
      if (receiptTimer === undefined) receiptTimer = setTimeout(sendReceipts, receiptDelayMs);
    },
    ended(delivery, outcome) {
      // The end tells of the write as well.
      receipts.delete(`${delivery.id}:${delivery.attempt}`);
      ends.send(delivery, outcome);
    },
    answer({ workerId, id, attempt, deviceId }, answer) {
      const message =
        answer.kind === 'written'
          ? { t: 'written', id, attempt, at: answer.at }
          : { t: 'ended', id, attempt, deviceId, outcome: answer };
      outbox.send(keys.workerChannel(workerId), message);
    },
    keep: ends.keep,
    roomFor: flush.roomFor,
    async report(report: Report) {
      if (uplinkFull && report.weight === 'heartbeat') return;
      await redis.xadd(keys.uplink(), '*', 'r', JSON.stringify(report));
    },
  };
}
