/** Makes text that PostgreSQL's jsonb takes: it refuses the NUL character and halves of surrogate pairs. */

/** A cheap test on the JSON text; it may also be true of harmless text. */
const suspicious = /\\u(?:0000|d[89a-f])/;
const nul = /\0/g;

/** JSON of a value, without NUL characters and with lone surrogates replaced, in keys as in values. */
export function storableJson(value: unknown): string {
  const text = JSON.stringify(value);
  return suspicious.test(text) ? JSON.stringify(cleaned(JSON.parse(text))) : text;
}

function cleaned(value: unknown): unknown {
  if (typeof value === 'string') return value.replace(nul, '').toWellFormed();
  if (Array.isArray(value)) return value.map(cleaned);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [cleaned(key) as string, cleaned(item)]),
  );
}
