/** What the commands' parameters and settings have in common. */
import { type Static, Type } from 'typebox';
import type { Params } from '../../../command.ts';

export const secondMs = 1000;
const minuteMs = 60 * secondMs;
export const hourMs = 60 * minuteMs;

/** A charge that starts or stops later than this surprises somebody. */
export const chargeTtlMs = minuteMs;

export const priorities = { stop: 9, start: 7, query: 5, raw: 5, settings: 3, ota: 1 } as const;

export const Byte = { minimum: 0, maximum: 0xff };
export const Word = { minimum: 0, maximum: 0xffff };
export const PositiveWord = { minimum: 1, maximum: 0xffff };

/** Socket 0 is what a device without radio sockets calls itself. */
export const Socket = Type.Integer({ minimum: 0, maximum: 250, description: 'socket number' });
/** Sockets that the network list numbers. */
export const ListedSocket = Type.Integer({
  minimum: 1,
  maximum: 250,
  description: 'socket number',
});
export const Port = Type.Integer({
  minimum: 0,
  maximum: 1,
  description: '0 is hole A, 1 is hole B',
});
export const Mac = Type.String({ pattern: '^[0-9a-fA-F]{12}$', description: '12 hex digits' });
export const TimeOfDay = Type.String({
  pattern: '^([01][0-9]|2[0-3]):[0-5][0-9]$',
  description: 'HH:MM',
});
export const AmountCents = Type.Integer({ ...Word, description: 'what was paid, in cents' });
export const EnergyWh = Type.Integer({ ...PositiveWord, description: 'energy in Wh' });

export const Tiers = Type.Array(
  Type.Object(
    {
      powerDeciW: Type.Integer({ ...PositiveWord, description: 'upper power limit in 0.1 W' }),
      priceCents: Type.Integer(Word),
      minutes: Type.Integer(PositiveWord),
    },
    { additionalProperties: false },
  ),
  { minItems: 1, maxItems: 5 },
);
export type Tiers = Static<typeof Tiers>;

export const closed = { additionalProperties: false } as const;

/** The fields of tiers on the wire. */
export function tierFields(amountCents: number, tiers: Tiers) {
  return {
    payCent: amountCents,
    tiers: tiers.map(({ powerDeciW, priceCents, minutes }) => ({
      powerDeciW,
      priceCent: priceCents,
      minutes,
    })),
  };
}

/** The line in which everything that switches one hole is written. */
export function portKey(params: { socket: number; port: number }): string {
  return `port:${params.socket}:${params.port}`;
}

/** Commands that start a charge: one at a time at a port, and gone with its stop. */
export const starts: readonly string[] = ['charge.start', 'card.order'];

export type ModeRules = Readonly<
  Record<string, { needs: readonly string[]; takes: readonly string[] }>
>;

/** Checks that the params of a mode, and only those, are there. */
export function checkMode(params: Params, rules: ModeRules): string | null {
  const mode = String(params['mode']);
  const rule = rules[mode];
  if (rule === undefined) return `mode must be one of ${Object.keys(rules).join(', ')}`;
  const missing = rule.needs.filter((name) => params[name] === undefined);
  if (missing.length > 0) return `mode ${mode} needs ${missing.join(', ')}; add what is missing`;
  const allowed = new Set([...rule.needs, ...rule.takes]);
  const ofAnyMode = new Set(
    Object.values(rules).flatMap(({ needs, takes }) => [...needs, ...takes]),
  );
  const foreign = Object.keys(params).filter((name) => ofAnyMode.has(name) && !allowed.has(name));
  if (foreign.length === 0) return null;
  return `mode ${mode} does not use ${foreign.join(', ')}; leave it out or choose another mode`;
}

/** The first value that comes twice, or undefined. */
export function firstRepeated<T>(values: readonly T[]): T | undefined {
  return values.find((value, i) => values.indexOf(value) !== i);
}
