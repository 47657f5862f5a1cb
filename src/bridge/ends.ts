/** Ends of deliveries on their way to their workers: sent again until settled, or kept where any worker finds them. */
import type { Redis } from 'ioredis';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Outcome } from '../outcome.ts';
import type { Keys } from './keys.ts';
import type { Delivery, StreamedOutcome } from './messages.ts';
import type { Outbox } from './outbox.ts';

export type Ends = {
  /** Sends an end to its worker. */
  send(delivery: Delivery, outcome: Outcome): void;
  settled(settled: { id: string; attempt: number }): void;
  /** Puts an end into the outcomes stream. */
  keep(delivery: Delivery, outcome: Outcome, late: boolean): Promise<void>;
  /** Sends again what was not settled in time. Call it a few times per `resendEveryMs`. */
  resend(): void;
  /** Puts all that is unsettled into the outcomes stream. */
  keepAll(): Promise<void>;
};

export type EndsDeps = {
  gatewayId: string;
  redis: Redis;
  keys: Keys;
  outbox: Outbox;
  log: Log;
  /** Monotonic milliseconds. */
  clock: () => number;
};

/** An end that its worker has not called settled by then goes to the stream as well. */
const settleGraceMs = 10_000;
export const resendEveryMs = 2_000;

type Unsettled = { delivery: Delivery; outcome: Outcome; since: number; sentAt: number };

/** A refusal needs no keeping: a new delivery finds out by itself. */
const isRefusal = ({ kind }: Outcome) => kind === 'unwritten' || kind === 'refused';

const keyOf = ({ id, attempt }: { id: string; attempt: number }) => `${id}:${attempt}`;

export function createEnds(deps: EndsDeps): Ends {
  const { gatewayId, redis, keys, outbox, log, clock } = deps;
  const unsettled = new Map<string, Unsettled>();

  function publish(entry: Unsettled): void {
    const { delivery, outcome } = entry;
    const { id, attempt, deviceId } = delivery;
    entry.sentAt = clock();
    const message = { t: 'ended', id, attempt, deviceId, outcome };
    outbox.send(keys.workerChannel(delivery.workerId), message, (sent) => {
      // A failed publish is tried again by `resend`.
      if ('receivers' in sent && sent.receivers === 0) keepQuietly(entry);
    });
  }

  function keepQuietly({ delivery, outcome }: Unsettled): void {
    keep(delivery, outcome, false).catch((error) => {
      log.warn({ error: messageOf(error) }, 'outcome not stored yet');
    });
  }

  async function keep(delivery: Delivery, outcome: Outcome, late: boolean): Promise<void> {
    if (isRefusal(outcome)) return;
    const { id, attempt, deviceId, epoch, wireId, frame } = delivery;
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
    unsettled.delete(keyOf(delivery));
  }

  return {
    send(delivery, outcome) {
      const entry = { delivery, outcome, since: clock(), sentAt: 0 };
      if (!isRefusal(outcome)) unsettled.set(keyOf(delivery), entry);
      publish(entry);
    },
    settled: (settled) => void unsettled.delete(keyOf(settled)),
    keep,
    resend() {
      const now = clock();
      for (const entry of unsettled.values()) {
        if (now - entry.sentAt < resendEveryMs) continue;
        if (now - entry.since < settleGraceMs) publish(entry);
        else {
          entry.sentAt = now;
          keepQuietly(entry);
        }
      }
    },
    async keepAll() {
      for (const { delivery, outcome } of unsettled.values()) {
        await keep(delivery, outcome, false).catch((error) => {
          log.error({ commandId: delivery.id, error: messageOf(error) }, 'outcome not stored');
        });
      }
    },
  };
}
