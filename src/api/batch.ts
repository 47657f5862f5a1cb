/** POST /v1/commands/batch: many commands in one call, each with a verdict of its own. */
import type { FastifyInstance } from 'fastify';
import type { AcceptMany, BatchVerdict } from '../../queues/accept-contract.ts';
import { isFinal } from '../command.ts';
import { DownlinkError } from '../errors.ts';
import { problemOf, sendProblem } from './problem.ts';
import { commandJson } from './representation.ts';
import { BatchBody, BatchVerdicts, commonProblems, problems } from './schemas.ts';
import { compileAllButBody } from './validation.ts';

export type BatchRoutes = { acceptMany: AcceptMany };

export const MAX_BATCH_ITEMS = 1_000;
const BATCH_LIMIT_BYTES = 2 * 1024 * 1024;

export function batchRoutes(app: FastifyInstance, { acceptMany }: BatchRoutes): void {
  app.post<{ Body: unknown }>(
    '/commands/batch',
    {
      config: { scope: 'send' },
      bodyLimit: BATCH_LIMIT_BYTES,
      errorHandler: (error, request, reply) =>
        sendProblem(request, reply, error, BATCH_LIMIT_BYTES),
      // Accept checks each item: one that is unsound must not concern the others.
      validatorCompiler: compileAllButBody,
      schema: {
        operationId: 'sendCommands',
        summary: 'Accept many commands',
        description:
          'Takes up to 1,000 items, in their order. The answer is 200 with one verdict each: what POST /v1/commands would have answered to the item alone, with its HTTP status and its index. An item that is refused concerns no other. There is no `?wait=` here.',
        tags: ['commands'],
        body: BatchBody,
        response: {
          200: BatchVerdicts,
          ...commonProblems,
          ...problems.tooLarge,
          ...problems.mediaType,
        },
      },
    },
    async ({ body, apiKey, id }) => {
      const verdicts = await acceptMany(
        readItems(body).map((item) => ({ ...readItem(item), apiKey })),
      );
      return verdicts.map((verdict, index) => verdictJson(verdict, index, id));
    },
  );
}

function readItems(body: unknown): unknown[] {
  const items = Array.isArray(body) ? body : isObject(body) ? body['items'] : undefined;
  if (!Array.isArray(items)) {
    throw badRequest('items', 'is missing: give a list of commands, or {"items": [...]}');
  }
  const others = isObject(body) ? Object.keys(body).filter((name) => name !== 'items') : [];
  if (others.length > 0) {
    throw badRequest(others[0]!.slice(0, 64), 'is not allowed: a batch has nothing but its items');
  }
  if (items.length <= MAX_BATCH_ITEMS) return items;
  throw new DownlinkError(
    'BODY_TOO_LARGE',
    `the batch has ${items.length} items, and at most ${MAX_BATCH_ITEMS} are taken: split it`,
  );
}

/** The key stands beside what it names, since one header cannot name many. */
function readItem(item: unknown): { body: unknown; idempotencyKey: string | null } {
  if (!isObject(item)) return { body: item, idempotencyKey: null };
  const { idempotencyKey = null, ...body } = item;
  // What is no text can be no key: accept says so.
  const key = typeof idempotencyKey === 'string' || idempotencyKey === null ? idempotencyKey : '';
  return { body, idempotencyKey: key };
}

function verdictJson(verdict: BatchVerdict, index: number, requestId: string) {
  if ('error' in verdict) {
    const problem = problemOf(verdict.error, requestId);
    return { index, httpStatus: problem.status, ...problem };
  }
  const { record, durability, replayed } = verdict.accepted;
  const httpStatus = isFinal(record.status) ? 200 : 202;
  return { index, httpStatus, ...commandJson(record), durability, replayed };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function badRequest(path: string, message: string): DownlinkError {
  return new DownlinkError('BAD_REQUEST', `${path} ${message}`, {
    details: { errors: [{ path, message }] },
  });
}
