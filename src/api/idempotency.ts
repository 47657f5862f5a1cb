/** The header Idempotency-Key, wherever a call makes a command. */
import type { FastifyRequest } from 'fastify';
import { DownlinkError } from '../errors.ts';

export const idempotencyHeader = {
  type: 'object',
  properties: {
    'idempotency-key': {
      type: 'string',
      maxLength: 128,
      description: 'Any text of yours; it names this command for 24 hours.',
    },
  },
};

export function idempotencyKeyOf(request: FastifyRequest): string | null {
  const key = request.headers['idempotency-key'];
  if (Array.isArray(key)) {
    throw new DownlinkError('BAD_REQUEST', 'Idempotency-Key was given several times: give one');
  }
  return key ?? null;
}
