/** Rules on what reaches a device: how many frames at once, in which order, until when, and where it is written down. */
import {
  before,
  type Case,
  joinsAtOnce,
  notBefore,
  type Problem,
  settledAt,
  surelyAfter,
  type View,
  type Write,
} from './case.ts';
import { clockMs, lagOf, named, neverWritten, problem, type Rule } from './rule.ts';

/** In flight on a session at most what the protocol's table says; stops aside. */
export const inFlight: Rule = (view) => {
  const problems: Problem[] = [];
  const flights = view.cases
    .filter(({ asked }) => asked.kind !== 'stop')
    .flatMap((one) =>
      [...one.writes, ...one.probes].map((write) => ({
        one,
        write,
        endsAt: endOfFlight(write, one),
      })),
    )
    .toSorted(
      (a, b) => view.story.frames.indexOf(a.write.frame) - view.story.frames.indexOf(b.write.frame),
    );
  for (const [i, { one, write }] of flights.entries()) {
    const { deviceId, connection } = write.frame;
    const at = write.writtenAt ?? write.frame.at;
    const flying = flights.slice(0, i).filter(({ write: { frame }, endsAt }) => {
      return (
        frame.deviceId === deviceId && frame.connection === connection && endsAt > at + clockMs
      );
    });
    if (flying.length < (view.story.inFlight[deviceId] ?? 1)) continue;
    const what = flying.map((each) => named(each.one)).join(', ');
    problems.push(problem('in flight', one, `was written while ${what} was in flight`));
  }
  return problems;
};

/** The answer, or the ack timeout: then the gateway has given it up. */
function endOfFlight(write: Write, { asked, writes, probes }: Case): number {
  const from = notBefore(write);
  const { connection, wireId } = write.frame;
  const answers = [...writes, ...probes].flatMap(({ frame }) =>
    frame.wireId === wireId &&
    frame.answeredAt !== null &&
    frame.answeredOn === connection &&
    frame.answeredAt >= from
      ? [frame.answeredAt]
      : [],
  );
  return Math.min(from + asked.ackTimeoutMs, ...answers);
}

/** Commands of one line are written in the order in which they joined it; a stop waits for stops alone. */
export const inOrder: Rule = ({ cases }) => {
  const problems: Problem[] = [];
  for (const later of cases) {
    const [first] = later.writes;
    if (!first) continue;
    for (const earlier of cases) {
      if (later.asked.kind === 'stop' && earlier.asked.kind !== 'stop') continue;
      if (!before(earlier, later)) continue;
      const last = earlier.writes.at(-1);
      if (last && last.frame.at > first.frame.at) {
        problems.push(problem('in order', earlier, `reached the device after ${named(later)}`));
      }
      // What was revoked before it was written holds nobody up; a late answer moves the end.
      if (earlier.writes.length === 0 && neverWritten.has(earlier.record.status)) continue;
      if (earlier.record.late) continue;
      if (settledAt(earlier) > (first.writtenAt ?? first.frame.at) + clockMs) {
        problems.push(problem('in order', later, `was written before ${named(earlier)} had ended`));
      }
    }
  }
  return problems;
};

/** No start or added time is written after a stop of its port was accepted. */
export const stopped: Rule = (view) => {
  const problems: Problem[] = [];
  const lag = lagOf(view);
  for (const stop of view.cases) {
    if (stop.asked.kind !== 'stop') continue;
    const at = joinsAtOnce(stop.asked) ? stop.asked.answeredAt : stop.writes[0]?.writtenAt;
    if (at === undefined || at === null) continue;
    for (const one of view.cases) {
      if (!isReplacedBy(one, stop)) continue;
      for (const write of one.writes) {
        if (!surelyAfter(write, at, lag)) continue;
        problems.push(problem('stopped', one, `was written after ${named(stop)} was accepted`));
      }
    }
  }
  return problems;
};

/** A start or added time of the stop's port that was there when the stop took its place. */
function isReplacedBy({ asked }: Case, stop: Case): boolean {
  if (asked.kind !== 'start' && asked.kind !== 'modify') return false;
  if (asked.deviceId !== stop.asked.deviceId || asked.line !== stop.asked.line) return false;
  const by = joinsAtOnce(stop.asked) ? stop.asked.askedAt : stop.asked.dueAt;
  return asked.answeredAt <= by && asked.dueAt <= by;
}

/** Nothing is written after its time to live. */
export const inTime: Rule = (view) => {
  const problems: Problem[] = [];
  const lag = lagOf(view);
  for (const one of view.cases) {
    for (const write of one.writes) {
      const { deadline, dueAt } = one.asked;
      if (
        write.writtenAt !== null ? write.writtenAt >= deadline : write.frame.at > deadline + lag
      ) {
        problems.push(problem('in time', one, `was written after its deadline`));
      }
      if (write.frame.at < dueAt - clockMs) {
        problems.push(problem('in time', one, `was written before its time had come`));
      }
    }
  }
  return problems;
};

/** Every write stands in the trail; a command keeps its wire id and its number of attempts. */
export const inTrail: Rule = (view) => {
  const problems: Problem[] = [];
  for (const frame of view.strays) {
    if (isProbe(frame, view)) continue;
    const { deviceId, wireId, orders } = frame;
    problems.push({
      rule: 'in trail',
      deviceId,
      text: `a frame [${orders}] with wire id ${wireId} stands in no trail`,
    });
  }
  const owners = new Map<string, Case>();
  for (const one of view.cases) {
    const { attempts } = one;
    const { maxAttempts, deviceId } = one.record;
    const wireIds = new Set(attempts.map(({ wireId }) => wireId));
    if (wireIds.size > 1) problems.push(problem('in trail', one, 'changed its wire id'));
    for (const wireId of wireIds) {
      const other = owners.get(`${deviceId} ${wireId}`);
      if (other) problems.push(problem('in trail', one, `shares its wire id with ${named(other)}`));
      owners.set(`${deviceId} ${wireId}`, one);
    }
    if (attempts.some(({ attempt }) => attempt > maxAttempts)) {
      problems.push(problem('in trail', one, `was tried more than ${maxAttempts} times`));
    }
    if (one.writes.length > attempts.length) {
      const counts = `${one.writes.length} times, its trail shows ${attempts.length}`;
      problems.push(problem('in trail', one, `reached the device ${counts}`));
    }
    const outs = new Set(attempts.map(({ frameOut }) => frameOut));
    for (const { frame } of one.writes) {
      if (frame.orders !== one.asked.orders) {
        problems.push(problem('in trail', one, `reached the device as [${frame.orders}]`));
      } else if (!outs.has(frame.hex)) {
        problems.push(problem('in trail', one, `reached the device as ${frame.hex}`));
      }
    }
  }
  return problems;
};

/** Before a start is sent again, its port is asked; such a question belongs to no command. */
function isProbe({ deviceId, orders, at }: View['strays'][number], { cases }: View): boolean {
  if (orders !== 'query') return false;
  return cases.some(({ asked, record, attempts }) => {
    const mine = asked.deviceId === deviceId && asked.kind === 'start';
    const tried = attempts.some((attempt) => Date.parse(attempt.at) <= at);
    return mine && record.onAmbiguous === 'probe' && tried;
  });
}

/** What is accepted while its device is paused is not written before it is resumed. */
export const paused: Rule = (view) => {
  const problems: Problem[] = [];
  for (const pause of view.story.held) {
    if (pause.what !== 'pause' || pause.status !== 200) continue;
    const { deviceId } = pause;
    const resumed = view.story.held.find(
      (one) =>
        one.deviceId === deviceId && one.what === 'resume' && one.askedAt >= pause.answeredAt,
    );
    const until = resumed?.askedAt ?? Number.POSITIVE_INFINITY;
    for (const one of view.cases) {
      if (one.asked.deviceId !== deviceId || one.asked.askedAt < pause.answeredAt) continue;
      if (!one.writes.some((write) => (write.writtenAt ?? write.frame.at) < until)) continue;
      problems.push(problem('paused', one, 'was written while its device was paused'));
    }
  }
  return problems;
};
