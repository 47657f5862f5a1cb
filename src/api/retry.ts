/** POST /v1/commands/:id/retry: an ended command once more, as a new command. */
import type { FastifyInstance } from 'fastify';
import type { Static } from 'typebox';
import { replayKey } from '../../queues/dead-letters.ts';
import type { Replay } from '../../queues/replay.ts';
import { type CommandRecord, isFinal } from '../command.ts';
import type { Ledger } from '../store/contract.ts';
import { idempotencyHeader, idempotencyKeyOf } from './idempotency.ts';
import type { Lookup } from './lookup.ts';
import { commandJson } from './representation.ts';
import { CommandAccepted, commonProblems, IdParams, problems, RetryBody } from './schemas.ts';

export type RetryRoutes = {
  replay: Replay;
  lookup: Lookup;
  ledger: Pick<Ledger, 'find'>;
};

export function retryRoutes(app: FastifyInstance, { replay, lookup, ledger }: RetryRoutes): void {
  app.post<{
    Params: Static<typeof IdParams>;
    Body: Static<typeof RetryBody> | undefined;
  }>(
    '/commands/:id/retry',
    {
      config: { scope: 'send' },
      schema: {
        operationId: 'retryCommand',
        summary: 'Send an ended command anew',
        description:
          'Makes a new command with the same params and fresh times, linked by `replayOf`. It goes through the same checks as POST /v1/commands. One that may have reached its device and must not be repeated is refused as AMBIGUOUS, unless `acceptRisk` is given.',
        tags: ['commands'],
        params: IdParams,
        headers: idempotencyHeader,
        body: RetryBody,
        response: {
          200: { ...CommandAccepted, description: 'The Idempotency-Key was used before' },
          202: { ...CommandAccepted, description: 'Accepted' },
          ...commonProblems,
          ...problems.notFound,
          ...problems.conflict,
          ...problems.mediaType,
          ...problems.invalid,
        },
      },
    },
    async (request, reply) => {
      const original = await findStored(request.params.id);
      const { record, durability, replayed } = await replay.replay({
        original,
        apiKey: request.apiKey,
        // A double click makes one command; who wants another repeats the newest, whose id the answer gives.
        idempotencyKey: idempotencyKeyOf(request) ?? replayKey(request.params.id),
        acceptRisk: request.body?.acceptRisk ?? false,
      });
      await replay.dismiss([original]);
      reply.header('location', `/v1/commands/${record.id}`);
      if (replayed) reply.header('idempotency-replayed', 'true');
      reply.code(isFinal(record.status) ? 200 : 202);
      return { ...commandJson(record), durability };
    },
  );

  /** How it ended only the ledger knows: the queue's word is as of accept. */
  async function findStored(id: string): Promise<CommandRecord> {
    const { record, source } = await lookup.find(id);
    return source === 'ledger' ? record : ((await ledger.find(id)) ?? record);
  }
}
