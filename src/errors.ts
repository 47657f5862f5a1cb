/** Every error of this project: a stable code, a sentence that names the subject, and the cause. */

export const errorCodes = [
  // what a caller can mend
  'BAD_REQUEST',
  'INVALID_JSON',
  'BODY_TOO_LARGE',
  'UNAUTHENTICATED',
  'FORBIDDEN',
  'NOT_FOUND',
  'COMMAND_NOT_FOUND',
  'DEVICE_UNKNOWN',
  'COMMAND_UNKNOWN',
  'INVALID_PARAMS',
  'INVALID_PAYLOAD',
  'INVALID_DEVICE_ID',
  'IDEMPOTENCY_CONFLICT',
  'CONFLICT',
  'ALREADY_SENT',
  'ALREADY_FINAL',
  'NOT_FINAL',
  'ALREADY_SUCCEEDED',
  'AMBIGUOUS',
  'EXPIRED',
  'TOO_MANY_WAITING',
  'SCHEDULE_NOT_FOUND',
  'TOO_MANY_REQUESTS',
  'UNSUPPORTED_MEDIA_TYPE',
  // what an operator can mend
  'STORE_UNAVAILABLE',
  'LEDGER_UNAVAILABLE',
  'QUEUE_UNAVAILABLE',
  'CONFIG_INVALID',
  'DISCOVERY_FAILED',
  'TIMEOUT',
  // what only we can mend
  'ILLEGAL_TRANSITION',
  'INVALID_JOB',
  'INVALID_BRIDGE_MESSAGE',
  'INTERNAL',
] as const;

export type ErrorCode = (typeof errorCodes)[number];

export type ErrorDetails = { cause?: unknown; details?: Record<string, unknown> };

export class DownlinkError extends Error {
  readonly code: ErrorCode;
  readonly details: Record<string, unknown>;

  constructor(code: ErrorCode, message: string, { cause, details = {} }: ErrorDetails = {}) {
    super(message, cause === undefined ? {} : { cause });
    this.name = 'DownlinkError';
    this.code = code;
    this.details = details;
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
