/** How Fastify checks what comes in: the same schemas and sentences as everywhere else. */
import type { FastifySchema, FastifySchemaCompiler } from 'fastify';
import type { TObject } from 'typebox';
import { Compile } from 'typebox/compile';
import { Value } from 'typebox/value';
import { faultsOf } from '../../queues/faults.ts';
import { DownlinkError } from '../errors.ts';

/** Texts of a URL become the numbers and booleans that the schema asks for; bodies are taken as they are. */
export const compileValidator: FastifySchemaCompiler<FastifySchema> = (part) => {
  const { httpPart } = part;
  // What routes give are typebox objects throughout.
  const schema = part.schema as unknown as TObject;
  if (httpPart === 'headers') return () => true;
  const check = Compile(schema);
  return (given: unknown) => {
    const value = httpPart === 'body' ? (given ?? {}) : Value.Convert(schema, given);
    if (check.Check(value)) return { value };
    const errors = faultsOf(schema, value);
    const detail = errors.map(({ path, message }) => `${path || 'it'} ${message}`).join('; ');
    return { error: new DownlinkError('BAD_REQUEST', detail, { details: { errors } }) };
  };
};

/** For a route whose handler checks the body itself. */
export const compileAllButBody: FastifySchemaCompiler<FastifySchema> = (route) =>
  route.httpPart === 'body' ? () => true : compileValidator(route);
