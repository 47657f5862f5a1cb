/** The HTTP API as a Fastify instance that does not listen yet. */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import helmet from '@fastify/helmet';
import rateLimit from '@fastify/rate-limit';
import {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyPluginAsync,
  fastify,
} from 'fastify';
import type { Accept } from '../../queues/accept.ts';
import type { Outbound } from '../../queues/contract.ts';
import type { Keys } from '../bridge/keys.ts';
import { DownlinkError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Protocol } from '../protocols/protocol.ts';
import type { Devices, Ledger } from '../store/contract.ts';
import { type ApiKey, guardRoutes } from './auth.ts';
import { createCancel } from './cancel.ts';
import { commandRoutes } from './commands.ts';
import { deviceRoutes, type PresenceReading } from './devices.ts';
import { serveDocs } from './docs.ts';
import { createFailures, type Failures } from './failures.ts';
import { createReadiness, healthRoutes, type MetricsSource, type Readiness } from './health.ts';
import { createLookup } from './lookup.ts';
import { sendProblem } from './problem.ts';
import { protocolRoutes } from './protocols.ts';
import { statsRoutes } from './stats.ts';
import { compileValidator } from './validation.ts';
import type { Waits } from './waits.ts';

export type ApiDeps = {
  /** This process, as workers address it. */
  apiId: string;
  version: string;
  accept: Accept;
  ledger: Pick<Ledger, 'find' | 'write' | 'list'>;
  devices: Pick<Devices, 'find' | 'list' | 'register'>;
  presence: PresenceReading;
  outbound: Pick<Outbound, 'find' | 'take' | 'enqueue' | 'counts'>;
  protocols: readonly Protocol[];
  keys: Keys;
  waits: Waits;
  metrics: MetricsSource;
  log: Log;
  apiKeys: readonly ApiKey[];
  /** Bull Board, mounted at /admin/queues. */
  board: FastifyPluginAsync;
  now?: () => number;
  failures?: Failures;
  isReady?: Readiness;
  /** Requests a second and API key. */
  requestsPerSecond?: number;
};

const BODY_LIMIT_BYTES = 64 * 1024;
/** A request must have come in whole by then. */
const REQUEST_TIMEOUT_MS = 15_000;
/** A silent socket is closed; longer than the longest `?wait=`. */
const CONNECTION_TIMEOUT_MS = 45_000;
const REQUESTS_PER_SECOND = 5_000;
const API_KEYS_COUNTED = 10_000;

const requestIdPattern = /^[\w.:-]{1,64}$/;

export function createApi(deps: ApiDeps): FastifyInstance {
  const { log, ledger, outbound, keys, board, version } = deps;
  const failures = deps.failures ?? createFailures();
  const isReady = deps.isReady ?? createReadiness({ ledger, outbound });

  const app: FastifyInstance = fastify({
    loggerInstance: log as FastifyBaseLogger,
    childLoggerFactory: (logger) => logger,
    disableRequestLogging: true,
    genReqId: requestIdOf,
    requestIdHeader: false,
    bodyLimit: BODY_LIMIT_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionTimeout: CONNECTION_TIMEOUT_MS,
    frameworkErrors: (error, request, reply) => {
      sendProblem(request, reply, error, BODY_LIMIT_BYTES);
    },
  });

  app.setValidatorCompiler(compileValidator);
  // Answers are built in one place already; their schemas are for the reader.
  app.setSerializerCompiler(() => (value) => JSON.stringify(value));
  app.removeContentTypeParser('text/plain');
  app.decorateRequest('apiKey', '');
  app.setErrorHandler((error, request, reply) =>
    sendProblem(request, reply, error, BODY_LIMIT_BYTES),
  );
  app.setNotFoundHandler((request, reply) =>
    sendProblem(request, reply, nothingHere(request.method, request.url), BODY_LIMIT_BYTES),
  );
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
  });
  app.register(helmet, {
    // Whoever terminates TLS speaks for it; over plain HTTP these two would break the pages.
    contentSecurityPolicy: { directives: { 'upgrade-insecure-requests': null } },
    strictTransportSecurity: false,
  });
  serveDocs(app, { version });
  app.register(async (open) => healthRoutes(open, { isReady, metrics: deps.metrics }));
  app.register(board, { prefix: '/admin/queues' });
  app.register(guarded, { prefix: '/v1' });
  return app;

  async function guarded(v1: FastifyInstance): Promise<void> {
    guardRoutes(v1, { apiKeys: deps.apiKeys, failures });
    await v1.register(rateLimit, {
      max: deps.requestsPerSecond ?? REQUESTS_PER_SECOND,
      timeWindow: 1_000,
      cache: API_KEYS_COUNTED,
      // After the key is known, before the body is read.
      hook: 'preParsing',
      keyGenerator: (request) => request.apiKey,
      errorResponseBuilder: (_request, { max, after }) =>
        new DownlinkError(
          'TOO_MANY_REQUESTS',
          `this API key sent more than ${max} requests within a second: go on in ${after}`,
        ),
    });
    const lookup = createLookup({ ledger, outbound, keys });
    const cancel = createCancel({ lookup, ledger, outbound, now: deps.now ?? Date.now });
    commandRoutes(v1, { ...deps, lookup, cancel });
    deviceRoutes(v1, deps);
    protocolRoutes(v1, deps);
    statsRoutes(v1, deps);
  }
}

/** The caller's own id where it is harmless in a log, else a new one. */
function requestIdOf(request: IncomingMessage): string {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && requestIdPattern.test(given) ? given : randomUUID();
}

function nothingHere(method: string, url: string): DownlinkError {
  const path = url.split('?', 1)[0]!.slice(0, 200);
  return new DownlinkError(
    'NOT_FOUND',
    `there is no ${method} ${path}: see /docs for what there is`,
  );
}
