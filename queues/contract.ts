/** What the outbound queue does for the processes, whatever store stands behind it. */
import type { Command } from '../src/command.ts';

/** Where a command's numbering goes on when it is put back into the queue. */
export type Base = { attempt: number; version: number };

export type Taken = 'taken' | 'missing' | 'active';

export type QueueCounts = {
  /** Waiting for a worker, delayed and parked included. */
  waiting: number;
  /** In a worker's hands: being sent, or sent and waiting for the device. */
  pending: number;
  /** BullMQ's failed set: ended as failed or unknown. */
  dead: number;
};

/** `blocked`: it stands behind another command of its line, and is added already parked. */
export type Enqueued = { command: Command; base?: Base; blocked?: boolean };

export type Outbound = {
  /** Adds the command, delayed until its notBefore. Adding an id again changes nothing. Rejects with QUEUE_UNAVAILABLE. */
  enqueue(entry: Enqueued): Promise<void>;
  /** The same for many: one bulk add a shard. */
  enqueueMany(entries: readonly Enqueued[]): Promise<void>;
  /** Removes a command that no worker holds; afterwards it is the caller's to settle. `active`: a worker has it. */
  take(deviceId: string, id: string): Promise<Taken>;
  /** The command and its next version, as the queue holds it; null when it does not. */
  find(deviceId: string, id: string): Promise<{ command: Command; nextVersion: number } | null>;
  counts(): Promise<QueueCounts>;
  /** Lets a parked job go, before its equals. False when it is not delayed (any more). */
  wake(deviceId: string, id: string): Promise<boolean>;
  /** Puts an unfinished job before all others of its shard, whatever it waits for; a worker then ends it. */
  hasten(deviceId: string, id: string): Promise<boolean>;
  /** Removes the finished job of a command, if it is still kept. */
  forget(deviceId: string, id: string): Promise<void>;
  /** Which of these commands the queue still holds unfinished. */
  holds(entries: readonly { deviceId: string; id: string }[]): Promise<Set<string>>;
  /** How a job stands in the queue: BullMQ's state, when a delayed one is due, and why its last attempt failed. */
  inspect(
    deviceId: string,
    id: string,
  ): Promise<{ state: string; dueAt: number | null; failedReason: string | null } | null>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  isPaused(): Promise<boolean>;
  close(): Promise<void>;
};
