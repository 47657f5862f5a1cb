/** /v1/stats: how much stands in the queue. */
import type { FastifyInstance } from 'fastify';
import type { Outbound } from '../../queues/contract.ts';
import { commonProblems, Stats } from './schemas.ts';

export function statsRoutes(
  app: FastifyInstance,
  { outbound }: { outbound: Pick<Outbound, 'counts'> },
): void {
  app.get(
    '/stats',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getStats',
        summary: 'Count the queue',
        tags: ['operation'],
        response: { 200: Stats, ...commonProblems },
      },
    },
    async () => ({ queue: await outbound.counts() }),
  );
}
