/** /v1/commands: accept, show, list, cancel. */
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { Static } from 'typebox';
import { AcceptBody, instantOf } from '../../queues/accept-body.ts';
import { readDeviceId } from '../../queues/accept-check.ts';
import type { Accept, Durability } from '../../queues/accept-contract.ts';
import type { Fault } from '../../queues/faults.ts';
import { type CommandRecord, isFinal, type Status, statuses } from '../command.ts';
import { DownlinkError } from '../errors.ts';
import type { Protocol } from '../protocols/protocol.ts';
import type { CommandFilter, Ledger } from '../store/contract.ts';
import type { Cancel } from './cancel.ts';
import { idempotencyHeader, idempotencyKeyOf } from './idempotency.ts';
import type { Lookup } from './lookup.ts';
import { commandJson } from './representation.ts';
import {
  CancelRequested,
  CommandAccepted,
  CommandPage,
  CommandQuery,
  CommandShown,
  commonProblems,
  IdParams,
  problems,
  WaitQuery,
} from './schemas.ts';
import { compileAllButBody } from './validation.ts';
import type { Waits } from './waits.ts';

export type CommandRoutes = {
  accept: Accept;
  cancel: Cancel;
  lookup: Lookup;
  ledger: Pick<Ledger, 'list'>;
  waits: Waits;
  protocols: readonly Protocol[];
  /** This process, as workers address it. */
  apiId: string;
};

const DEFAULT_LIMIT = 50;
const MAX_STATUSES = statuses.length;

const postExample = {
  deviceId: '82200520004869',
  command: 'charge.start',
  params: { socket: 1, port: 0, mode: 'time', minutes: 60 },
};

export function commandRoutes(app: FastifyInstance, deps: CommandRoutes): void {
  const { accept, cancel, lookup, ledger, waits, protocols, apiId } = deps;

  app.post<{ Body: unknown; Querystring: Static<typeof WaitQuery> }>(
    '/commands',
    {
      config: { scope: 'send' },
      // Accept checks the body: it alone knows the device's command table.
      validatorCompiler: compileAllButBody,
      schema: {
        operationId: 'sendCommand',
        summary: 'Accept a command for a device',
        description:
          'Answers once the command is stored. With `?wait=` it answers 200 with the end, if the command ends in time. With an Idempotency-Key, a repeated call answers with the first command.',
        tags: ['commands'],
        querystring: WaitQuery,
        headers: idempotencyHeader,
        body: { ...AcceptBody, examples: [postExample] },
        response: {
          200: { ...CommandAccepted, description: 'It ended, or the key was used before' },
          202: { ...CommandAccepted, description: 'Accepted' },
          ...commonProblems,
          ...problems.notFound,
          ...problems.conflict,
          ...problems.tooLarge,
          ...problems.mediaType,
          ...problems.invalid,
        },
      },
    },
    async (request, reply) => {
      const waitMs = request.query.wait ?? 0;
      const waiting = waitMs > 0 && waits.hasRoom();
      const { record, durability, replayed } = await accept({
        body: request.body,
        apiKey: request.apiKey,
        idempotencyKey: idempotencyKeyOf(request),
        waiter: waiting ? apiId : null,
      });
      reply.header('location', `/v1/commands/${record.id}`);
      if (replayed) reply.header('idempotency-replayed', 'true');
      if (isFinal(record.status) || !waiting) return answer(reply, record, durability);
      const ended = await waits.forEnd(record.id, waitMs, gone(reply));
      return answer(reply, ended ?? record, durability);
    },
  );

  app.get<{ Params: Static<typeof IdParams> }>(
    '/commands/:id',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getCommand',
        summary: 'Show a command with its attempts',
        tags: ['commands'],
        params: IdParams,
        response: { 200: CommandShown, ...commonProblems, ...problems.notFound },
      },
    },
    async (request) => {
      const { record, source } = await lookup.find(request.params.id);
      return { ...commandJson(record), source };
    },
  );

  app.get<{ Querystring: Static<typeof CommandQuery> }>(
    '/commands',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listCommands',
        summary: 'List commands',
        tags: ['commands'],
        querystring: CommandQuery,
        response: { 200: CommandPage, ...commonProblems },
      },
    },
    async (request) => {
      const { items, nextCursor } = await ledger.list(readFilter(request.query, protocols));
      return { items: items.map(commandJson), nextCursor };
    },
  );

  app.delete<{ Params: Static<typeof IdParams> }>(
    '/commands/:id',
    {
      config: { scope: 'send' },
      schema: {
        operationId: 'cancelCommand',
        summary: 'Cancel a command that was not written yet',
        description:
          'Works in every status before the write: scheduled, queued, parked, between two attempts, or in the line of its gateway. What may have been written is refused with ALREADY_SENT. 202 with `cancelRequested` means that its gateway did not say in time whether it was written: it gets no further attempt and ends as cancelled, or as unknown with the code CANCELLED.',
        tags: ['commands'],
        params: IdParams,
        response: {
          200: { ...CommandShown, description: 'Cancelled' },
          202: CancelRequested,
          ...commonProblems,
          ...problems.notFound,
          ...problems.conflict,
        },
      },
    },
    async (request, reply) => {
      const { kind, record } = await cancel(request.params.id, request.apiKey);
      if (kind === 'cancelled') return commandJson(record);
      reply.code(202);
      return { ...commandJson(record), cancelRequested: true };
    },
  );
}

/** 200 with an end, 202 with anything that is still to come. */
function answer(reply: FastifyReply, record: CommandRecord, durability: Durability) {
  reply.code(isFinal(record.status) ? 200 : 202);
  return { ...commandJson(record), durability };
}

/** Aborts when the caller hangs up. */
function gone(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once('close', () => controller.abort());
  return controller.signal;
}

/** What a list of commands is asked for; BAD_REQUEST names the faults. */
export function readFilter(
  query: Static<typeof CommandQuery>,
  protocols: readonly Protocol[],
): CommandFilter {
  const faults: Fault[] = [];
  const moment = (path: 'from' | 'to') => {
    const text = query[path];
    if (text === undefined) return undefined;
    const ms = instantOf(text);
    if (ms === null) {
      faults.push({ path, message: 'must be a moment such as 2030-01-31T08:00:00Z' });
    }
    return ms ?? undefined;
  };
  const status = readStatuses(query.status, faults);
  const [from, to] = [moment('from'), moment('to')];
  if (faults.length > 0) {
    const detail = faults.map(({ path, message }) => `${path} ${message}`).join('; ');
    throw new DownlinkError('BAD_REQUEST', detail, { details: { errors: faults } });
  }
  const { deviceId, command, cursor, limit = DEFAULT_LIMIT } = query;
  return {
    ...(deviceId !== undefined && { deviceId: readDeviceId(protocols, deviceId).deviceId }),
    ...(status !== undefined && { status }),
    ...(command !== undefined && { command }),
    ...(from !== undefined && { from }),
    ...(to !== undefined && { to }),
    ...(cursor !== undefined && { cursor }),
    limit,
  };
}

function readStatuses(
  value: string | string[] | undefined,
  faults: Fault[],
): readonly Status[] | undefined {
  if (value === undefined) return undefined;
  const names = [...new Set([value].flat().flatMap((text) => text.split(',')))];
  const known = statuses.filter((status) => names.includes(status));
  if (known.length === names.length && names.length <= MAX_STATUSES) return known;
  faults.push({ path: 'status', message: `must be made of ${statuses.join(', ')}` });
  return undefined;
}
