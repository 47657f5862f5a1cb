/** /v1/dead: what ended as failed or unknown. */
import type { FastifyInstance } from 'fastify';
import type { Static } from 'typebox';
import { instantOf } from '../../queues/accept-body.ts';
import { readDeviceId } from '../../queues/accept-check.ts';
import type { DeadLetters, DeadWish } from '../../queues/dead-letters.ts';
import type { Fault } from '../../queues/faults.ts';
import { DownlinkError } from '../errors.ts';
import type { Protocol } from '../protocols/protocol.ts';
import { commandJson } from './representation.ts';
import {
  CommandPage,
  commonProblems,
  type DeadFilterBody,
  DeadPurgeBody,
  DeadPurged,
  DeadQuery,
  DeadReplayBody,
  DeadReplayed,
  problems,
} from './schemas.ts';

export type DeadRoutes = { deadLetters: DeadLetters; protocols: readonly Protocol[] };

const DEFAULT_LIMIT = 50;
const DEFAULT_REPLAYS = 100;

export function deadRoutes(app: FastifyInstance, { deadLetters, protocols }: DeadRoutes): void {
  app.get<{ Querystring: Static<typeof DeadQuery> }>(
    '/dead',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listDead',
        summary: 'List dead commands',
        description:
          'Commands that ended as failed or unknown in the last 7 days and were neither purged nor sent anew. A late answer takes a command off the list.',
        tags: ['dead letters'],
        querystring: DeadQuery,
        response: { 200: CommandPage, ...commonProblems },
      },
    },
    async (request) => {
      const { cursor, limit = DEFAULT_LIMIT, ...filter } = request.query;
      const wish = readWish(filter, protocols);
      const page = await deadLetters.list({
        ...wish,
        ...(cursor !== undefined && { cursor }),
        limit,
      });
      return { items: page.items.map(commandJson), nextCursor: page.nextCursor };
    },
  );

  app.delete<{ Body: Static<typeof DeadPurgeBody> }>(
    '/dead',
    {
      config: { scope: 'admin' },
      schema: {
        operationId: 'purgeDead',
        summary: 'Take dead commands off the list',
        description:
          'Their history stays with GET /v1/commands. A call purges a bounded number; `more` says that others may be left.',
        tags: ['dead letters'],
        body: DeadPurgeBody,
        response: { 200: DeadPurged, ...commonProblems, ...problems.mediaType },
      },
    },
    async (request) => {
      const { filter = {}, all = false } = request.body ?? {};
      if (Object.keys(filter).length === 0 && !all) throw emptyFilter();
      return deadLetters.purge(readWish(filter, protocols));
    },
  );

  app.post<{ Body: Static<typeof DeadReplayBody> }>(
    '/dead/replay',
    {
      config: { scope: 'send' },
      schema: {
        operationId: 'replayDead',
        summary: 'Send dead commands anew',
        description:
          'Each becomes a new command through the same checks as POST /v1/commands; `replayOf` links it to the old one, which leaves the list. One that may have reached its device and must not be repeated is refused as AMBIGUOUS, unless `acceptRisk` is given. A call repeated within a day names the same new commands.',
        tags: ['dead letters'],
        body: DeadReplayBody,
        response: { 200: DeadReplayed, ...commonProblems, ...problems.mediaType },
      },
    },
    async (request) => {
      const { filter = {}, limit = DEFAULT_REPLAYS, acceptRisk = false } = request.body ?? {};
      const items = await deadLetters.replay(readWish(filter, protocols), {
        limit,
        apiKey: request.apiKey,
        acceptRisk,
      });
      return { items };
    },
  );
}

function emptyFilter(): DownlinkError {
  const message = 'is empty: say which commands, or give {"all": true} for every dead one';
  return new DownlinkError('BAD_REQUEST', `filter ${message}`, {
    details: { errors: [{ path: 'filter', message }] },
  });
}

function readWish(
  { deviceId, from, to, ...plain }: Static<typeof DeadFilterBody>,
  protocols: readonly Protocol[],
): DeadWish {
  const faults: Fault[] = [];
  const moment = (path: string, text: string | undefined) => {
    if (text === undefined) return undefined;
    const ms = instantOf(text);
    if (ms === null)
      faults.push({ path, message: 'must be a moment such as 2030-01-31T08:00:00Z' });
    return ms ?? undefined;
  };
  const [since, until] = [moment('from', from), moment('to', to)];
  if (faults.length > 0) {
    const detail = faults.map(({ path, message }) => `${path} ${message}`).join('; ');
    throw new DownlinkError('BAD_REQUEST', detail, { details: { errors: faults } });
  }
  return {
    ...plain,
    ...(deviceId !== undefined && { deviceId: readDeviceId(protocols, deviceId).deviceId }),
    ...(since !== undefined && { since }),
    ...(until !== undefined && { until }),
  };
}
