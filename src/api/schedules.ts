/** /v1/schedules: commands that are asked for again and again. */
import type { FastifyInstance } from 'fastify';
import { type Static, Type } from 'typebox';
import { AcceptBody } from '../../queues/accept-body.ts';
import type { Check } from '../../queues/accept-check.ts';
import type { Fault } from '../../queues/faults.ts';
import type { ScheduleQueue } from '../../queues/schedules.ts';
import {
  faultsOfTiming,
  MAX_CRON_LENGTH,
  MAX_EVERY_MS,
  MIN_EVERY_MS,
  nextTick,
  type Timing,
} from '../../queues/ticks.ts';
import { DownlinkError, messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Schedule, Schedules } from '../store/contract.ts';
import { isoOf } from './representation.ts';
import { commonProblems, problems } from './schemas.ts';

export type ScheduleRoutes = {
  schedules: Pick<Schedules, 'put' | 'find' | 'list' | 'remove'>;
  scheduleQueue: Pick<ScheduleQueue, 'arm' | 'disarm'>;
  /** The check that accept uses. */
  check: Check;
  log: Log;
  now?: () => number;
};

const DEFAULT_LIMIT = 50;
const DEFAULT_TIME_ZONE = 'UTC';

const { delayMs: _delayMs, notBefore: _notBefore, ...repeatable } = AcceptBody.properties;

const ScheduleBody = Type.Object(
  {
    cron: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: MAX_CRON_LENGTH,
        description:
          'Minute, hour, day of the month, month, day of the week; with six fields the second comes first.',
      }),
    ),
    everyMs: Type.Optional(
      Type.Integer({
        minimum: MIN_EVERY_MS,
        maximum: MAX_EVERY_MS,
        description:
          'In place of cron: at every multiple of so many milliseconds since 1970 (900000: at each quarter of an hour).',
      }),
    ),
    timeZone: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 64,
        description: 'IANA name of the zone in which cron is read; UTC without it.',
      }),
    ),
    command: Type.Object(repeatable, {
      additionalProperties: false,
      description: 'What every tick sends: the body of POST /v1/commands without delay.',
    }),
  },
  {
    additionalProperties: false,
    examples: [
      {
        cron: '0 8 * * *',
        timeZone: 'Asia/Shanghai',
        command: { deviceId: '82200520004869', command: 'port.query', params: { socket: 1 } },
      },
    ],
  },
);

const Time = Type.String({ description: 'ISO 8601', examples: ['2026-01-31T08:00:00.000Z'] });
const TimeOrNull = Type.Union([Time, Type.Null()]);
const TextOrNull = Type.Union([Type.String(), Type.Null()]);

const shownMembers = {
  key: Type.String(),
  cron: TextOrNull,
  everyMs: Type.Union([Type.Integer(), Type.Null()]),
  timeZone: Type.String(),
  command: Type.Object({}, { additionalProperties: true }),
  apiKey: Type.String({
    description: 'Name of the API key that put it; its commands are asked by it.',
  }),
  createdAt: Time,
  updatedAt: Time,
  nextTickAt: TimeOrNull,
  lastTickAt: TimeOrNull,
  lastCommandId: TextOrNull,
  lastError: Type.Union([
    Type.String({ description: 'Why the last tick became no command.' }),
    Type.Null(),
  ]),
};

const shownExample = {
  key: 'morning-query',
  cron: '0 8 * * *',
  everyMs: null,
  timeZone: 'Asia/Shanghai',
  command: { deviceId: '82200520004869', command: 'port.query', params: { socket: 1 } },
  apiKey: 'app',
  createdAt: '2026-01-30T10:00:00.000Z',
  updatedAt: '2026-01-30T10:00:00.000Z',
  nextTickAt: '2026-02-01T00:00:00.000Z',
  lastTickAt: '2026-01-31T00:00:00.000Z',
  lastCommandId: '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10',
  lastError: null,
};

const ScheduleShown = Type.Object(shownMembers, {
  additionalProperties: false,
  description: 'A schedule',
  examples: [shownExample],
});

const SchedulePut = Type.Object(
  {
    ...shownMembers,
    armed: Type.Boolean({
      description: 'false: the queue store is away; it ticks within a minute of its return.',
    }),
  },
  { additionalProperties: false, examples: [{ ...shownExample, armed: true }] },
);

const SchedulePage = Type.Object(
  { items: Type.Array(ScheduleShown), nextCursor: TextOrNull },
  {
    additionalProperties: false,
    description: 'A page of schedules, by key',
    examples: [{ items: [shownExample], nextCursor: null }],
  },
);

const KeyParams = Type.Object({
  // No colon: the key is a part of the names of its ticks.
  key: Type.String({
    pattern: '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$',
    description: 'Yours: letters, digits, dots, dashes and underscores, up to 64.',
  }),
});

const ScheduleQuery = Type.Object(
  {
    cursor: Type.Optional(Type.String({ maxLength: 512 })),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: DEFAULT_LIMIT })),
  },
  { additionalProperties: false },
);

type Key = { Params: Static<typeof KeyParams> };

export function scheduleRoutes(app: FastifyInstance, deps: ScheduleRoutes): void {
  const { schedules, scheduleQueue, check, log, now = Date.now } = deps;
  const tags = ['schedules'];

  app.put<Key & { Body: Static<typeof ScheduleBody> }>(
    '/schedules/:key',
    {
      config: { scope: 'send' },
      schema: {
        operationId: 'putSchedule',
        summary: 'Add a schedule, or change one',
        description:
          'Each tick sends the command once, under the Idempotency-Key `schedule:KEY:TICK`. Ticks that were missed while no worker ran become one.',
        tags,
        params: KeyParams,
        body: ScheduleBody,
        response: {
          200: { ...SchedulePut, description: 'Changed' },
          201: { ...SchedulePut, description: 'Added' },
          ...commonProblems,
          ...problems.notFound,
          ...problems.invalid,
        },
      },
    },
    async (request, reply) => {
      const { key } = request.params;
      const { command: body } = request.body;
      const timing = readTiming(request.body);
      await checkCommand(body);
      const { apiKey } = request;
      const isNew = await schedules.put({ key, ...timing, body, apiKey, updatedAt: now() });
      const armed = await arm(key, timing);
      reply.code(isNew ? 201 : 200);
      return { ...scheduleJson(await find(key), now()), armed };
    },
  );

  app.get<{ Querystring: Static<typeof ScheduleQuery> }>(
    '/schedules',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'listSchedules',
        summary: 'List schedules',
        tags,
        querystring: ScheduleQuery,
        response: { 200: SchedulePage, ...commonProblems },
      },
    },
    async (request) => {
      const { cursor, limit = DEFAULT_LIMIT } = request.query;
      const page = await schedules.list({ ...(cursor !== undefined && { cursor }), limit });
      const at = now();
      return { ...page, items: page.items.map((schedule) => scheduleJson(schedule, at)) };
    },
  );

  app.get<Key>(
    '/schedules/:key',
    {
      config: { scope: 'read' },
      schema: {
        operationId: 'getSchedule',
        summary: 'Show a schedule with its last and next tick',
        tags,
        params: KeyParams,
        response: { 200: ScheduleShown, ...commonProblems, ...problems.notFound },
      },
    },
    async (request) => scheduleJson(await find(request.params.key), now()),
  );

  app.delete<Key>(
    '/schedules/:key',
    {
      config: { scope: 'send' },
      schema: {
        operationId: 'removeSchedule',
        summary: 'Remove a schedule; commands that it has sent stay',
        tags,
        params: KeyParams,
        response: {
          200: { ...ScheduleShown, description: 'Removed; as it was' },
          ...commonProblems,
          ...problems.notFound,
        },
      },
    },
    async (request) => {
      const { key } = request.params;
      const schedule = await find(key);
      await schedules.remove(key);
      await scheduleQueue.disarm(key).catch((error: unknown) => {
        // Its ticks find it gone and do nothing, until a worker has cleared them away.
        log.warn({ schedule: key, error: messageOf(error) }, 'schedule not disarmed yet');
      });
      return { ...scheduleJson(schedule, now()), nextTickAt: null };
    },
  );

  function readTiming({ cron, everyMs, timeZone }: Static<typeof ScheduleBody>): Timing {
    const timing = {
      cron: cron?.trim() ?? null,
      everyMs: everyMs ?? null,
      timeZone: timeZone ?? DEFAULT_TIME_ZONE,
    };
    const errors = faultsOfTiming(timing, now());
    if (errors.length === 0) return timing;
    const detail = errors.map(({ path, message }) => `${path} ${message}`).join('; ');
    throw new DownlinkError('BAD_REQUEST', detail, { details: { errors } });
  }

  /** Every tick would be refused for what is wrong here; what is wrong later is noted at that tick. */
  async function checkCommand(body: unknown): Promise<void> {
    await check(body).catch((error: unknown) => {
      if (!(error instanceof DownlinkError) || !Array.isArray(error.details['errors'])) throw error;
      const errors = (error.details['errors'] as Fault[]).map(({ path, message }) => ({
        path: path === '' ? 'command' : `command.${path}`,
        message,
      }));
      throw new DownlinkError(error.code, `command: ${error.message}`, {
        cause: error,
        details: { ...error.details, errors },
      });
    });
  }

  async function arm(key: string, timing: Timing): Promise<boolean> {
    try {
      await scheduleQueue.arm({ key, ...timing });
      return true;
    } catch (error) {
      log.warn({ schedule: key, error: messageOf(error) }, 'schedule not armed yet');
      return false;
    }
  }

  async function find(key: string): Promise<Schedule> {
    const schedule = await schedules.find(key);
    if (schedule) return schedule;
    const message = `there is no schedule ${key}: GET /v1/schedules lists them`;
    throw new DownlinkError('SCHEDULE_NOT_FOUND', message);
  }
}

function scheduleJson(schedule: Schedule, at: number) {
  const { body, createdAt, updatedAt, lastTickAt, lastCommandId, lastError, ...own } = schedule;
  return {
    ...own,
    command: body,
    createdAt: isoOf(createdAt),
    updatedAt: isoOf(updatedAt),
    nextTickAt: isoOf(nextTick(schedule, at)),
    lastTickAt: isoOf(lastTickAt),
    lastCommandId,
    lastError,
  };
}
