/** What is known of one sequence once it is over: all that was asked, all that the devices saw, all that was shown. */
import type { ShownAttempt, ShownCommand } from '../support/api-client.ts';

/** A frame that reached a device. Times are Unix milliseconds of this process. */
export type Frame = {
  at: number;
  deviceId: string;
  /** Counts the connections of the device. */
  connection: number;
  wireId: number;
  /** What it orders, in the words of `wishText`. */
  orders: string;
  hex: string;
  says: 'ack' | 'nack' | 'nothing';
  /** It took effect, with this frame or an earlier one of its wire id. */
  executed: boolean;
  /** The device had seen the wire id before. */
  repeated: boolean;
  /** When the answer's bytes were handed to a socket, and on which connection; null: they were not. */
  answeredAt: number | null;
  answeredOn: number | null;
};

export type Closed = {
  at: number;
  deviceId: string;
  connection: number;
  /** `device`: after all that it had sent; `reset`: it broke off; `server`: the other side ended it. */
  by: 'device' | 'reset' | 'server';
};

export type Kind = 'query' | 'set' | 'start' | 'modify' | 'stop';

/** One POST and its answer. */
export type Asked = {
  deviceId: string;
  kind: Kind;
  command: string;
  /** What its frame will order, in the words of `wishText`. */
  orders: string;
  /** The line that its protocol's document puts it into, or the caller's own; null: none. */
  line: string | null;
  params: Record<string, unknown>;
  askedAt: number;
  answeredAt: number;
  status: number;
  code: string | null;
  /** What a refusal names as its cause. */
  because: string | null;
  id: string | null;
  acceptedAt: number;
  /** When it was to go: it joins its line no earlier. */
  dueAt: number;
  deadline: number;
  ackTimeoutMs: number;
  attempts: number;
  /** The Idempotency-Key, and whether an earlier POST of this story had used it, with which body. */
  key: string | null;
  keyUse: 'first' | 'same' | 'other';
  /** The body as it was sent. */
  body: string;
};

export type Cancelled = {
  id: string;
  askedAt: number;
  answeredAt: number;
  status: number;
  code: string | null;
};

export type Held = {
  deviceId: string;
  what: 'pause' | 'resume';
  askedAt: number;
  answeredAt: number;
  status: number;
};

/** A process that was ended; `to`: it is back and ready. */
export type Outage = {
  role: 'gateway' | 'worker';
  signal: 'SIGKILL' | 'SIGTERM';
  from: number;
  to: number;
};

/** A status as the API showed it at a moment; only changes are kept. */
export type Sight = { id: string; at: number; status: string; late: boolean };

/** `at`: when it was handed to the gateway. A probe asks for the effect of the attempt before it. */
export type ShownTry = ShownAttempt & { at: string; probe?: boolean };

/** A command as the API shows it, with what the rules look at besides. */
export type Shown = Omit<ShownCommand, 'attempts'> & {
  onAmbiguous: string;
  attempts: readonly ShownTry[];
};

export type Story = {
  asked: readonly Asked[];
  cancelled: readonly Cancelled[];
  held: readonly Held[];
  frames: readonly Frame[];
  closes: readonly Closed[];
  outages: readonly Outage[];
  sights: readonly Sight[];
  /** Every accepted command as GET /v1/commands/:id shows it in the end. */
  records: readonly Shown[];
  /** How late this process may have noticed what happened: its longest stall. */
  stallMs: number;
  /** Frames in flight that the protocol's table allows. */
  inFlight: Readonly<Record<string, number>>;
  maxPerKey: number;
  maxPerDevice: number;
};

/** The story of one device in the order of time, for whoever looks for a cause. */
export function tell(story: Story, deviceId: string): string[] {
  const lines: { at: number; text: string }[] = [];
  const say = (at: number, text: string) => lines.push({ at, text });
  const ids = new Set(story.records.filter((one) => one.deviceId === deviceId).map(({ id }) => id));
  for (const one of story.asked) {
    if (one.deviceId !== deviceId) continue;
    const outcome = one.id ? short(one.id) : `${one.code} ${one.because ?? ''}`;
    const due = one.dueAt > one.acceptedAt ? ` due in ${one.dueAt - one.acceptedAt}` : '';
    const ttl = ` ttl ${one.deadline - one.dueAt} ack ${one.ackTimeoutMs} tries ${one.attempts}`;
    say(one.askedAt, `POST ${one.command} [${one.orders}]${due}${ttl}`);
    say(one.answeredAt, `  → ${one.status} ${outcome}${one.key ? ` (key, ${one.keyUse})` : ''}`);
  }
  for (const { id, ...one } of story.cancelled) {
    if (!ids.has(id)) continue;
    say(one.askedAt, `DELETE ${short(id)}`);
    say(one.answeredAt, `  → ${one.status} ${one.code ?? ''} ${short(id)}`);
  }
  for (const one of story.held) {
    if (one.deviceId !== deviceId) continue;
    say(one.askedAt, one.what);
    say(one.answeredAt, `  → ${one.status}`);
  }
  for (const one of story.frames) {
    if (one.deviceId !== deviceId) continue;
    const again = one.repeated ? ' again' : '';
    say(
      one.at,
      `  FRAME #${one.connection} wire ${one.wireId}${again} [${one.orders}] ${one.says}`,
    );
    if (one.answeredAt === null) continue;
    say(one.answeredAt, `  ANSWER #${one.answeredOn} wire ${one.wireId} ${one.says}`);
  }
  for (const one of story.closes) {
    if (one.deviceId === deviceId) say(one.at, `  CLOSED #${one.connection} by ${one.by}`);
  }
  for (const one of story.outages) {
    say(one.from, `${one.signal} ${one.role}`);
    say(one.to, `${one.role} is back`);
  }
  for (const one of story.sights) {
    if (!ids.has(one.id)) continue;
    say(one.at, `      ${short(one.id)} is ${one.status}${one.late ? ', late' : ''}`);
  }
  for (const record of story.records) {
    if (record.deviceId !== deviceId) continue;
    for (const attempt of record.attempts) {
      if (attempt.writtenAt === null) continue;
      const what = attempt.probe ? 'probe' : 'written';
      say(Date.parse(attempt.writtenAt), `    ${what} ${short(record.id)} #${attempt.attempt}`);
    }
    if (record.settledAt === null) continue;
    const how = `${record.status} ${record.code ?? ''} ${record.reason ?? ''}`;
    say(Date.parse(record.settledAt), `    settled ${short(record.id)}: ${how}`);
  }
  lines.sort((a, b) => a.at - b.at);
  const first = lines[0]?.at ?? 0;
  return lines.map(({ at, text }) => `${String(at - first).padStart(6)} ${text}`);
}

/** Ids begin with the time; their ends tell them apart. */
export function short(id: string): string {
  return id.slice(-6);
}
