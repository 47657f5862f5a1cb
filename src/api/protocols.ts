/** /v1/protocols: the command tables, as clients need them to fill in a command. */
import type { FastifyInstance } from 'fastify';
import type { Protocol } from '../protocols/protocol.ts';
import { commonProblems, ProtocolList } from './schemas.ts';

export function protocolRoutes(
  app: FastifyInstance,
  { protocols }: { protocols: readonly Protocol[] },
): void {
  const items = protocols.map(protocolJson);
  app.get(
    '/protocols',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listProtocols',
        summary: 'List the protocols and their commands',
        tags: ['protocols'],
        response: { 200: ProtocolList, ...commonProblems },
      },
    },
    async () => ({ items, nextCursor: null }),
  );
}

function protocolJson({ name, title, limits, commands }: Protocol) {
  return {
    name,
    title,
    inFlight: limits.inFlight,
    gapMs: limits.gapMs,
    heartbeatMs: limits.heartbeatMs,
    commands: Object.entries(commands).map(([command, spec]) => ({
      name: command,
      title: spec.title,
      params: spec.params,
      priority: spec.priority,
      ttlMs: spec.ttlMs,
      ackTimeoutMs: spec.ackTimeoutMs ?? limits.ackTimeoutMs,
      attempts: spec.attempts ?? limits.attempts,
      ack: spec.ack,
      repeatable: spec.repeatable,
      onAmbiguous: spec.onAmbiguous,
      supersedes: spec.supersedes,
      excludes: spec.excludes ?? [],
      preempts: spec.preempts === true,
      probe: spec.probe?.kind ?? null,
    })),
  };
}
