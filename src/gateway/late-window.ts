/**
 * Written frames whose answer did not come in time: it may still come, on this connection or on the next, also
 * where another gateway wrote the frame.
 */
import type { Delivery } from '../bridge/messages.ts';
import type { Ack } from '../outcome.ts';
import type { CommandSpec, Message } from '../protocols/protocol.ts';
import type { Clock } from './clock.ts';

type Unanswered = {
  readonly delivery: Delivery;
  readonly spec: CommandSpec;
  readonly writtenAt: number;
  readonly until: number;
};

export type LateAnswer = { delivery: Delivery; ack: Ack; writtenAt: number };

export type LateWindow = {
  /** Waits for its answer, for `forMs` if that is shorter than the window. Adding one again is harmless. */
  add(delivery: Delivery, spec: CommandSpec, writtenAt: number, forMs?: number): void;
  /** What the message answers, if anything; each frame is answered once. */
  match(message: Message): LateAnswer | null;
  /** The command has its answer: earlier attempts of it are not waited for. */
  forget(deviceId: string, commandId: string): void;
  /** Drops what is over. */
  sweep(): void;
  size(): number;
};

export type LateWindowDeps = { windowMs: number; maxFrames: number; clock: Clock };

export function createLateWindow({ windowMs, maxFrames, clock }: LateWindowDeps): LateWindow {
  /** Oldest first. One that ends early may stay until those before it are over: it is not matched any more. */
  const all = new Set<Unanswered>();
  const byDevice = new Map<string, Unanswered[]>();

  function drop(entry: Unanswered): void {
    const { deviceId } = entry.delivery;
    all.delete(entry);
    const rest = byDevice.get(deviceId)?.filter((each) => each !== entry) ?? [];
    if (rest.length === 0) byDevice.delete(deviceId);
    else byDevice.set(deviceId, rest);
  }

  function sweep(): void {
    const ticks = clock.ticks();
    for (const entry of all) {
      if (entry.until > ticks && all.size <= maxFrames) return;
      drop(entry);
    }
  }

  return {
    add(delivery, spec, writtenAt, forMs = windowMs) {
      const until = clock.ticks() + Math.min(forMs, windowMs);
      const entry = { delivery, spec, writtenAt, until };
      for (const other of byDevice.get(delivery.deviceId) ?? []) {
        if (other.delivery.id !== delivery.id || other.delivery.attempt !== delivery.attempt)
          continue;
        if (other.until >= until) return;
        drop(other);
      }
      all.add(entry);
      const known = byDevice.get(delivery.deviceId);
      if (known) known.push(entry);
      else byDevice.set(delivery.deviceId, [entry]);
      if (all.size > maxFrames) sweep();
    },
    match(message) {
      const entries = byDevice.get(message.deviceId);
      if (!entries) return null;
      // A retry carries the wire id of the attempt before it: the answer is to the last of them.
      for (const entry of entries.toSorted(byAttempt)) {
        const { delivery, spec, writtenAt, until } = entry;
        // A report that only looks like the answer proves nothing this late.
        if (delivery.wireId !== message.msgId || until <= clock.ticks()) continue;
        const ack = spec.recognise(delivery.params, delivery.wireId, message);
        if (!ack) continue;
        drop(entry);
        return { delivery, ack, writtenAt };
      }
      return null;
    },
    forget(deviceId, commandId) {
      for (const entry of byDevice.get(deviceId) ?? []) {
        if (entry.delivery.id === commandId) drop(entry);
      }
    },
    sweep,
    size: () => all.size,
  };
}

/** The last attempt first, and of equal ones the newest. */
function byAttempt(a: Unanswered, b: Unanswered): number {
  return b.delivery.attempt - a.delivery.attempt || b.writtenAt - a.writtenAt;
}
