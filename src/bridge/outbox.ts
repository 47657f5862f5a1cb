/** Collects messages per channel and publishes each channel's once per event-loop turn. */
import type { Redis } from 'ioredis';
import { encodeBatch, splitBatch } from './messages.ts';

export type Sent = { receivers: number } | { error: Error };

export type Outbox = {
  /** Publishes with the turn's batch; `onSent` learns how many listened. */
  send(channel: string, message: object, onSent?: (sent: Sent) => void): void;
};

type Pending = { text: string; onSent: ((sent: Sent) => void) | undefined };

const textOf = ({ text }: Pending) => text;

export type OutboxDeps = { redis: Redis; from: string; onPublished?: (messages: number) => void };

export function createOutbox({ redis, from, onPublished }: OutboxDeps): Outbox {
  let channels = new Map<string, Pending[]>();
  let scheduled = false;

  async function publish(channel: string, group: Pending[]): Promise<void> {
    let sent: Sent;
    try {
      sent = { receivers: await redis.publish(channel, encodeBatch(from, group.map(textOf))) };
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
      for (const group of splitBatch(pendings, textOf)) void publish(channel, group);
    }
  }

  return {
    send(channel, message, onSent) {
      const pendings = channels.get(channel);
      if (pendings) pendings.push({ text: JSON.stringify(message), onSent });
      else channels.set(channel, [{ text: JSON.stringify(message), onSent }]);
      if (scheduled) return;
      scheduled = true;
      setImmediate(flush);
    },
  };
}
