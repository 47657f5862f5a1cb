import { type DestinationStream, type Logger, pino } from 'pino';

export type Log = Logger;

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

export type LogOptions = {
  level: LogLevel;
  /** The process that speaks: api, gateway, worker, … */
  role: string;
  /** Standard error unless told: standard output belongs to the ready line. */
  destination?: DestinationStream;
};

const STDERR_FD = 2;

const maxCauses = 5;

/**
 * What a line says of an error. A fixed list: drivers hang their whole client on theirs, with connection
 * parameters and the keys of a session.
 */
function errorFields(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return error;
  const { name, message, stack, cause } = error;
  const code = (error as { code?: unknown }).code;
  return {
    type: name,
    message,
    ...(code !== undefined && { code: String(code) }),
    stack,
    ...(cause !== undefined && depth < maxCauses && { cause: errorFields(cause, depth + 1) }),
  };
}

/** A logger that writes one line of JSON an event. */
export function createLog({ level, role, destination }: LogOptions): Log {
  return pino(
    {
      level,
      base: { role },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: (error) => errorFields(error), err: (error) => errorFields(error) },
    },
    // Synchronous, so that the last lines before an exit are not lost.
    destination ?? pino.destination({ fd: STDERR_FD, sync: true }),
  );
}
