/** Rules on what callers are told: by accept, by cancel, under a key. */
import {
  before,
  type Case,
  joinsAtOnce,
  type Problem,
  settledAt,
  surelyAfter,
  type View,
} from './case.ts';
import { clockMs, lagOf, named, neverWritten, problem, type Rule } from './rule.ts';

/** A cancel that was answered 200 means that it was never written, and never will be. */
export const cancelled: Rule = (view) => {
  const problems: Problem[] = [];
  const lag = lagOf(view);
  for (const { id, status, code, answeredAt } of view.story.cancelled) {
    const one = view.byId.get(id);
    if (!one) continue;
    const { record } = one;
    if (status === 200) {
      if (record.status !== 'cancelled') {
        problems.push(problem('cancelled', one, `was cancelled and ended as ${record.status}`));
      }
    } else if (status === 202) {
      if (one.writes.some((write) => surelyAfter(write, answeredAt, lag))) {
        problems.push(problem('cancelled', one, 'was written after its cancel was requested'));
      }
    } else if (status === 409 && code === 'ALREADY_SENT') {
      if (neverWritten.has(record.status)) {
        problems.push(
          problem(
            'cancelled',
            one,
            `could not be cancelled as sent, and ended as ${record.status}`,
          ),
        );
      }
    } else if (status === 409 && code === 'ALREADY_FINAL') {
      if (!record.late && settledAt(one) > answeredAt + clockMs) {
        problems.push(problem('cancelled', one, 'was called final before it had ended'));
      }
    } else problems.push(problem('cancelled', one, `DELETE answered ${status} ${code}`));
  }
  return problems;
};

/** Refusals of accept name a cause that is there; a start is refused while another one is unfinished. */
export const refusals: Rule = (view) => {
  const problems: Problem[] = [];
  const { asked, maxPerKey, maxPerDevice } = view.story;
  // A row carries the moment of its verdict; the line is left when the row is stored.
  const lag = lagOf(view);
  for (const one of asked) {
    if (one.id !== null || one.code === 'IDEMPOTENCY_CONFLICT') continue;
    const refused = (text: string) =>
      problems.push({
        rule: 'refusals',
        deviceId: one.deviceId,
        text: `[${one.orders}] was refused with ${one.status} ${one.code} (${one.because}): ${text}`,
      });
    /** Accepted and not ended, as far as can be told, while the request was under way. */
    const open = view.cases.filter(
      (other) =>
        other.asked.deviceId === one.deviceId &&
        other.asked.askedAt <= one.answeredAt &&
        (other.record.late || settledAt(other) >= one.askedAt - lag),
    );
    const inLine = open.filter((other) => other.asked.line === one.line);
    if (one.code === 'CONFLICT') {
      const other = view.byId.get(one.because ?? '');
      if (one.kind !== 'start' && one.kind !== 'modify') refused('only starts are refused so');
      else if (!other || !inLine.includes(other)) refused('what it names is not unfinished');
      else if (other.asked.kind !== 'start' && other.asked.kind !== 'stop') refused('by no start');
    } else if (one.code === 'TOO_MANY_WAITING') {
      if (one.kind === 'stop') refused('a stop is never refused for its number');
      const full = (one.line !== null && inLine.length >= maxPerKey) || open.length >= maxPerDevice;
      if (!full) refused(`only ${inLine.length} in its line, ${open.length} in all`);
    } else refused('no such refusal is known');
  }
  for (const later of view.cases) {
    if (later.asked.kind !== 'start' || !joinsAtOnce(later.asked)) continue;
    const rival = view.cases.find((one) => one.asked.kind === 'start' && isRival(one, later, view));
    if (!rival) continue;
    problems.push(problem('refusals', later, `was accepted while ${named(rival)} was unfinished`));
  }
  return problems;
};

/** `one` stood unfinished in the line all the time while `later` was accepted, and nothing had revoked it. */
function isRival(one: Case, later: Case, { cases, story }: View): boolean {
  if (!joinsAtOnce(one.asked) || !before(one, later)) return false;
  if (one.record.late || settledAt(one) <= later.asked.answeredAt + clockMs) return false;
  if (
    story.cancelled.some(
      ({ id, askedAt }) => id === one.asked.id && askedAt <= later.asked.answeredAt,
    )
  ) {
    return false;
  }
  return !cases.some(({ asked }) => {
    const inLine = asked.deviceId === one.asked.deviceId && asked.line === one.asked.line;
    return asked.kind === 'stop' && inLine && asked.askedAt <= later.asked.answeredAt;
  });
}

/** A key stands for one command: the same body finds it again, another one is refused. */
export const keys: Rule = ({ story }) => {
  const problems: Problem[] = [];
  const holders = new Map<string, { id: string; body: string }>();
  for (const one of story.asked.toSorted((a, b) => a.askedAt - b.askedAt)) {
    if (one.key === null) continue;
    const { body } = one;
    const holder = holders.get(one.key);
    const text = (what: string) =>
      problems.push({ rule: 'keys', deviceId: one.deviceId, text: `[${one.orders}] ${what}` });
    if (!holder) {
      if (one.id !== null) holders.set(one.key, { id: one.id, body });
    } else if (holder.body === body) {
      if (one.id !== holder.id) text(`got ${one.id ?? one.code} under the key of ${holder.id}`);
    } else if (one.code !== 'IDEMPOTENCY_CONFLICT') {
      text(`got ${one.id ?? one.code} under a key that another body holds`);
    }
  }
  return problems;
};
