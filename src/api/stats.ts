/** /v1/stats: how much stands in the queue, and what is held back. */
import type { FastifyInstance } from 'fastify';
import { bounded } from '../../queues/bounded.ts';
import type { Outbound } from '../../queues/contract.ts';
import type { Pauses } from '../store/contract.ts';
import { commonProblems, Stats } from './schemas.ts';

export type StatsRoutes = {
  outbound: Pick<Outbound, 'counts' | 'isPaused'>;
  pauses: Pick<Pauses, 'list'>;
};

const PAGE = 1_000;
/** More paused devices than this are not counted. */
const MAX_PAGES = 100;
const LEDGER_TIMEOUT_MS = 2_000;

export function statsRoutes(app: FastifyInstance, { outbound, pauses }: StatsRoutes): void {
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
    async () => {
      const late = () => new Error(`no answer within ${LEDGER_TIMEOUT_MS} ms`);
      const [counts, paused, devices] = await Promise.all([
        outbound.counts(),
        outbound.isPaused(),
        bounded(countPaused(), LEDGER_TIMEOUT_MS, late).catch(() => null),
      ]);
      return { queue: { ...counts, paused }, devices: { paused: devices } };
    },
  );

  async function countPaused(): Promise<number> {
    let count = 0;
    let afterId: string | null = null;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const found: readonly { deviceId: string }[] = await pauses.list({ afterId, limit: PAGE });
      count += found.length;
      afterId = found.at(-1)?.deviceId ?? null;
      if (found.length < PAGE) break;
    }
    return count;
  }
}
