/**
 * How commands must have ended, judged by what the devices wrote down. For runs without faults: where
 * processes die, more than one end can be right.
 */
import type { FrameEntry } from './fleet-log.ts';

/** A command that the API accepted. */
export type Sent = {
  id: string;
  deviceId: string;
  command: string;
  /** `none`: its protocol defines no answer. */
  ack: 'reply' | 'none';
  repeatable: boolean;
};

/** The same command as the API shows it at the end. */
export type Shown = {
  id: string;
  status: string;
  inferred: boolean;
  maxAttempts: number;
  /** `probe`: a question about the attempt before. */
  attempts: readonly { wireId: number; frameOut: string; probe?: boolean }[];
};

/** The message that asks for the state of a port when a start went unanswered. */
const probeName = 'port.query';

export type Difference = { id: string; deviceId: string; command: string; says: string };

/** Every way in which the API and the devices tell different stories; empty when they agree. */
export function compare(
  sent: readonly Sent[],
  shown: ReadonlyMap<string, Shown>,
  frames: readonly FrameEntry[],
): Difference[] {
  const differences: Difference[] = [];
  const received = new Map<string, FrameEntry[]>();
  const probed = new Set<string>();
  for (const frame of frames) {
    const key = keyOf(frame.deviceId, frame.wireId);
    const list = received.get(key);
    if (list) list.push(frame);
    else received.set(key, [frame]);
  }
  for (const command of sent) {
    const { id, deviceId } = command;
    const differs = (says: string) =>
      differences.push({ id, deviceId, command: command.command, says });
    const end = shown.get(id);
    if (!end) {
      differs('the API does not know it');
      continue;
    }
    const attempts = end.attempts.filter(({ probe }) => !probe);
    const wireIds = new Set(attempts.map(({ wireId }) => wireId));
    if (wireIds.size > 1) differs(`it was sent under the wire ids ${[...wireIds].join(', ')}`);
    const seen = [...wireIds].flatMap((wireId) => received.get(keyOf(deviceId, wireId)) ?? []);
    for (const wireId of wireIds) received.delete(keyOf(deviceId, wireId));
    const foreign = seen.find(({ frame }) => attempts.every((one) => one.frameOut !== frame));
    if (foreign) differs(`the device received ${foreign.frame}, which is in no attempt`);
    if (seen.length > attempts.length) {
      differs(`the device received it ${seen.length} times in ${attempts.length} attempts`);
    }
    const answered = seen.filter(({ answeredAt }) => answeredAt !== null);
    if (!command.repeatable && answered.length < attempts.length) probed.add(deviceId);
    if (seen.length === 0) {
      differs(`it is ${end.status}, but never reached the device`);
      continue;
    }
    const expected = expectedEnds(command, end, seen);
    if (!expected.includes(end.status)) {
      differs(`it is ${end.status} and should be ${expected.join(' or ')}: ${storyOf(seen)}`);
    }
  }
  for (const frame of [...received.values()].flat()) {
    const { deviceId, name, wireId } = frame;
    // a probe belongs to no command
    if (name === probeName && probed.has(deviceId)) continue;
    const says = `the device received wire id ${wireId}, which is in no command: ${frame.frame}`;
    differences.push({ id: '-', deviceId, command: name, says });
  }
  return differences;
}

function expectedEnds(command: Sent, end: Shown, seen: readonly FrameEntry[]): string[] {
  if (command.ack === 'none') return ['unacknowledged'];
  const answered = seen.filter(({ answeredAt }) => answeredAt !== null);
  if (answered.length > 0) {
    return [...new Set(answered.flatMap(endsOfAnswer))];
  }
  // a probe may find the effect of a command whose answer was lost
  if (end.inferred && seen.some(({ executed }) => executed)) return ['succeeded', 'unknown'];
  if (command.repeatable && seen.length < end.maxAttempts) return ['tried again'];
  return ['unknown'];
}

function endsOfAnswer({ says, executed }: FrameEntry): string[] {
  if (says !== 'nack') return ['succeeded'];
  // "same state", said to a frame that came again: whose charge it is, a report tells, or nothing does
  return executed ? ['succeeded', 'unknown'] : ['rejected'];
}

function storyOf(seen: readonly FrameEntry[]): string {
  const parts = seen.map(({ answeredAt, says, intended }) =>
    answeredAt === null ? `unanswered (${intended})` : `answered ${says}`,
  );
  return `received ${seen.length} times: ${parts.join(', ')}`;
}

function keyOf(deviceId: string, wireId: number): string {
  return `${deviceId}/${wireId}`;
}
