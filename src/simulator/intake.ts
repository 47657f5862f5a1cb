/** What a device does with a frame from the server: it is written down, judged by the dice, obeyed and answered. */

import { toHex } from '../protocols/bytes.ts';
import type { Message } from '../protocols/protocol.ts';
import { remember } from './device.ts';
import type { FleetLog, FrameEntry } from './fleet-log.ts';
import { draw } from './knobs.ts';
import type { Device, Reply } from './model.ts';
import type { FleetStats } from './stats.ts';

export type IntakeDeps = {
  log: FleetLog;
  stats: FleetStats;
  now: () => number;
  /** False once the fleet is stopped: answers that were to come are not given any more. */
  isRunning: () => boolean;
};

const unheard: Reply = { says: 'nothing', executed: false, frames: [] };

export type Intake = {
  /** Takes a command for this device. */
  command(device: Device, message: Message): void;
  /** Writes down a command for a device that is not on this connection. */
  stray(message: Message, connection: number): void;
};

export function createIntake({ log, stats, now, isRunning }: IntakeDeps): Intake {
  function command(device: Device, message: Message): void {
    const { msgId, name } = message;
    const earlier = device.seen?.get(msgId);
    const entry = entryOf(message, device.link.connection, earlier !== undefined);
    stats.received += 1;
    if (entry.duplicate) stats.duplicates += 1;

    const fate = fateOf(device);
    // a repeated frame gets the answer of the first; one that never got through is obeyed now
    const known = earlier && earlier.name === name ? earlier.reply : null;
    const fresh = known === null && fate.heard;
    const { behaviour } = device;
    const reply = known
      ? (behaviour.repeated(device, message, known) ?? known)
      : fate.heard
        ? behaviour.obey(device, message, fate.refuse)
        : unheard;
    if (fresh) remember(device, msgId, { name, reply });
    else if (earlier === undefined) remember(device, msgId, null);

    entry.executed = reply.executed;
    entry.says = reply.says;
    const answers = fate.answers && reply.frames.length > 0 && reply.says !== 'nothing';
    entry.intended = !answers ? 'none' : fate.late ? 'late' : (reply.says as 'ack' | 'nack');
    log.add(entry);

    const after = () => {
      if (fresh) reply.then?.();
      if (fate.drop === 'after') device.link.drop('device');
    };
    if (fate.drop === 'before') device.link.drop('reset');
    if (!fate.answers || reply.frames.length === 0) {
      stats.unanswered += 1;
      log.complete(entry);
      after();
      return;
    }
    const { lateMs, ackDelayMs } = device.knobs;
    const delayMs = draw(fate.late ? lateMs : ackDelayMs, device.random);
    if (delayMs <= 0) answer(device, entry, reply, after);
    else setTimeout(() => answer(device, entry, reply, after), delayMs).unref();
  }

  /** Over the connection that the frame came by; an answer does not outlive it. */
  function answer(device: Device, entry: FrameEntry, reply: Reply, after: () => void): void {
    const { link } = device;
    const sameConnection = isRunning() && link.connection === entry.connection;
    let sent = sameConnection;
    if (sameConnection) for (const frame of reply.frames) sent = link.send(frame) && sent;
    if (!sent) stats.unanswered += 1;
    else if (reply.says !== 'nothing') {
      entry.answeredAt = now();
      entry.answer = reply.frames.map((frame) => toHex(frame)).join('');
      if (reply.says === 'ack') stats.acks += 1;
      else stats.nacks += 1;
    }
    log.complete(entry);
    if (isRunning()) after();
  }

  function entryOf(message: Message, connection: number, duplicate: boolean): FrameEntry {
    const { deviceId, protocol, msgId, name, cmd, subCmd, frame } = message;
    return {
      kind: 'frame',
      seq: 0,
      at: now(),
      deviceId,
      protocol,
      connection,
      wireId: msgId,
      name,
      cmd,
      subCmd,
      frame: toHex(frame),
      intended: 'none',
      says: 'nothing',
      executed: false,
      answeredAt: null,
      answer: null,
      duplicate,
    };
  }

  return {
    command,
    stray(message, connection) {
      stats.received += 1;
      stats.unanswered += 1;
      log.complete(log.add(entryOf(message, connection, false)));
    },
  };
}

type Fate = {
  /** It reached the device's logic. */
  heard: boolean;
  answers: boolean;
  refuse: boolean;
  late: boolean;
  drop: 'before' | 'after' | null;
};

function fateOf(device: Device): Fate {
  const { knobs, random } = device;
  const nothing = { heard: false, answers: false, refuse: false, late: false, drop: null };
  if (device.silent || !device.link.isOpen) return nothing;
  if (device.loseNext > 0) {
    device.loseNext -= 1;
    return { ...nothing, heard: true };
  }
  if (random.chance(knobs.disconnect)) {
    if (random.chance(0.5)) return { ...nothing, drop: 'before' };
    return { ...nothing, heard: true, answers: true, drop: 'after' };
  }
  if (random.chance(knobs.loss)) return { ...nothing, heard: random.chance(0.5) };
  const forced = device.refuseNext > 0;
  if (forced) device.refuseNext -= 1;
  const refuse = forced || random.chance(knobs.refusal);
  return { ...nothing, heard: true, answers: true, refuse, late: random.chance(knobs.late) };
}
