/** Bearer API keys with scopes. A secret is known here by its hash alone. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { DownlinkError } from '../errors.ts';
import type { Failures } from './failures.ts';

export const scopes = ['read', 'send', 'admin'] as const;
export type Scope = (typeof scopes)[number];

export type ApiKey = {
  name: string;
  /** SHA-256 of the secret, in hex. */
  secretSha256: string;
  /** `admin` includes the others. */
  scopes: readonly Scope[];
};

declare module 'fastify' {
  interface FastifyRequest {
    /** Name of the API key; empty where a route asks for none. */
    apiKey: string;
  }
  interface FastifyContextConfig {
    /** What the key must be allowed to do. Every route below /v1 names one. */
    scope?: Scope;
  }
}

const bearerPattern = /^Bearer +([\x21-\x7e]{1,512})$/i;

/**
 * Guards every route of the scope it is called on. A route that names no scope stops the process at
 * start, so that none can be forgotten.
 */
export function guardRoutes(
  app: FastifyInstance,
  { apiKeys, failures }: { apiKeys: readonly ApiKey[]; failures: Failures },
): void {
  const known = apiKeys.map((key) => ({ ...key, hash: Buffer.from(key.secretSha256, 'hex') }));

  app.addHook('onRoute', ({ method, url, config }) => {
    if (config?.scope) return;
    throw new DownlinkError('INTERNAL', `route ${String(method)} ${url} names no scope`);
  });

  app.addHook('onRequest', async (request) => {
    const key = find(request);
    if (!key) throw refusal(request);
    const needed = request.routeOptions.config.scope ?? 'admin';
    if (!key.scopes.includes(needed) && !key.scopes.includes('admin')) {
      throw new DownlinkError(
        'FORBIDDEN',
        `API key ${key.name} may ${key.scopes.join(', ') || 'do nothing'}: this needs the scope ${needed}`,
      );
    }
    request.apiKey = key.name;
  });

  function find(request: FastifyRequest) {
    const secret = bearerPattern.exec(request.headers.authorization ?? '')?.[1];
    if (secret === undefined) return undefined;
    const hash = createHash('sha256').update(secret).digest();
    // All are compared, so that the time taken does not tell which came close.
    return known.reduce<(typeof known)[number] | undefined>(
      (match, key) =>
        key.hash.length === hash.length && timingSafeEqual(key.hash, hash) ? key : match,
      undefined,
    );
  }

  function refusal(request: FastifyRequest): DownlinkError {
    if (failures.note(request.ip)) {
      return new DownlinkError(
        'TOO_MANY_REQUESTS',
        'too many requests without a valid API key came from this address: wait a minute',
      );
    }
    return new DownlinkError(
      'UNAUTHENTICATED',
      known.length === 0
        ? 'no API key is configured, so none is valid: set API_KEYS to "name:secret:scope+scope"'
        : 'a valid API key is missing: send it as "Authorization: Bearer SECRET"',
    );
  }
}
