/**
 * The delivery book: every delivery this gateway knows, by command id and attempt. A delivery that is
 * told twice is answered with what is known and never written twice; an end is kept until its worker
 * says that it is settled.
 */
import type { GatewayBridge } from '../bridge/gateway-bridge.ts';
import type { Delivery, Settled, Withdraw } from '../bridge/messages.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import { type Outcome, outcomeOfAck } from '../outcome.ts';
import { fromHex, toHex } from '../protocols/bytes.ts';
import type { CommandSpec, Message, Protocol } from '../protocols/protocol.ts';
import type { Clock } from './clock.ts';
import type { Counts } from './counts.ts';
import type { LaneEntry, LaneHost } from './lane.ts';
import { createLateWindow } from './late-window.ts';
import type { GatewayOptions } from './options.ts';
import type { Session } from './session.ts';
import { createThrottle } from './throttle.ts';
import type { TimerWheel } from './timer-wheel.ts';

export type Deliveries = {
  /** What lanes tell their ends to. */
  readonly lanes: LaneHost;
  deliver(delivery: Delivery): void;
  withdraw(withdraw: Withdraw): void;
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
};

type Kept = { delivery: Delivery; outcome: Outcome; until: number };

export function createDeliveries(deps: DeliveriesDeps): Deliveries {
  const { bridge, findSession, options, clock, wheel, counts, log } = deps;
  const protocols = new Map(deps.protocols.map((protocol) => [protocol.name, protocol]));
  const lined = new Map<string, LaneEntry>();
  /** Oldest first, here and in the next. */
  const ends = new Map<string, Kept>();
  /** Attempts that must not be written any more, though they may still arrive. */
  const withdrawn = new Map<string, number>();
  let unkept: { delivery: Delivery; outcome: Outcome }[] = [];
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
    written({ delivery, writtenAt }) {
      bridge.written(delivery.workerId, delivery.id, delivery.attempt, writtenAt ?? clock.now());
    },
    ended,
    hasRoom: ({ deviceId }) => bridge.roomFor(deviceId),
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
    const end = ends.get(key);
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
    const session = findSession(delivery.deviceId);
    if (!session) return { kind: 'unwritten', reason: 'offline' };
    if (session.epoch !== delivery.epoch) return { kind: 'unwritten', reason: 'stale-epoch' };
    const protocol = protocols.get(delivery.protocol);
    const spec = protocol && specOf(protocol, delivery.command);
    if (!protocol || !spec || session.protocol !== protocol) {
      const { protocol: spoken } = session;
      const what = `${delivery.protocol} command ${delivery.command}`;
      return refusal(
        'unsupported',
        `device ${delivery.deviceId} speaks ${spoken.name}: no ${what}`,
      );
    }
    const overdueMs = clock.now() - delivery.deadline;
    if (overdueMs >= 0)
      return refusal('expired', `its time was over ${overdueMs} ms before it came`);
    const frame = fromHex(delivery.frame);
    if (!frame || frame.length > protocol.limits.frameBytes) {
      const limit = protocol.limits.frameBytes;
      return refusal('invalid', `its frame is no hex or longer than ${limit} bytes`);
    }
    const entry = { delivery, spec, frame, lane: null, writtenAt: null, ackDueAt: 0 };
    return { entry, session };
  }

  function ended({ delivery, spec, writtenAt }: LaneEntry, outcome: Outcome): void {
    const key = keyOf(delivery);
    lined.delete(key);
    counts.outcomes[outcome.kind] += 1;
    const { id, deviceId } = delivery;
    // What surely was not written is answered and forgotten: it may come again under this attempt.
    if (outcome.kind !== 'unwritten' && outcome.kind !== 'refused') {
      ends.set(key, { delivery, outcome, until: clock.ticks() + options.keptEndMs });
      if (ends.size > options.keptEnds) ends.delete(ends.keys().next().value!);
    }
    if (outcome.kind === 'ambiguous' && writtenAt !== null) late.add(delivery, spec, writtenAt);
    if (outcome.kind === 'acked' || outcome.kind === 'rejected') late.forget(deviceId, id);
    bridge.ended(delivery, outcome);
  }

  function withdraw(given: Withdraw): void {
    const key = keyOf(given);
    const { workerId, id, attempt } = given;
    const entry = lined.get(key);
    if (entry && entry.writtenAt !== null) {
      bridge.written(workerId, id, attempt, entry.writtenAt);
      return;
    }
    const end = ends.get(key);
    if (end) {
      bridge.ended({ ...end.delivery, workerId }, end.outcome);
      return;
    }
    remember(key);
    // The worker that delivered waits for its end, whoever withdrew.
    entry?.lane?.withdraw(entry);
    if (entry?.delivery.workerId === workerId) return;
    const delivery = entry ? { ...entry.delivery, workerId } : unknownDelivery(given);
    bridge.ended(delivery, refusal('withdrawn', 'withdrawn before its write'));
  }

  function remember(key: string): void {
    withdrawn.set(key, clock.ticks() + options.keptEndMs);
    if (withdrawn.size > options.keptEnds) withdrawn.delete(withdrawn.keys().next().value!);
  }

  function acknowledge(session: Session, message: Message): boolean {
    if (session.lane?.acknowledge(message)) return true;
    const answer = late.match(message);
    if (!answer) return false;
    const { delivery, ack, writtenAt } = answer;
    counts.lateAnswers += 1;
    late.forget(delivery.deviceId, delivery.id);
    const frameIn = toHex(message.frame);
    const outcome = outcomeOfAck(ack, { writtenAt, endedAt: clock.now(), frameIn });
    keepLate(delivery, outcome);
    session.lane?.sawAnswer(delivery.id, outcome);
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
    const ticks = clock.ticks();
    for (const [key, { until }] of ends) {
      if (until > ticks) break;
      ends.delete(key);
    }
    for (const [key, until] of withdrawn) {
      if (until > ticks) break;
      withdrawn.delete(key);
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
    settled: (given) => void ends.delete(keyOf(given)),
    acknowledge,
    drain() {
      draining = true;
      const busy = new Set([...lined.values()].map(({ lane }) => lane));
      for (const lane of busy) lane?.sendBack('draining');
    },
    live: () => lined.size,
    unsettled: () => ends.size,
    async keepUnsettled() {
      const all = [...ends.values()];
      ends.clear();
      await Promise.allSettled(all.map((end) => bridge.keep(end.delivery, end.outcome, false)));
    },
    sweep,
  };
}

function specOf({ commands }: Protocol, name: string): CommandSpec | undefined {
  return Object.hasOwn(commands, name) ? commands[name] : undefined;
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

/** Stands in for a delivery that never came, so that its withdrawal can be answered. */
function unknownDelivery({ id, attempt, workerId, deviceId }: Withdraw): Delivery {
  return {
    t: 'deliver',
    id,
    attempt,
    workerId,
    deviceId,
    epoch: 0,
    protocol: '',
    command: '',
    params: {},
    wireId: 1,
    frame: '',
    priority: 0,
    deadline: 0,
    ackTimeoutMs: 1,
  };
}
