/** Whether this process lives, and whether it can accept commands; metrics stand beside it. */
import type { FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { bounded } from '../../queues/bounded.ts';
import type { Outbound } from '../../queues/contract.ts';
import type { Registry } from '../metrics/metrics.ts';
import type { Ledger } from '../store/contract.ts';

export type Readiness = () => Promise<boolean>;

/** No command has it; reading it proves that the ledger answers. */
const NO_ID = '00000000-0000-7000-8000-000000000000';
const PROBE_TIMEOUT_MS = 1_000;
/** However often it is asked, the stores are probed no more than once in this time. */
const PROBE_EVERY_MS = 1_000;

/** True while at least one store takes commands. */
export function createReadiness({
  ledger,
  outbound,
  now = () => performance.now(),
}: {
  ledger: Pick<Ledger, 'find'>;
  outbound: Pick<Outbound, 'counts'>;
  now?: () => number;
}): Readiness {
  let probedAt = Number.NEGATIVE_INFINITY;
  let ready: Promise<boolean> = Promise.resolve(false);
  const late = () => new Error(`no answer within ${PROBE_TIMEOUT_MS} ms`);

  return function isReady() {
    if (now() - probedAt < PROBE_EVERY_MS) return ready;
    probedAt = now();
    ready = Promise.any([
      bounded(ledger.find(NO_ID), PROBE_TIMEOUT_MS, late),
      bounded(outbound.counts(), PROBE_TIMEOUT_MS, late),
    ]).then(
      () => true,
      () => false,
    );
    return ready;
  };
}

const Live = Type.Object(
  { alive: Type.Boolean() },
  { additionalProperties: false, description: 'It lives', examples: [{ alive: true }] },
);
const Ready = Type.Object(
  { status: Type.Enum(['healthy', 'degraded', 'unhealthy']), ready: Type.Boolean() },
  { additionalProperties: false, examples: [{ status: 'healthy', ready: true }] },
);

export function healthRoutes(
  app: FastifyInstance,
  { isReady, registry }: { isReady: Readiness; registry: Registry },
): void {
  app.get(
    '/health/live',
    {
      schema: {
        operationId: 'getLiveness',
        summary: 'Tell that the process lives',
        tags: ['operation'],
        security: [],
        response: { 200: Live },
      },
    },
    async () => ({ alive: true }),
  );

  app.get(
    '/health/ready',
    {
      schema: {
        operationId: 'getReadiness',
        summary: 'Tell whether commands can be accepted',
        tags: ['operation'],
        security: [],
        response: {
          200: { ...Ready, description: 'At least one store takes commands' },
          503: {
            ...Ready,
            description: 'No store takes commands',
            examples: [{ status: 'unhealthy', ready: false }],
          },
        },
      },
    },
    async (_request, reply) => {
      if (await isReady()) return { status: 'healthy', ready: true };
      reply.code(503);
      return { status: 'unhealthy', ready: false };
    },
  );

  app.get(
    '/metrics',
    {
      schema: {
        operationId: 'getMetrics',
        summary: 'Show the metrics in the text format of Prometheus',
        tags: ['operation'],
        security: [],
        produces: ['text/plain'],
        response: { 200: Type.String({ description: 'Metrics', examples: ['up 1'] }) },
      },
    },
    async (_request, reply) => {
      reply.header('content-type', registry.contentType);
      return registry.metrics();
    },
  );
}
