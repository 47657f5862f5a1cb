/** Rules on ends: there is one, it is true, and it comes in time. */
import { type Case, joinsAtOnce, type Problem, placedBy, settledAt, type View } from './case.ts';
import { clockMs, finals, lagOf, neverWritten, problem, type Rule, transportMs } from './rule.ts';
import { short } from './story.ts';

/** From a deadline to the end of what the sweeper finds. */
const sweepMs = 3_000;

/** Every accepted command has one end, and keeps it, save unknown → succeeded | rejected (late). */
export const oneEnd: Rule = ({ story, cases, byId }) => {
  const problems: Problem[] = [];
  for (const { id, deviceId } of story.asked) {
    if (id !== null && !byId.has(id)) {
      problems.push({ rule: 'one end', deviceId, text: `${short(id)} was accepted and is lost` });
    }
  }
  const sights = Map.groupBy(story.sights, ({ id }) => id);
  for (const one of cases) {
    const { id, status, late } = one.record;
    if (!finals.has(status)) problems.push(problem('one end', one, `never ended: it is ${status}`));
    const seen = [...(sights.get(id) ?? []), { status, late }];
    let was: { status: string; late: boolean } | null = null;
    let sent = false;
    for (const now of seen) {
      sent ||= now.status === 'sent';
      if (sent && neverWritten.has(now.status)) {
        problems.push(problem('one end', one, `was sent and then ${now.status}`));
      }
      if (was && finals.has(was.status) && now.status !== was.status) {
        const upgrade = now.status === 'succeeded' || now.status === 'rejected';
        if (was.status !== 'unknown' || !upgrade || !now.late) {
          problems.push(
            problem('one end', one, `ended as ${was.status} and then as ${now.status}`),
          );
        }
      }
      was = now;
    }
  }
  return problems;
};

/** The end agrees with what the device saw. */
export const honestEnd: Rule = (view) => {
  const problems: Problem[] = [];
  for (const one of view.cases) {
    const { status } = one.record;
    if (!finals.has(status)) continue;
    const allowed = allowedEnds(one, view);
    if (allowed.has(status)) continue;
    const may = [...allowed].join(' or ') || 'nothing';
    problems.push(problem('honest end', one, `ended as ${status}, but may only be ${may}`));
  }
  return problems;
};

function allowedEnds(one: Case, view: View): Set<string> {
  const { record, writes, asked } = one;
  const allowed = new Set<string>();
  const frames = writes.map(({ frame }) => frame);
  if (frames.length === 0) {
    if (settledAt(one) >= asked.deadline - clockMs) allowed.add('expired');
    if (view.story.cancelled.some(({ id, status }) => id === asked.id && status < 300)) {
      allowed.add('cancelled');
    }
    if (view.cases.some((other) => mayReplace(other, one))) allowed.add('superseded');
    // What was scheduled meets the start that it would double only when its time comes.
    if (!joinsAtOnce(asked) && record.code === 'CONFLICT') allowed.add('failed');
    if (mayBeLost(one, view)) allowed.add('unknown');
    return allowed;
  }
  let surely = false;
  let unclear = false;
  for (const { frame } of writes) {
    if (frame.answeredAt === null || frame.says === 'nothing') continue;
    surely ||= surelyHeard(one, frame.answeredAt, frame.answeredOn, view);
    // "Same state" to a start that was tried before says that the port is busy, not whose charge is running.
    // All tries carry one wire id, so that nobody can tell which of them the device meant.
    const again =
      frame.says === 'nack' && record.onAmbiguous === 'probe' && one.attempts.length > 1;
    unclear ||= again;
    if (again && frame.executed) continue;
    allowed.add(frame.says === 'ack' ? 'succeeded' : 'rejected');
  }
  if (!surely || unclear) allowed.add('unknown');
  if (record.inferred && frames.some(({ executed }) => executed)) allowed.add('succeeded');
  return allowed;
}

/**
 * After it was due its gateway or its worker went, or, once it had been handed to a gateway, its connection. A
 * worker that is killed may not have come to write down that it handed it over.
 */
function mayBeLost(one: Case, view: View): boolean {
  const { deviceId, dueAt } = one.asked;
  const from = dueAt - lagOf(view);
  const end = settledAt(one) + lagOf(view);
  const { outages, closes } = view.story;
  return (
    outages.some((outage) => outage.from <= end && outage.to >= from) ||
    (one.attempts.length > 0 &&
      closes.some((each) => each.deviceId === deviceId && each.at >= from && each.at <= end))
  );
}

/** Nothing was dying that should have carried the answer on. */
function surelyHeard(
  one: Case,
  answeredAt: number,
  answeredOn: number | null,
  { story }: View,
): boolean {
  const { deviceId } = one.asked;
  const close = story.closes.find((each) => {
    return each.deviceId === deviceId && each.connection === answeredOn;
  });
  const graceMs = transportMs + story.stallMs;
  if (close && close.by !== 'device' && close.at <= answeredAt + graceMs) return false;
  // A gateway that is killed takes along what no worker has settled.
  const settled = Math.max(one.record.late ? 0 : settledAt(one), answeredAt + 1_000);
  return !story.outages.some(({ role, signal, from, to }) => {
    const dies = role === 'gateway' && signal === 'SIGKILL';
    return dies && from <= settled && to >= answeredAt - graceMs;
  });
}

/** Whether `other` may have ended `one` as superseded. */
function mayReplace(other: Case, one: Case): boolean {
  const [a, b] = [other.asked, one.asked];
  if (other === one || a.deviceId !== b.deviceId || a.line !== b.line) return false;
  // It came later, or did so for all that can be told: one that was scheduled joins when its job is activated.
  if (Math.min(placedBy(other), settledAt(other)) < b.askedAt) return false;
  if (a.kind === 'stop') return b.kind === 'start' || b.kind === 'modify';
  if (a.kind !== 'set' || b.kind !== 'set') return false;
  return Object.keys(b.params).every((name) => name in a.params);
}

/** What its time to live ends is told so soon, whatever it waited for; a worker that was killed is missed later. */
export const promptly: Rule = (view) => {
  const problems: Problem[] = [];
  for (const one of view.cases) {
    const { dueAt, deadline } = one.asked;
    const lateMs = settledAt(one) - deadline;
    if (one.record.status !== 'expired' || lateMs <= sweepMs + lagOf(view)) continue;
    const missed = view.story.outages.some(({ role, from, to }) => {
      return role === 'worker' && from <= settledAt(one) && to >= dueAt;
    });
    if (!missed) problems.push(problem('promptly', one, `expired ${lateMs} ms after its deadline`));
  }
  return problems;
};
