/** How the text of a setting becomes its value. Each reader throws a sentence that says what to write. */
import { parseAddr } from './addr.ts';

export const apiScopes = ['read', 'send', 'admin'] as const;
export type ApiScope = (typeof apiScopes)[number];
export type ApiKey = { name: string; secret: string; scopes: ApiScope[] };

export const boardRoles = ['viewer', 'admin'] as const;
export type BoardRole = (typeof boardRoles)[number];
export type BoardUser = { name: string; password: string; role: BoardRole };

const SECRET_MIN_LENGTH = 16;
const NAME = /^[A-Za-z0-9._-]{1,64}$/;

export function addr(text: string): string {
  parseAddr(text);
  return text;
}

export function url(...schemes: readonly string[]) {
  return (text: string): string => {
    // The text may hold a password, so it is not repeated in the sentence.
    const scheme = URL.canParse(text) ? new URL(text).protocol.slice(0, -1) : '';
    if (schemes.includes(scheme)) return text;
    throw new Error(
      `is no URL that begins with ${schemes.map((each) => `${each}://`).join(' or ')}`,
    );
  };
}

export function whole(lowest: number, highest: number) {
  return (text: string): number => {
    const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= lowest && value <= highest) return value;
    throw new Error(`"${text}" is no whole number from ${lowest} to ${highest}`);
  };
}

export function decimal(lowest: number, highest: number) {
  return (text: string): number => {
    const value = /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
    if (value >= lowest && value <= highest) return value;
    throw new Error(`"${text}" is no number from ${lowest} to ${highest}`);
  };
}

/** A time with its unit, such as `500ms`, `30s`, `5m`, `1h`; a bare number is seconds. Reads as milliseconds. */
export function duration(lowestMs: number, highestMs: number) {
  const units: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };
  return (text: string): number => {
    const [, digits, unit = 's'] = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)?$/.exec(text.trim()) ?? [];
    const ms = Number(digits) * (units[unit] ?? Number.NaN);
    if (Number.isFinite(ms) && ms >= lowestMs && ms <= highestMs) return Math.round(ms);
    throw new Error(
      `${JSON.stringify(text)} is no time from ${lowestMs} ms to ${highestMs} ms, such as 500ms, 30s or 5m`,
    );
  };
}

export function flag(text: string): boolean {
  if (text === 'true' || text === 'false') return text === 'true';
  throw new Error(`${JSON.stringify(text)} is neither true nor false`);
}

export function oneOf<const T extends string>(choices: readonly T[]) {
  return (text: string): T => {
    const choice = choices.find((each) => each === text);
    if (choice !== undefined) return choice;
    throw new Error(`"${text}" is none of ${choices.join(', ')}`);
  };
}

export function name(text: string): string {
  if (NAME.test(text)) return text;
  throw new Error(`"${text}" is no name: letters, digits, ".", "_" and "-", at most 64`);
}

/** `name:secret:scope+scope,…` */
export function apiKeys(text: string): ApiKey[] {
  const keys = entries(text, 'name:secret:scope+scope').map(([keyName, secret, scopeText]) => {
    if (secret.length < SECRET_MIN_LENGTH) {
      throw new Error(
        `the secret of "${keyName}" has length ${secret.length}; it needs at least ${SECRET_MIN_LENGTH} characters`,
      );
    }
    return { name: keyName, secret, scopes: scopeText.split('+').map(oneOf(apiScopes)) };
  });
  if (new Set(keys.map(({ secret }) => secret)).size < keys.length) {
    throw new Error('two keys have the same secret; the secret tells who asks');
  }
  return keys;
}

/** `name:password:role,…` */
export function boardUsers(text: string): BoardUser[] {
  return entries(text, 'name:password:role').map(([userName, password, role]) => ({
    name: userName,
    password,
    role: oneOf(boardRoles)(role),
  }));
}

/** The first and the last colon separate, so that a secret may hold some of its own. */
function entries(text: string, form: string): [name: string, secret: string, rest: string][] {
  const all = text
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '')
    .map((entry, index): [string, string, string] => {
      const first = entry.indexOf(':');
      const last = entry.lastIndexOf(':');
      const secret = entry.slice(first + 1, last);
      if (first < 1 || last <= first || secret === '') {
        throw new Error(`entry ${index + 1} is not of the form ${form}`);
      }
      return [name(entry.slice(0, first)), secret, entry.slice(last + 1)];
    });
  const names = all.map(([each]) => each);
  const twice = names.find((each, index) => names.indexOf(each) !== index);
  if (twice !== undefined) throw new Error(`the name "${twice}" is given twice`);
  return all;
}
