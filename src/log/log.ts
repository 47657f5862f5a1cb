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

/** A logger that writes one line of JSON an event. */
export function createLog({ level, role, destination }: LogOptions): Log {
  return pino(
    {
      level,
      base: { role },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err },
    },
    // Synchronous, so that the last lines before an exit are not lost.
    destination ?? pino.destination({ fd: STDERR_FD, sync: true }),
  );
}
