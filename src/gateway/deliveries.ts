/**
 * The delivery book: every delivery this gateway knows, by command id and attempt. A delivery that is
 * told twice is answered with what is known and never written twice; an end is kept until its worker
 * says that it is settled.
 */
import type { GatewayBridge } from '../bridge/gateway-bridge.ts';
import type { Delivery, Remember, Settled, Withdraw } from '../bridge/messages.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import { type Outcome, outcomeOfAck } from '../outcome.ts';
import { fromHex, toHex } from '../protocols/bytes.ts';
import type { CommandSpec, Message, Protocol } from '../protocols/protocol.ts';
import type { Clock } from './clock.ts';
import type { Counts } from './counts.ts';
import type { LaneHost } from './lane.ts';
import type { LaneEntry } from './lane-entry.ts';
import { createLateWindow } from './late-window.ts';
import type { GatewayOptions } from './options.ts';
import { createRecent } from './recent.ts';
import type { Session } from './session.ts';
import { createThrottle } from './throttle.ts';
import type { TimerWheel } from './timer-wheel.ts';

export type Deliveries = {
  /** What lanes tell their ends to. */
  readonly lanes: LaneHost;
  deliver(delivery: Delivery): void;
  withdraw(withdraw: Withdraw): void;
  /** A frame that was written, or may have been, through another session: its answer may come here. */
  remember(remember: Remember): void;
  settled(settled: Settled): void;
  /** Whether the message was the answer to a frame of ours; if so, that frame's delivery has ended. */
  acknowledge(session: Session, message: Message): boolean;
  /** From now on deliveries are refused, and what waits is sent back. */
  drain(): void;
  /** Lined up or in flight. */
  live(): number;
  /** Ended, and not yet settled by a worker. */
  unsettled(): number;
  /** Puts all unsettled ends where any worker finds them. */
  keepUnsettled(): Promise<void>;
  /** Drops what is over its time and tries again what Redis did not take. */
  sweep(): void;
};

export type DeliveriesDeps = {
  bridge: GatewayBridge;
  protocols: readonly Protocol[];
  findSession: (deviceId: string) => Session | undefined;
  options: GatewayOptions;
  clock: Clock;
  wheel: TimerWheel;
  counts: Counts;
  log: Log;
  /** A frame was handed to its socket so long after its delivery came. */
  onWritten?: (waitMs: number) => void;
};

/** A worker has parked what came too early by then, and is told that there is room. */
const PARKED_AFTER_MS = 500;
const EARLY_MS = 5_000;

type Kept = { delivery: Delivery; outcome: Outcome };

export function createDeliveries(deps: DeliveriesDeps): Deliveries {
  const { bridge, findSession, options, clock, wheel, counts, log } = deps;
  const protocols = new Map(deps.protocols.map((protocol) => [protocol.name, protocol]));
  const lined = new Map<string, LaneEntry>();
  const recent = { keepMs: options.keptEndMs, maxEntries: options.keptEnds, clock };
  const ends = createRecent<Kept>(recent);
  /** Attempts that must not be written any more, though they may still arrive. */
  const withdrawn = createRecent<true>(recent);
  /** When attempts that are settled were written: a withdrawal that comes a moment later is too late. */
  const settledWrites = createRecent<number>({ ...recent, keepMs: options.settledWriteMs });
  /** Settled ends of what must not be written twice: a worker that lost its job may still ask after it. */
  const settledEnds = createRecent<Kept>({ ...recent, keepMs: options.settledEndMs });
  /** Words of devices that are just back and that answer nothing known here, by device and wire id. */
  const strays = createRecent<{ message: Message; at: number }>({
    ...recent,
    keepMs: options.strayMs,
  });
  /** By device: deliveries that came before the session they were routed to stood here. */
  const early = createRecent<{ deviceId: string; epoch: number; at: number }>({
    ...recent,
    keepMs: EARLY_MS,
  });
  let unkept: Kept[] = [];
  const late = createLateWindow({
    windowMs: options.lateWindowMs,
    maxFrames: options.lateFrames,
    clock,
  });
  const onKeepFailure = createThrottle(clock);
  let draining = false;

  const lanes: LaneHost = {
    clock,
    wheel,
    holdsLease: () => bridge.holdsLease(),
    written({ delivery, arrivedAt, writtenAt }) {
      deps.onWritten?.(clock.ticks() - arrivedAt);
      bridge.written(delivery.workerId, delivery.id, delivery.attempt, writtenAt ?? clock.now());
    },
    ended,
    hasRoom: ({ deviceId, epoch }) => bridge.roomFor(deviceId, epoch),
  };

  function deliver(delivery: Delivery): void {
    const key = keyOf(delivery);
    if (repeat(key, delivery)) return;
    const entry = admit(key, delivery);
    if ('kind' in entry) {
      counts.outcomes[entry.kind] += 1;
      bridge.ended(delivery, entry);
      return;
    }
    lined.set(key, entry.entry);
    entry.session.openLane().offer(entry.entry);
    if (entry.entry.lane && entry.entry.writtenAt === null) {
      bridge.lined(delivery.workerId, delivery.id, delivery.attempt);
    }
  }

  /** Answers a delivery that is known already. */
  function repeat(key: string, { workerId, id, attempt }: Delivery): boolean {
    const entry = lined.get(key);
    if (entry) {
      entry.delivery.workerId = workerId;
      if (entry.writtenAt === null) bridge.lined(workerId, id, attempt);
      else bridge.written(workerId, id, attempt, entry.writtenAt);
      return true;
    }
    const end = ends.get(key) ?? settledEnds.get(key);
    if (!end) return false;
    end.delivery.workerId = workerId;
    bridge.ended(end.delivery, end.outcome);
    return true;
  }

  function admit(
    key: string,
    delivery: Delivery,
  ): { entry: LaneEntry; session: Session } | Outcome {
    if (withdrawn.has(key)) return refusal('withdrawn', 'withdrawn before it arrived');
    if (draining) return { kind: 'unwritten', reason: 'draining' };
    const { deviceId, epoch } = delivery;
    const session = findSession(deviceId);
    if ((session?.epoch ?? 0) < epoch) early.set(deviceId, { deviceId, epoch, at: clock.ticks() });
    if (!session) return { kind: 'unwritten', reason: 'offline' };
    if (session.epoch !== epoch) return { kind: 'unwritten', reason: 'stale-epoch' };
    const spec = specOf(delivery);
    const protocol = protocols.get(delivery.protocol);
    if (!protocol || !spec || session.protocol !== protocol) {
      const { protocol: spoken } = session;
      const what = `${delivery.protocol} command ${delivery.command}`;
      return refusal('unsupported', `device ${deviceId} speaks ${spoken.name}: no ${what}`);
    }
    const overdueMs = clock.now() - delivery.deadline;
    if (overdueMs >= 0)
      return refusal('expired', `its time was over ${overdueMs} ms before it came`);
    const frame = fromHex(delivery.frame);
    if (!frame || frame.length > protocol.limits.frameBytes) {
      const limit = protocol.limits.frameBytes;
      return refusal('invalid', `its frame is no hex or longer than ${limit} bytes`);
    }
    const arrivedAt = clock.ticks();
    const entry = { delivery, spec, frame, arrivedAt, lane: null, writtenAt: null, ackDueAt: 0 };
    return { entry, session };
  }

  function ended({ delivery, spec, writtenAt }: LaneEntry, outcome: Outcome): void {
    const key = keyOf(delivery);
    lined.delete(key);
    counts.outcomes[outcome.kind] += 1;
    const { id, deviceId } = delivery;
    // What surely was not written is answered and forgotten: it may come again under this attempt.
    if (outcome.kind !== 'unwritten' && outcome.kind !== 'refused') {
      ends.set(key, { delivery, outcome });
    }
    if (outcome.kind === 'ambiguous' && writtenAt !== null) late.add(delivery, spec, writtenAt);
    if (outcome.kind === 'acked' || outcome.kind === 'rejected') late.forget(deviceId, id);
    bridge.ended(delivery, outcome);
  }

  function withdraw(given: Withdraw): void {
    const key = keyOf(given);
    const entry = lined.get(key);
    const at = entry?.writtenAt ?? settledWrites.get(key);
    if (at !== undefined) {
      bridge.answer(given, { kind: 'written', at });
      return;
    }
    const end = ends.get(key) ?? settledEnds.get(key);
    if (end) {
      bridge.answer(given, end.outcome);
      return;
    }
    withdrawn.set(key, true);
    // The worker that delivered waits for its end, whoever withdrew.
    entry?.lane?.withdraw(entry);
    if (entry?.delivery.workerId === given.workerId) return;
    bridge.answer(given, refusal('withdrawn', 'withdrawn before its write'));
  }

  function settled(given: Settled): void {
    const key = keyOf(given);
    const end = ends.get(key);
    ends.delete(key);
    if (!end || end.outcome.kind === 'unwritten' || end.outcome.kind === 'refused') return;
    settledWrites.set(key, end.outcome.writtenAt ?? clock.now());
    if (specOf(end.delivery)?.repeatable !== true) settledEnds.set(key, end);
  }

  function remember({ delivery, writtenAt, forMs }: Remember): void {
    const spec = specOf(delivery);
    if (spec?.ack !== 'reply') return;
    late.add(delivery, spec, writtenAt, forMs);
    const stray = strays.get(strayKey(delivery.deviceId, delivery.wireId));
    if (stray && stray.at >= writtenAt) placeLate(stray.message, stray.at);
  }

  function specOf({ protocol, command }: Delivery): CommandSpec | undefined {
    const commands = protocols.get(protocol)?.commands ?? {};
    return Object.hasOwn(commands, command) ? commands[command] : undefined;
  }

  function acknowledge(session: Session, message: Message): boolean {
    if (session.lane?.acknowledge(message)) return true;
    if (placeLate(message, clock.now())) return true;
    // Just back: it may answer what a gateway wrote that is gone, and of which nobody has told us yet.
    if (message.msgId !== 0 && clock.ticks() - session.openedAt < options.strayMs) {
      strays.set(strayKey(message.deviceId, message.msgId), { message, at: clock.now() });
    }
    return false;
  }

  /** Whether the message answers a frame that had been given up. */
  function placeLate(message: Message, endedAt: number): boolean {
    const answer = late.match(message);
    if (!answer) return false;
    const { delivery, ack, writtenAt } = answer;
    counts.lateAnswers += 1;
    late.forget(delivery.deviceId, delivery.id);
    strays.delete(strayKey(message.deviceId, message.msgId));
    const frameIn = toHex(message.frame);
    const outcome = outcomeOfAck(ack, { writtenAt, endedAt, frameIn });
    keepLate(delivery, outcome);
    findSession(delivery.deviceId)?.lane?.sawAnswer(delivery.id, outcome);
    return true;
  }

  function keepLate(delivery: Delivery, outcome: Outcome): void {
    bridge.keep(delivery, outcome, true).catch((error) => {
      if (unkept.length < options.lateFrames) unkept.push({ delivery, outcome });
      onKeepFailure((times) => {
        const { id: commandId, deviceId } = delivery;
        log.warn(
          { commandId, deviceId, times, error: messageOf(error) },
          'late answer not kept yet',
        );
      });
    });
  }

  function sweep(): void {
    ends.sweep();
    withdrawn.sweep();
    settledWrites.sweep();
    settledEnds.sweep();
    early.sweep();
    strays.sweep();
    for (const { deviceId, epoch, at } of early.values()) {
      if (clock.ticks() - at < PARKED_AFTER_MS || findSession(deviceId)?.epoch !== epoch) continue;
      early.delete(deviceId);
      bridge.roomFor(deviceId, epoch);
    }
    late.sweep();
    const again = unkept;
    unkept = [];
    for (const { delivery, outcome } of again) keepLate(delivery, outcome);
  }

  return {
    lanes,
    deliver,
    withdraw,
    remember,
    settled,
    acknowledge,
    drain() {
      draining = true;
      const busy = new Set([...lined.values()].map(({ lane }) => lane));
      for (const lane of busy) lane?.sendBack('draining');
    },
    live: () => lined.size,
    unsettled: ends.size,
    async keepUnsettled() {
      const all = ends.values();
      ends.clear();
      await Promise.allSettled(all.map((end) => bridge.keep(end.delivery, end.outcome, false)));
    },
    sweep,
  };
}

function strayKey(deviceId: string, wireId: number): string {
  return `${deviceId}#${wireId}`;
}

function keyOf({ id, attempt }: { id: string; attempt: number }): string {
  return `${id}#${attempt}`;
}

function refusal(
  reason: 'withdrawn' | 'unsupported' | 'expired' | 'invalid',
  detail: string,
): Outcome {
  return { kind: 'refused', reason, detail };
}
