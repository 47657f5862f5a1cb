/** Every error answer of the API: problem+json (RFC 9457) with a stable code and a sentence that says what to change. */
import { STATUS_CODES } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Fault } from '../../queues/faults.ts';
import { DownlinkError, type ErrorCode } from '../errors.ts';

export type Problem = {
  type: string;
  title: string;
  status: number;
  code: ErrorCode;
  detail: string;
  errors?: Fault[];
  /** The command the problem is about, where there is one. */
  id?: string;
  requestId: string;
};

/** Total over the codes, so that a new one cannot be forgotten here. */
export const statusOfCode = {
  BAD_REQUEST: 400,
  INVALID_JSON: 400,
  INVALID_DEVICE_ID: 400,
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  COMMAND_NOT_FOUND: 404,
  DEVICE_UNKNOWN: 404,
  SCHEDULE_NOT_FOUND: 404,
  IDEMPOTENCY_CONFLICT: 409,
  CONFLICT: 409,
  ALREADY_SENT: 409,
  ALREADY_FINAL: 409,
  NOT_FINAL: 409,
  ALREADY_SUCCEEDED: 409,
  AMBIGUOUS: 409,
  EXPIRED: 409,
  BODY_TOO_LARGE: 413,
  UNSUPPORTED_MEDIA_TYPE: 415,
  COMMAND_UNKNOWN: 422,
  INVALID_PARAMS: 422,
  INVALID_PAYLOAD: 422,
  TOO_MANY_REQUESTS: 429,
  TOO_MANY_WAITING: 429,
  CONFIG_INVALID: 500,
  DISCOVERY_FAILED: 500,
  ILLEGAL_TRANSITION: 500,
  INVALID_JOB: 500,
  INVALID_BRIDGE_MESSAGE: 500,
  INTERNAL: 500,
  STORE_UNAVAILABLE: 503,
  LEDGER_UNAVAILABLE: 503,
  QUEUE_UNAVAILABLE: 503,
  TIMEOUT: 504,
} as const satisfies Record<ErrorCode, number>;

const RETRY_AFTER_S = 1;

/** What the caller is told of an outage. The error itself may name addresses: it stays in the log. */
const outages: Partial<Record<ErrorCode, string>> = {
  STORE_UNAVAILABLE: 'a store that this needs does not answer: try again in a moment',
  LEDGER_UNAVAILABLE:
    'the ledger does not answer, and this needs it: try again in a moment, with the same Idempotency-Key if there was one',
  QUEUE_UNAVAILABLE: 'the queue does not answer, and this needs it: try again in a moment',
};
const UNCONFIRMED =
  'no store confirmed the command, and one may have it all the same: look for its id before you send it again';

/** Answers with the problem that this error is. Call it, then return the reply. */
export function sendProblem(
  request: FastifyRequest,
  reply: FastifyReply,
  error: unknown,
  bodyLimit: number,
): FastifyReply {
  const known = error instanceof DownlinkError ? error : ofFramework(error, bodyLimit);
  const problem = problemOf(known, request.id);
  if (problem.status >= 500) {
    request.log.error({ error, requestId: request.id, code: problem.code }, 'request failed');
  }
  const { retryAfterS } = known.details;
  if (typeof retryAfterS === 'number') reply.header('retry-after', retryAfterS);
  else if (problem.status === 503) reply.header('retry-after', RETRY_AFTER_S);
  return reply
    .code(problem.status)
    .header('content-type', 'application/problem+json; charset=utf-8')
    .send(problem);
}

/** What the caller gets to see. Of a fault that is only ours to mend, nothing but the request's id. */
export function problemOf(error: DownlinkError, requestId: string): Problem {
  const status = statusOfCode[error.code];
  const { errors, id } = error.details;
  return {
    type: `/docs#${error.code}`,
    title: STATUS_CODES[status] ?? 'Error',
    status,
    code: status === 500 ? 'INTERNAL' : error.code,
    detail: detailOf(error, requestId),
    ...(Array.isArray(errors) && { errors: errors as Fault[] }),
    ...(typeof id === 'string' && { id }),
    requestId,
  };
}

function detailOf({ code, message, details }: DownlinkError, requestId: string): string {
  if (statusOfCode[code] === 500) {
    return `the request failed inside downlink: ask its operator to look for ${requestId} in the log`;
  }
  if (code === 'STORE_UNAVAILABLE' && typeof details['id'] === 'string') return UNCONFIRMED;
  return outages[code] ?? message;
}

type FrameworkError = { code?: unknown; statusCode?: unknown };

/** What Fastify and its plugins throw, in our words. */
function ofFramework(error: unknown, bodyLimit: number): DownlinkError {
  const { code, statusCode } = (error ?? {}) as FrameworkError;
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new DownlinkError('BODY_TOO_LARGE', `the body is over ${bodyLimit} bytes: shorten it`);
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new DownlinkError(
        'UNSUPPORTED_MEDIA_TYPE',
        'the body is not JSON: send it with content-type application/json',
      );
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return new DownlinkError(
        'INVALID_JSON',
        'the body is empty: send a JSON object, or leave out the content-type',
      );
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
      return new DownlinkError(
        'INVALID_JSON',
        'the body is not as long as its content-length says, or is not UTF-8',
      );
    case 'FST_ERR_CTP_INVALID_JSON_BODY':
      return new DownlinkError(
        'INVALID_JSON',
        'the body is not JSON, or has members named __proto__ or constructor: correct it',
      );
    case 'FST_ERR_BAD_URL':
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return new DownlinkError('BAD_REQUEST', 'the URL cannot be read: check its % escapes');
    default:
  }
  if (error instanceof SyntaxError && statusCode === 400) {
    return new DownlinkError(
      'INVALID_JSON',
      'the body is not JSON, or has members named __proto__ or constructor: correct it',
    );
  }
  if (typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500) {
    return new DownlinkError('BAD_REQUEST', 'the request cannot be understood: see /docs', {
      cause: error,
    });
  }
  return new DownlinkError('INTERNAL', 'unexpected error', { cause: error });
}
