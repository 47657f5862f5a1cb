/** Collects messages per channel and publishes each channel's once per event-loop turn. */
import type { Redis } from 'ioredis';
import { encodeBatches, maxBatchMessages } from './messages.ts';

export type Sent = { receivers: number } | { error: Error };

export type Outbox = {
  /** Publishes with the turn's batch; `onSent` learns how many listened. */
  send(channel: string, message: object, onSent?: (sent: Sent) => void): void;
};

type Pending = { message: object; onSent: ((sent: Sent) => void) | undefined };

export type OutboxDeps = { redis: Redis; from: string; onPublished?: (messages: number) => void };

export function createOutbox({ redis, from, onPublished }: OutboxDeps): Outbox {
  let channels = new Map<string, Pending[]>();
  let scheduled = false;

  async function publish(channel: string, group: Pending[]): Promise<void> {
    let sent: Sent;
    try {
      let receivers = Number.POSITIVE_INFINITY;
      const texts = encodeBatches(
        from,
        group.map((pending) => pending.message),
      );
      for (const count of await Promise.all(texts.map((text) => redis.publish(channel, text)))) {
        receivers = Math.min(receivers, count);
      }
      sent = { receivers };
      onPublished?.(group.length);
    } catch (error) {
      sent = { error: error as Error };
    }
    for (const { onSent } of group) onSent?.(sent);
  }

  function flush(): void {
    scheduled = false;
    const turn = channels;
    channels = new Map();
    for (const [channel, pendings] of turn) {
      for (let i = 0; i < pendings.length; i += maxBatchMessages) {
        void publish(channel, pendings.slice(i, i + maxBatchMessages));
      }
    }
  }

  return {
    send(channel, message, onSent) {
      const pendings = channels.get(channel);
      if (pendings) pendings.push({ message, onSent });
      else channels.set(channel, [{ message, onSent }]);
      if (scheduled) return;
      scheduled = true;
      setImmediate(flush);
    },
  };
}
