/** Bull Board behind a password: viewers look, admins may clean up and pause, nobody bypasses the rules of delivery. */
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { FastifyAdapter } from '@bull-board/fastify';
import basicAuth from '@fastify/basic-auth';
import type { Queue } from 'bullmq';
import type { FastifyInstance, FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify';
import type { Failures } from '../src/api/failures.ts';
import { problemOf, sendProblem } from '../src/api/problem.ts';
import { DownlinkError } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import { judgeAction } from './actions.ts';
import { type BoardUser, createDoor } from './door.ts';
import type { BoardRetry } from './retry.ts';

export type BoardDeps = {
  queues: readonly Queue[];
  users: readonly BoardUser[];
  retry: BoardRetry;
  failures: Failures;
  log: Log;
};

declare module 'fastify' {
  interface FastifyRequest {
    /** Who is at the board; null elsewhere. */
    boardUser: BoardUser | null;
    /** The command that a retry at the board made. */
    retriedAs: string | null;
  }
}

const BODY_LIMIT_BYTES = 64 * 1024;
const safeMethods: ReadonlySet<string> = new Set(['GET', 'HEAD']);

/** A plugin for the prefix /admin/queues. Without users it answers every path with 404. */
export function createBoard(deps: BoardDeps): FastifyPluginAsync {
  return deps.users.length === 0 ? closedBoard : openBoard(deps);
}

const closedBoard: FastifyPluginAsync = async (scope) => {
  const closed = async (request: FastifyRequest, reply: FastifyReply) =>
    refuse(
      request,
      reply,
      new DownlinkError(
        'NOT_FOUND',
        'the board is closed, since nobody may enter it: set BOARD_USERS to "name:password:role,…"',
      ),
    );
  for (const url of ['/', '/*']) {
    scope.route({
      method: ['GET', 'PUT', 'POST', 'PATCH'],
      url,
      schema: { hide: true },
      handler: closed,
    });
  }
};

function openBoard({ queues, users, retry, failures, log }: BoardDeps): FastifyPluginAsync {
  return async function board(scope: FastifyInstance): Promise<void> {
    const door = createDoor(users);
    await scope.register(basicAuth, {
      authenticate: { realm: 'downlink board' },
      validate: async (name, password, request) => {
        const user = door.admit(name, password);
        if (!user) return new Error('unknown user or wrong password');
        request.boardUser = user;
      },
    });
    scope.decorateRequest('boardUser', null);
    scope.decorateRequest('retriedAs', null);

    scope.addHook('onRequest', async (request, reply) => {
      const denied = await new Promise<unknown>((resolve) => {
        scope.basicAuth.call(scope, request, reply, resolve);
      });
      if (denied) return refuse(request, reply, unauthenticated(request, failures));
      if (!safeMethods.has(request.method) && !isOwnOrigin(request)) {
        return refuse(
          request,
          reply,
          new DownlinkError('FORBIDDEN', 'another site asked for this: act from the board itself'),
        );
      }
    });

    scope.addHook('preHandler', async (request, reply) => {
      if (safeMethods.has(request.method)) return;
      const verdict = await judgeAction(actionOf(request), request.boardUser!.role, queues);
      if (verdict.allowed === true) return;
      if (verdict.allowed === 'as-replay') return replayJob(request, reply);
      if (verdict.status === 405) reply.header('allow', 'GET, HEAD');
      return reply.code(verdict.status).send({
        error: { key: 'ERRORS.FORBIDDEN' },
        message: verdict.message,
      });
    });

    scope.addHook('onResponse', async (request, reply) => {
      if (safeMethods.has(request.method)) return;
      const { url, queue, jobId } = actionOf(request);
      const user = request.boardUser;
      log.info(
        {
          audit: true,
          user: user?.name ?? null,
          role: user?.role ?? null,
          method: request.method,
          action: url,
          queue,
          jobId,
          ...(request.retriedAs !== null && { newId: request.retriedAs }),
          status: reply.statusCode,
          requestId: request.id,
        },
        'board action',
      );
    });

    const adapter = new FastifyAdapter().setBasePath(scope.prefix);
    createBullBoard({
      queues: queues.map((queue) => new BullMQAdapter(queue)),
      serverAdapter: adapter,
      options: { uiConfig: { boardTitle: 'downlink', showWorkers: false } },
    });
    // Its own handler would repeat the messages of our stores to the browser.
    adapter.setErrorHandler((error) => {
      log.warn({ error }, 'board request failed');
      return { status: 500, body: { error: { key: 'ERRORS.INTERNAL_SERVER_ERROR' } } };
    });
    await scope.register(adapter.registerPlugin());
  };

  /** Answers in place of the board, in the form its page expects. */
  async function replayJob(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const { queue: name, jobId } = actionOf(request);
    const queue = queues.find((one) => one.name === name);
    if (!queue || jobId === null) {
      return reply.code(404).send({ error: { key: 'ERRORS.QUEUE_NOT_FOUND' } });
    }
    try {
      const { newId } = await retry(queue, jobId, request.boardUser!.name);
      request.retriedAs = newId;
      return reply.code(204).send();
    } catch (error) {
      const known = error instanceof DownlinkError ? error : unexpected(error);
      const { status, detail } = problemOf(known, request.id);
      const ours = status >= 500;
      if (ours) log.warn({ error, requestId: request.id }, 'board request failed');
      const key = ours ? 'ERRORS.INTERNAL_SERVER_ERROR' : 'ERRORS.JOB_NOT_RETRIABLE';
      const state = known.code.toLowerCase().replaceAll('_', ' ');
      return reply.code(status).send({ error: { key, options: { state } }, message: detail });
    }
  }

  function actionOf(request: FastifyRequest) {
    const { queueName, jobId, queueStatus } = request.params as Record<string, string | undefined>;
    const url = (request.routeOptions.url ?? '').slice(request.server.prefix.length);
    return {
      url,
      queue: queueName?.slice(0, 64) ?? null,
      jobId: jobId?.slice(0, 64) ?? null,
      queueStatus: queueStatus ?? null,
    };
  }
}

function unexpected(cause: unknown): DownlinkError {
  return new DownlinkError('INTERNAL', 'unexpected error', { cause });
}

function refuse(request: FastifyRequest, reply: FastifyReply, error: DownlinkError): FastifyReply {
  return sendProblem(request, reply, error, BODY_LIMIT_BYTES);
}

function unauthenticated(request: FastifyRequest, failures: Failures): DownlinkError {
  // A browser asks once without a password: only a wrong one counts.
  if (request.headers.authorization !== undefined && failures.note(request.ip)) {
    return new DownlinkError(
      'TOO_MANY_REQUESTS',
      'too many wrong passwords came from this address: wait a minute',
    );
  }
  return new DownlinkError('UNAUTHENTICATED', 'the board asks for a user of BOARD_USERS');
}

/**
 * Passwords of a browser travel with requests that other sites make it send, so those are refused.
 * A client that is no browser sends neither header and has nothing to fear.
 */
function isOwnOrigin(request: FastifyRequest): boolean {
  const site = request.headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin' && site !== 'none') return false;
  const { origin } = request.headers;
  if (origin === undefined) return true;
  return URL.canParse(origin) && new URL(origin).host === request.host;
}
