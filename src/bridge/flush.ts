/**
 * Says whose parked commands may go. Devices that come back, thousands at once after a restart, are announced
 * each at its slot; a lane that has room again is announced at once.
 */
import type { Pacer } from '../pacer.ts';
import { wholeLane } from './messages.ts';

export type Flush = {
  /** A session stands and commands wait for it; the smaller the urgency, the sooner its slot. */
  returned(deviceId: string, epoch: number, urgency: number): void;
  /** The lane of that session takes one more. */
  roomFor(deviceId: string, epoch: number): void;
  /** Sessions of this epoch, and of older ones, are over. */
  left(deviceId: string, epoch: number): void;
  /** Says again what no worker heard. */
  repeat(): void;
  /** Nothing is announced any more. */
  stop(): void;
};

export type FlushDeps = {
  /** Without it everybody is announced at once. */
  pacer?: Pacer;
  /** Publishes; `onHeard` learns whether a worker listened. */
  announce(deviceId: string, room: number, onHeard: (heard: boolean) => void): void;
};

type Waiting = { epoch: number; urgency: number };

/** A lane with room stands already: what it takes goes before those that return. */
const roomUrgency = 0;

export function createFlush({ pacer, announce }: FlushDeps): Flush {
  /** Here and in the next at most one a device. */
  const waiting = new Map<string, Waiting>();
  const unheard = new Map<string, Waiting>();
  let stopped = false;

  function say(deviceId: string, room: number, entry: Waiting): void {
    announce(deviceId, room, (heard) => {
      if (!heard && !stopped) unheard.set(deviceId, entry);
    });
  }

  function returned(deviceId: string, epoch: number, urgency: number): void {
    if (stopped) return;
    const entry = { epoch: Math.max(epoch, waiting.get(deviceId)?.epoch ?? 0), urgency };
    if (!pacer) {
      say(deviceId, wholeLane, entry);
      return;
    }
    waiting.set(deviceId, entry);
    pacer.offer(deviceId, urgency, () => {
      waiting.delete(deviceId);
      say(deviceId, wholeLane, entry);
    });
  }

  return {
    returned,
    roomFor(deviceId, epoch) {
      if (!stopped) say(deviceId, 1, { epoch, urgency: roomUrgency });
    },
    left(deviceId, epoch) {
      // A newer session of the device may stand here already, and wait for its own slot.
      if ((unheard.get(deviceId)?.epoch ?? Number.POSITIVE_INFINITY) <= epoch) {
        unheard.delete(deviceId);
      }
      if ((waiting.get(deviceId)?.epoch ?? Number.POSITIVE_INFINITY) > epoch) return;
      waiting.delete(deviceId);
      pacer?.drop(deviceId);
    },
    repeat() {
      const again = [...unheard];
      unheard.clear();
      for (const [deviceId, { epoch, urgency }] of again) returned(deviceId, epoch, urgency);
    },
    stop() {
      stopped = true;
      waiting.clear();
      unheard.clear();
      pacer?.clear();
    },
  };
}
