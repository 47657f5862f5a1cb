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

export type Outbound = {
  /** Adds the command, delayed until its notBefore. Adding an id again changes nothing. Rejects with QUEUE_UNAVAILABLE. */
  enqueue(command: Command, base?: Base): Promise<void>;
  enqueueMany(entries: readonly { command: Command; base?: Base }[]): Promise<void>;
  /** Removes a command that no worker holds; afterwards it is the caller's to settle. `active`: a worker has it. */
  take(deviceId: string, id: string): Promise<Taken>;
  /** The command and its next version, as the queue holds it; null when it does not. */
  find(deviceId: string, id: string): Promise<{ command: Command; nextVersion: number } | null>;
  counts(): Promise<QueueCounts>;
  close(): Promise<void>;
};
