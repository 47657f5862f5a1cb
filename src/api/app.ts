/** The HTTP API as a Fastify instance that does not listen yet. */
import { isUtf8 } from 'node:buffer';
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import helmet from '@fastify/helmet';
import rateLimit from '@fastify/rate-limit';
import {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyPluginAsync,
  fastify,
  LogController,
} from 'fastify';
import type { Outbound } from '../../queues/contract.ts';
import type { ScheduleQueue } from '../../queues/schedules.ts';
import { DownlinkError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Metrics } from '../metrics/metrics.ts';
import type { Protocol } from '../protocols/protocol.ts';
import type { Devices, Ledger, Pauses, Schedules } from '../store/contract.ts';
import type { CommandLog, Orders, Ports, RecentDevices } from '../store/device-data.ts';
import { type ApiKey, guardRoutes } from './auth.ts';
import { batchRoutes } from './batch.ts';
import { commandRoutes } from './commands.ts';
import { deadRoutes } from './dead.ts';
import { deviceDataRoutes } from './device-data.ts';
import { deviceRemovalRoutes } from './device-removal.ts';
import { deviceRoutes, type PresenceReading } from './devices.ts';
import { describeRoutes, serveDocs } from './docs.ts';
import { explainRoutes } from './explain.ts';
import { createFailures, type Failures } from './failures.ts';
import { createReadiness, healthRoutes, type Readiness } from './health.ts';
import { pauseRoutes } from './pauses.ts';
import { sendProblem } from './problem.ts';
import { protocolRoutes } from './protocols.ts';
import { retryRoutes } from './retry.ts';
import { scheduleRoutes } from './schedules.ts';
import { statsRoutes } from './stats.ts';
import type { UseCases } from './use-cases.ts';
import { compileValidator } from './validation.ts';
import type { Waits } from './waits.ts';

export type ApiDeps = {
  /** This process, as workers address it. */
  apiId: string;
  useCases: UseCases;
  ledger: Pick<Ledger, 'find' | 'list'>;
  devices: Pick<Devices, 'list' | 'register'> & RecentDevices;
  ports: Pick<Ports, 'list'>;
  orders: Pick<Orders, 'list' | 'find'>;
  commandLog: Pick<CommandLog, 'list'>;
  /** Lets a registered device log in at once, where only known devices may. */
  admit?: (deviceId: string) => Promise<unknown>;
  presence: PresenceReading;
  pauses: Pick<Pauses, 'list'>;
  schedules: Schedules;
  scheduleQueue: Pick<ScheduleQueue, 'arm' | 'disarm'>;
  outbound: Pick<Outbound, 'counts' | 'pause' | 'resume' | 'isPaused'>;
  protocols: readonly Protocol[];
  waits: Waits;
  metrics: Pick<Metrics, 'registry' | 'httpRequestDuration'>;
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
  const { log, ledger, outbound, board, metrics, useCases } = deps;
  const failures = deps.failures ?? createFailures();
  const isReady = deps.isReady ?? createReadiness({ ledger, outbound });

  const app: FastifyInstance = fastify({
    loggerInstance: log as FastifyBaseLogger,
    childLoggerFactory: (logger) => logger,
    logController: new LogController({ disableRequestLogging: true }),
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
  readOnlyJson(app);
  app.decorateRequest('apiKey', '');
  app.setErrorHandler((error, request, reply) =>
    sendProblem(request, reply, error, BODY_LIMIT_BYTES),
  );
  app.setNotFoundHandler((request, reply) =>
    sendProblem(request, reply, nothingHere(request.method, request.url), BODY_LIMIT_BYTES),
  );
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id).header('x-content-type-options', 'nosniff');
  });
  app.addHook('onResponse', async (request, reply) => {
    const labels = {
      route: request.routeOptions.url ?? 'none',
      method: request.method,
      status: reply.statusCode,
    };
    metrics.httpRequestDuration.observe(labels, reply.elapsedTime / 1_000);
  });
  describeRoutes(app);
  app.register(async (open) => healthRoutes(open, { isReady, registry: metrics.registry }));
  app.register(pages);
  app.register(guarded, { prefix: '/v1' });
  return app;

  /** What a browser shows. JSON needs none of these headers, and they cost a busy route dearly. */
  async function pages(scope: FastifyInstance): Promise<void> {
    await scope.register(helmet, {
      // Whoever terminates TLS speaks for it; over plain HTTP these two would break the pages.
      contentSecurityPolicy: { directives: { 'upgrade-insecure-requests': null } },
      strictTransportSecurity: false,
    });
    serveDocs(scope);
    scope.register(board, { prefix: '/admin/queues' });
  }

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
    const parts = { ...deps, ...useCases };
    commandRoutes(v1, parts);
    batchRoutes(v1, { acceptMany: useCases.accept.many });
    retryRoutes(v1, parts);
    explainRoutes(v1, parts);
    deadRoutes(v1, parts);
    deviceRoutes(v1, parts);
    deviceRemovalRoutes(v1, parts);
    deviceDataRoutes(v1, parts);
    pauseRoutes(v1, parts);
    scheduleRoutes(v1, parts);
    protocolRoutes(v1, deps);
    statsRoutes(v1, deps);
  }
}

/** Bodies are JSON in UTF-8, and none may reach for a prototype. */
function readOnlyJson(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
    if (isUtf8(body as Buffer)) parse(request, body.toString(), done);
    else done(new DownlinkError('INVALID_JSON', 'the body is not UTF-8: encode it so'));
  });
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
