/** Every fault of a value against its schema, each with its path and what to change. */
import type { TObject, TSchema } from 'typebox';
import { Value } from 'typebox/value';

export type Fault = { path: string; message: string };

/** More than anybody mends in one go. */
const MAX_FAULTS = 50;

type JsonSchema = {
  type?: string;
  const?: unknown;
  enum?: unknown[];
  anyOf?: JsonSchema[];
  properties?: Record<string, TSchema>;
  patternProperties?: Record<string, TSchema>;
  additionalProperties?: unknown;
  required?: string[];
  items?: TSchema;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  maxProperties?: number;
  pattern?: string;
  description?: string;
};

/**
 * The faults of `value`; empty when it fits. `at` is the path of the value itself, empty for a body.
 * Values are never repeated in a message: they may be secret.
 */
export function faultsOf(schema: TObject, value: unknown, at = ''): Fault[] {
  return faultsAt(schema, value, at).slice(0, MAX_FAULTS);
}

function faultsAt(schema: TSchema, value: unknown, path: string): Fault[] {
  const sound: boolean = Value.Check(schema, value);
  if (sound) return [];
  const shape = schema as JsonSchema;
  if (shape.type === 'object' && isObject(value)) return faultsOfMembers(shape, value, path);
  if (shape.type === 'array' && Array.isArray(value) && shape.items && fitsLength(shape, value)) {
    const items = shape.items;
    return value.flatMap((item, i) => faultsAt(items, item, `${path}[${i}]`));
  }
  return [{ path, message: `must be ${describe(shape)}` }];
}

function faultsOfMembers(shape: JsonSchema, value: object, path: string): Fault[] {
  const faults: Fault[] = [];
  const known = shape.properties ?? {};
  const below = (key: string) => (path === '' ? key : `${path}.${key}`);
  for (const [key, member] of Object.entries(value)) {
    if (Object.hasOwn(known, key)) {
      faults.push(...faultsAt(known[key]!, member, below(key)));
      continue;
    }
    const patterned = Object.entries(shape.patternProperties ?? {}).find(([pattern]) =>
      new RegExp(pattern, 'u').test(key),
    );
    if (patterned !== undefined) faults.push(...faultsAt(patterned[1], member, below(key)));
    else if (shape.additionalProperties === false) faults.push(unknownMember(shape, key, below));
    if (faults.length >= MAX_FAULTS) return faults;
  }
  for (const key of shape.required ?? []) {
    if (Object.hasOwn(value, key)) continue;
    faults.push({
      path: below(key),
      message: `is missing: it must be ${describe(known[key] as JsonSchema)}`,
    });
  }
  if (shape.maxProperties !== undefined && Object.keys(value).length > shape.maxProperties) {
    faults.push({ path, message: `must have at most ${shape.maxProperties} members` });
  }
  return faults;
}

function unknownMember(shape: JsonSchema, key: string, below: (key: string) => string): Fault {
  const name = key.slice(0, 64);
  const names = Object.keys(shape.properties ?? {});
  if (shape.patternProperties !== undefined) {
    const pattern = Object.keys(shape.patternProperties).join(' or ');
    return { path: below(name), message: `is no valid name here: names match ${pattern}` };
  }
  return {
    path: below(name),
    message:
      names.length === 0
        ? 'is not allowed: there are no fields here; leave it out'
        : `is not allowed: leave it out, or use one of ${names.join(', ')}`,
  };
}

function fitsLength({ minItems = 0, maxItems = Infinity }: JsonSchema, value: unknown[]): boolean {
  return value.length >= minItems && value.length <= maxItems;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The schema in words: "a whole number from 0 to 9". */
function describe(schema: JsonSchema): string {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return `one of ${schema.enum.map((item) => JSON.stringify(item)).join(', ')}`;
  if (schema.anyOf) {
    const choices = schema.anyOf.map(describe);
    return schema.anyOf.every(({ const: only }) => only !== undefined)
      ? `one of ${choices.join(', ')}`
      : choices.join(', or ');
  }
  switch (schema.type) {
    case 'integer':
      return `a whole number${range('', schema.minimum, schema.maximum)}`;
    case 'number':
      return `a number${range('', schema.minimum, schema.maximum)}`;
    case 'string':
      return `a text${range(' characters', schema.minLength, schema.maxLength)}${
        schema.pattern === undefined ? '' : ` matching ${schema.pattern}`
      }`;
    case 'array':
      return `a list${range(' items', schema.minItems, schema.maxItems)}`;
    case 'object':
      return 'an object';
    case 'boolean':
      return 'true or false';
    case 'null':
      return 'null';
    default:
      return 'a value of another kind';
  }
}

function range(unit: string, min?: number, max?: number): string {
  const of = unit === '' ? '' : ' of';
  if (min !== undefined && max !== undefined) {
    return min === max ? `${of} exactly ${min}${unit}` : `${of || ' from'} ${min} to ${max}${unit}`;
  }
  if (min !== undefined) return `${of} at least ${min}${unit}`;
  if (max !== undefined) return `${of} at most ${max}${unit}`;
  return '';
}
