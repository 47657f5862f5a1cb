/** What a caller may ask for, and within which bounds. Everything else is refused by name. */
import { createHash } from 'node:crypto';
import { type Static, Type } from 'typebox';
import { ambiguityPolicies } from '../src/command.ts';

const SECOND_MS = 1_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

export const MAX_DELAY_MS = 30 * DAY_MS;
const MAX_BODY_DEPTH = 64;

export const AcceptBody = Type.Object(
  {
    deviceId: Type.String({
      minLength: 1,
      maxLength: 64,
      description: 'The device, in any case.',
    }),
    command: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 64,
        description: "A name from the command table of the device's protocol.",
      }),
    ),
    params: Type.Optional(
      Type.Object(
        {},
        { additionalProperties: true, description: 'As the command table defines them.' },
      ),
    ),
    cmd: Type.Optional(
      Type.String({
        maxLength: 8,
        description:
          'Raw form, in place of `command` and `params`: the command in hex, four digits for BKV, two for AP3000.',
      }),
    ),
    payload: Type.Optional(
      Type.String({ maxLength: 4_096, description: 'Raw form: the payload in hex.' }),
    ),
    priority: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 9, description: '9 is most urgent.' }),
    ),
    delayMs: Type.Optional(
      Type.Integer({ minimum: 0, maximum: MAX_DELAY_MS, description: 'Not before so much later.' }),
    ),
    notBefore: Type.Optional(
      Type.String({
        maxLength: 40,
        description: 'Not before this moment, ISO 8601 with its zone; in place of delayMs.',
      }),
    ),
    ttlMs: Type.Optional(
      Type.Integer({
        minimum: SECOND_MS,
        maximum: 48 * HOUR_MS,
        description: 'Counted from notBefore; after it the command is never written.',
      }),
    ),
    ackTimeoutMs: Type.Optional(
      Type.Integer({
        minimum: 100,
        maximum: 120 * SECOND_MS,
        description: "How long the device's answer is waited for, from the write.",
      }),
    ),
    attempts: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 10, description: 'Tries in all, the first included.' }),
    ),
    backoffMs: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 600 * SECOND_MS,
        description: 'Pause before the second try; it doubles from try to try.',
      }),
    ),
    orderKey: Type.Optional(
      Type.String({
        pattern: '^[\\x21-\\x7e]{1,64}$',
        description:
          'A line of your own: commands of one device and key are written in the order of their acceptance. Not for commands that stop, replace or exclude others, whose line the command table gives.',
      }),
    ),
    onAmbiguous: Type.Optional(
      Type.Enum(ambiguityPolicies, {
        description: 'What to do when it is not known whether the frame arrived.',
      }),
    ),
    labels: Type.Optional(
      Type.Record(
        Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$' }),
        Type.String({ maxLength: 128 }),
        { maxProperties: 16, additionalProperties: false, description: 'Your own notes.' },
      ),
    ),
  },
  { additionalProperties: false },
);

export type AcceptBody = Static<typeof AcceptBody>;

/** ISO 8601 with seconds and a zone; anything vaguer would mean different moments to different readers. */
const instantPattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)$/;

/** Unix milliseconds of an ISO 8601 instant, or null when the text is none. */
export function instantOf(text: string): number | null {
  if (!instantPattern.test(text)) return null;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? null : ms;
}

/** A hash that equal bodies share, whatever the order of their members. */
export function hashOfBody(body: unknown): string {
  return createHash('sha256').update(canonicalJson(body, 0)).digest('hex');
}

function canonicalJson(value: unknown, depth: number): string {
  if (depth > MAX_BODY_DEPTH) throw new RangeError(`a body is nested deeper than ${depth - 1}`);
  if (Array.isArray(value)) {
    return `[${value.map((item) => canonicalJson(item, depth + 1)).join(',')}]`;
  }
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${members
      .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member, depth + 1)}`)
      .join(',')}}`;
  }
  return JSON.stringify(value) ?? 'null';
}
