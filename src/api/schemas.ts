/** The shapes of the API, as its documentation shows them. */
import { type TSchema, Type } from 'typebox';
import { ambiguityPolicies, statuses } from '../command.ts';
import { errorCodes } from '../errors.ts';

const exampleId = '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10';
const Time = Type.String({ description: 'ISO 8601', examples: ['2026-01-31T08:00:00.000Z'] });
const orNull = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

export const Problem = Type.Object(
  {
    type: Type.String(),
    title: Type.String(),
    status: Type.Integer(),
    code: Type.Enum(errorCodes),
    detail: Type.String({ description: 'What is wrong and what to change.' }),
    errors: Type.Optional(Type.Array(Type.Object({ path: Type.String(), message: Type.String() }))),
    id: Type.Optional(Type.String()),
    requestId: Type.String(),
  },
  {
    additionalProperties: false,
    description: 'A problem',
    examples: [
      {
        type: '/docs#DEVICE_UNKNOWN',
        title: 'Not Found',
        status: 404,
        code: 'DEVICE_UNKNOWN',
        detail:
          'device 82200520004869 is unknown: register it with PUT /v1/devices/82200520004869, or let it connect once',
        requestId: 'f0c1e7a2',
      },
    ],
  },
);

const AttemptShown = Type.Object(
  {
    attempt: Type.Integer(),
    at: Time,
    gatewayId: Type.String(),
    epoch: Type.Integer(),
    wireId: Type.Integer(),
    frameOut: Type.String({ description: 'Hex of the frame handed to the gateway.' }),
    writtenAt: orNull(Time),
    frameIn: orNull(Type.String({ description: "Hex of the device's answer." })),
    ms: orNull(Type.Number()),
    outcome: orNull(Type.String()),
  },
  { additionalProperties: false },
);

const commandMembers = {
  id: Type.String(),
  status: Type.Enum(statuses),
  final: Type.Boolean({ description: 'No attempt will follow.' }),
  deviceId: Type.String(),
  protocol: Type.String(),
  command: Type.String(),
  params: Type.Object({}, { additionalProperties: true }),
  priority: Type.Integer(),
  reason: orNull(Type.String()),
  code: orNull(Type.String()),
  result: orNull(Type.Object({}, { additionalProperties: true })),
  late: Type.Boolean(),
  inferred: Type.Boolean(),
  acceptedAt: Time,
  notBefore: Time,
  deadline: Time,
  settledAt: orNull(Time),
  ackTimeoutMs: Type.Integer(),
  maxAttempts: Type.Integer(),
  backoffMs: Type.Integer(),
  orderKey: orNull(Type.String()),
  onAmbiguous: Type.Enum(ambiguityPolicies),
  labels: Type.Record(Type.String(), Type.String()),
  apiKey: Type.String({ description: 'Name of the API key that asked.' }),
  attempts: Type.Array(AttemptShown),
};

const commandExample = {
  id: exampleId,
  status: 'queued',
  final: false,
  deviceId: '82200520004869',
  protocol: 'bkv',
  command: 'charge.start',
  params: { socket: 1, port: 0, mode: 'time', minutes: 60 },
  priority: 7,
  reason: null,
  code: null,
  result: null,
  late: false,
  inferred: false,
  acceptedAt: '2026-01-31T08:00:00.000Z',
  notBefore: '2026-01-31T08:00:00.000Z',
  deadline: '2026-01-31T08:01:00.000Z',
  settledAt: null,
  ackTimeoutMs: 10_000,
  maxAttempts: 4,
  backoffMs: 3_000,
  orderKey: 'port:1:0',
  onAmbiguous: 'probe',
  labels: {},
  apiKey: 'app',
  attempts: [],
};

const Source = Type.Enum(['ledger', 'queue'], {
  description: 'Who answered: without the ledger, status and attempts are as of accept.',
});

export const CommandShown = Type.Object(
  { ...commandMembers, source: Type.Optional(Source) },
  { additionalProperties: false, description: 'A command', examples: [commandExample] },
);

export const CommandAccepted = Type.Object(
  {
    ...commandMembers,
    durability: Type.Enum(['both', 'queue', 'ledger'], {
      description: 'Where the command was stored when this was sent.',
    }),
  },
  {
    additionalProperties: false,
    description: 'The command',
    examples: [{ ...commandExample, durability: 'both' }],
  },
);

export const CommandPage = Type.Object(
  { items: Type.Array(CommandShown), nextCursor: orNull(Type.String()) },
  {
    additionalProperties: false,
    description: 'A page of commands, newest first',
    examples: [{ items: [commandExample], nextCursor: null }],
  },
);

const deviceExample = {
  deviceId: '82200520004869',
  protocol: 'bkv',
  online: true,
  gatewayId: 'gw-1',
  lastSeenAt: '2026-01-31T08:00:00.000Z',
  firstSeenAt: '2026-01-01T00:00:00.000Z',
  facts: { firmware: '1.0.3' },
};

export const DeviceShown = Type.Object(
  {
    deviceId: Type.String(),
    protocol: Type.String(),
    online: orNull(Type.Boolean({ description: 'null: nobody can tell while Redis is away.' })),
    gatewayId: orNull(Type.String()),
    lastSeenAt: orNull(Time),
    firstSeenAt: orNull(Time),
    facts: Type.Object({}, { additionalProperties: true }),
  },
  { additionalProperties: false, description: 'A device', examples: [deviceExample] },
);

export const DevicePage = Type.Object(
  { items: Type.Array(DeviceShown), nextCursor: orNull(Type.String()) },
  {
    additionalProperties: false,
    description: 'A page of devices',
    examples: [{ items: [deviceExample], nextCursor: null }],
  },
);

export const DeviceBody = Type.Object(
  {
    protocol: Type.Optional(
      Type.String({ maxLength: 16, description: 'Known from the form of the id when absent.' }),
    ),
  },
  { additionalProperties: false, examples: [{ protocol: 'bkv' }] },
);

const CommandTableEntry = Type.Object({
  name: Type.String(),
  title: Type.String(),
  params: Type.Object({}, { additionalProperties: true, description: 'JSON Schema' }),
  priority: Type.Integer(),
  ttlMs: Type.Integer(),
  ackTimeoutMs: Type.Integer(),
  attempts: Type.Integer(),
  ack: Type.Enum(['reply', 'none']),
  repeatable: Type.Boolean(),
  onAmbiguous: Type.Enum(ambiguityPolicies),
  supersedes: Type.Array(Type.String()),
});

export const ProtocolList = Type.Object(
  {
    items: Type.Array(
      Type.Object({
        name: Type.String(),
        title: Type.String(),
        inFlight: Type.Integer(),
        gapMs: Type.Integer(),
        heartbeatMs: Type.Integer(),
        commands: Type.Array(CommandTableEntry),
      }),
    ),
    nextCursor: Type.Null(),
  },
  {
    additionalProperties: false,
    description: 'The protocols and their command tables',
    examples: [
      {
        items: [
          {
            name: 'bkv',
            title: 'BKV charging station',
            inFlight: 1,
            gapMs: 10,
            heartbeatMs: 60_000,
            commands: [],
          },
        ],
        nextCursor: null,
      },
    ],
  },
);

export const Stats = Type.Object(
  {
    queue: Type.Object({
      waiting: Type.Integer({
        description: 'Not in a worker’s hands; delayed and parked included.',
      }),
      pending: Type.Integer({ description: 'Being sent, or sent and waiting for the device.' }),
      dead: Type.Integer({ description: 'Ended as failed or unknown; kept 7 days.' }),
    }),
  },
  {
    additionalProperties: false,
    description: 'Counts of the queue',
    examples: [{ queue: { waiting: 12, pending: 3, dead: 0 } }],
  },
);

const Limit = Type.Integer({ minimum: 1, maximum: 200, default: 50 });
const Cursor = Type.String({ maxLength: 512, description: 'nextCursor of the page before.' });

export const CommandQuery = Type.Object(
  {
    deviceId: Type.Optional(Type.String({ maxLength: 64 })),
    status: Type.Optional(
      Type.Union([Type.String({ maxLength: 256 }), Type.Array(Type.String({ maxLength: 32 }))], {
        description: `One or several of ${statuses.join(', ')}: repeated, or separated by commas.`,
      }),
    ),
    command: Type.Optional(Type.String({ maxLength: 64 })),
    from: Type.Optional(Type.String({ maxLength: 40, description: 'acceptedAt from, inclusive.' })),
    to: Type.Optional(Type.String({ maxLength: 40, description: 'acceptedAt to, exclusive.' })),
    cursor: Type.Optional(Cursor),
    limit: Type.Optional(Limit),
  },
  { additionalProperties: false },
);

export const DeviceQuery = Type.Object(
  {
    online: Type.Optional(Type.Boolean()),
    protocol: Type.Optional(Type.String({ maxLength: 16 })),
    cursor: Type.Optional(Cursor),
    limit: Type.Optional(Limit),
  },
  { additionalProperties: false },
);

export const MAX_WAIT_MS = 30_000;

export const WaitQuery = Type.Object(
  {
    wait: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: MAX_WAIT_MS,
        description: 'Wait so many milliseconds for the end.',
      }),
    ),
  },
  { additionalProperties: false },
);

export const IdParams = Type.Object({ id: Type.String({ maxLength: 64 }) });

const anyProblem = (description: string) => ({ ...Problem, description });

/** The problems any guarded route may answer with. */
export const commonProblems = {
  400: anyProblem('The request is malformed'),
  401: anyProblem('No valid API key'),
  403: anyProblem('The API key lacks the scope'),
  429: anyProblem('Too many requests'),
  503: anyProblem('A store that this needs is away'),
};

export const problems = {
  notFound: { 404: anyProblem('There is none of that id') },
  conflict: { 409: anyProblem('It conflicts with what is') },
  tooLarge: { 413: anyProblem('The body is too large') },
  mediaType: { 415: anyProblem('The body is not JSON') },
  invalid: { 422: anyProblem('The command or its params are not in the table') },
};
