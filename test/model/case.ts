/** A story sorted by command, for the rules that judge it. */
import type { Asked, Frame, Shown, ShownTry, Story } from './story.ts';

/** A frame with the attempt that wrote it. */
export type Write = {
  frame: Frame;
  attempt: ShownTry | null;
  /** By the gateway's clock; null: no receipt of it reached the trail. */
  writtenAt: number | null;
};

export type Case = {
  asked: Asked;
  record: Shown;
  /** Attempts that are no probes. */
  attempts: readonly ShownTry[];
  /** In the order of arrival. */
  writes: readonly Write[];
  /** Frames that asked what had become of it. */
  probes: readonly Write[];
};

export type Problem = { rule: string; deviceId: string; text: string };

export type View = {
  story: Story;
  cases: readonly Case[];
  byId: ReadonlyMap<string, Case>;
  /** Frames whose wire id stands in no trail. */
  strays: readonly Frame[];
};

/** Receipts carry whole milliseconds of the gateway's clock. */
const clockMs = 2;

export function viewOf(story: Story): View {
  const records = new Map(story.records.map((record) => [record.id, record]));
  const owners = new Map<string, { id: string; probe: boolean }>();
  for (const { id, deviceId, attempts } of story.records) {
    for (const { wireId, probe = false } of attempts) {
      owners.set(`${deviceId} ${wireId}`, { id, probe });
    }
  }
  const framesOf = (id: string, ofProbes: boolean) =>
    story.frames.filter(({ deviceId, wireId }) => {
      const owner = owners.get(`${deviceId} ${wireId}`);
      return owner?.id === id && owner.probe === ofProbes;
    });
  const byId = new Map<string, Case>();
  for (const asked of story.asked.toSorted((a, b) => a.askedAt - b.askedAt)) {
    const record = records.get(asked.id ?? '');
    if (!record || byId.has(record.id)) continue;
    const attempts = record.attempts.filter(({ probe }) => !probe);
    const probing = record.attempts.filter(({ probe }) => probe);
    byId.set(record.id, {
      asked,
      record,
      attempts,
      writes: writesOf(framesOf(record.id, false), attempts),
      probes: writesOf(framesOf(record.id, true), probing),
    });
  }
  const strays = story.frames.filter(({ deviceId, wireId }) => {
    return !owners.has(`${deviceId} ${wireId}`);
  });
  return { story, cases: [...byId.values()], byId, strays };
}

/** A frame comes this soon after its write, to a process that is awake. */
const transitMs = 1_000;

/**
 * A frame was written by the attempt whose write came just before it, or else by one of which no receipt is known.
 * An attempt writes one frame.
 */
function writesOf(frames: readonly Frame[], tries: readonly ShownTry[]): Write[] {
  const left = tries.map((attempt) => ({ attempt, writtenAt: momentOf(attempt.writtenAt) }));
  return frames.map((frame): Write => {
    const fits = ({ attempt, writtenAt }: (typeof left)[number]) =>
      attempt.wireId === frame.wireId &&
      writtenAt !== null &&
      writtenAt <= frame.at + clockMs &&
      writtenAt >= frame.at - transitMs;
    const sure = left.findLastIndex(fits);
    const at = sure >= 0 ? sure : left.findIndex(({ writtenAt }) => writtenAt === null);
    const [match] = at >= 0 ? left.splice(at, 1) : [];
    return { frame, attempt: match?.attempt ?? null, writtenAt: match?.writtenAt ?? null };
  });
}

function momentOf(iso: string | null): number | null {
  return iso === null ? null : Date.parse(iso);
}

/** The earliest moment at which the frame can have been written. */
export function notBefore({ writtenAt, attempt, frame }: Write): number {
  if (writtenAt !== null) return writtenAt;
  return Math.min(frame.at, attempt ? Date.parse(attempt.at) : Number.POSITIVE_INFINITY);
}

/** True when the write surely came after the moment; `slackMs` is what the frame's arrival may lag behind. */
export function surelyAfter({ writtenAt, frame }: Write, moment: number, slackMs: number): boolean {
  return writtenAt === null ? frame.at > moment + slackMs : writtenAt > moment + clockMs;
}

/** When the command had its end, as far as its row tells; a late answer moves that. */
export function settledAt({ record }: Case): number {
  return record.settledAt === null ? Number.POSITIVE_INFINITY : Date.parse(record.settledAt);
}

/** It took its place in the line when it was accepted, and not later. */
export function joinsAtOnce({ dueAt, acceptedAt }: Asked): boolean {
  return dueAt <= acceptedAt;
}

/** True when `a` surely took its place in the line of both before `b` did. */
export function before(a: Case, b: Case): boolean {
  if (a === b || a.asked.line === null) return false;
  if (a.asked.deviceId !== b.asked.deviceId || a.asked.line !== b.asked.line) return false;
  return placedBy(a) <= b.asked.askedAt;
}

/** The moment by which it surely had its place. An attempt proves that it had one. */
export function placedBy({ asked, attempts }: Case): number {
  const tried = attempts.map(({ at }) => Date.parse(at));
  return Math.min(...tried, joinsAtOnce(asked) ? asked.answeredAt : Number.POSITIVE_INFINITY);
}
