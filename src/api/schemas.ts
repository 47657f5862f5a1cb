/** The shapes of the API, as its documentation shows them. */
import { type TSchema, Type } from 'typebox';
import { maxDeadPerCall } from '../../queues/dead-letters.ts';
import { ambiguityPolicies, statuses } from '../command.ts';
import { errorCodes } from '../errors.ts';
import { becauses } from './explanation.ts';

const exampleId = '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10';
export const Time = Type.String({
  description: 'ISO 8601',
  examples: ['2026-01-31T08:00:00.000Z'],
});
export const orNull = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

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
    probe: Type.Optional(
      Type.Literal(true, { description: 'It asked what became of the attempt before.' }),
    ),
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
  replayOf: orNull(Type.String()),
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
  replayOf: null,
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
    paused: Type.Optional(
      orNull(
        Type.Object(
          { since: Time, by: Type.String(), reason: orNull(Type.String()) },
          { description: 'Its commands are held back; shown with one device.' },
        ),
      ),
    ),
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
  excludes: Type.Array(Type.String(), {
    description: 'It is refused while one of these is unfinished in its line.',
  }),
  preempts: Type.Boolean({ description: 'A stop: it waits for nothing in its line but stops.' }),
  probe: Type.Union([Type.Literal('ask'), Type.Literal('repeat'), Type.Null()], {
    description: 'How the device is asked what became of a frame that went unanswered.',
  }),
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
      paused: Type.Boolean({ description: 'Nothing is taken from it, by order of an operator.' }),
    }),
    devices: Type.Object({
      paused: orNull(
        Type.Integer({
          description: 'Devices whose commands are held back; null while the ledger is away.',
        }),
      ),
    }),
  },
  {
    additionalProperties: false,
    description: 'Counts of the queue',
    examples: [
      { queue: { waiting: 12, pending: 3, dead: 0, paused: false }, devices: { paused: 0 } },
    ],
  },
);

export const Limit = Type.Integer({ minimum: 1, maximum: 200, default: 50 });
export const Cursor = Type.String({
  maxLength: 512,
  description: 'nextCursor of the page before.',
});

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

export const NoContent = Type.Null({ description: 'Done; there is nothing to say' });

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

const deadFilter = {
  deviceId: Type.Optional(Type.String({ maxLength: 64 })),
  command: Type.Optional(Type.String({ maxLength: 64 })),
  code: Type.Optional(Type.String({ maxLength: 64, description: 'Such as NO_ACK or INVALID.' })),
  status: Type.Optional(Type.Enum(['failed', 'unknown'])),
  from: Type.Optional(Type.String({ maxLength: 40, description: 'settledAt from, inclusive.' })),
  to: Type.Optional(Type.String({ maxLength: 40, description: 'settledAt to, exclusive.' })),
};

export const DeadQuery = Type.Object(
  { ...deadFilter, cursor: Type.Optional(Cursor), limit: Type.Optional(Limit) },
  { additionalProperties: false },
);

export const DeadFilterBody = Type.Object(
  {
    ids: Type.Optional(
      Type.Array(Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' }), {
        minItems: 1,
        maxItems: maxDeadPerCall,
      }),
    ),
    ...deadFilter,
  },
  { additionalProperties: false },
);

export const DeadPurgeBody = Type.Object(
  {
    filter: Type.Optional(DeadFilterBody),
    all: Type.Optional(Type.Boolean({ description: 'Instead of a filter: every dead command.' })),
  },
  { additionalProperties: false, examples: [{ filter: { code: 'NO_ACK' } }] },
);

export const DeadPurged = Type.Object(
  {
    purged: Type.Integer(),
    more: Type.Boolean({ description: 'Others may be left: call again.' }),
  },
  {
    additionalProperties: false,
    description: 'How many were taken off the list',
    examples: [{ purged: 17, more: false }],
  },
);

export const DeadReplayBody = Type.Object(
  {
    filter: Type.Optional(DeadFilterBody),
    limit: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: maxDeadPerCall,
        default: 100,
        description: 'The newest so many that fit.',
      }),
    ),
    acceptRisk: Type.Optional(
      Type.Boolean({ description: 'Send also what may have taken effect already.' }),
    ),
  },
  {
    additionalProperties: false,
    examples: [{ filter: { deviceId: '82200520004869' }, limit: 100 }],
  },
);

export const DeadReplayed = Type.Object(
  {
    items: Type.Array(
      Type.Union([
        Type.Object(
          { id: Type.String(), newId: Type.String({ description: 'The new command.' }) },
          { additionalProperties: false },
        ),
        Type.Object(
          { id: Type.String(), code: Type.Enum(errorCodes), detail: Type.String() },
          { additionalProperties: false, description: 'Refused; it stays on the list.' },
        ),
      ]),
    ),
  },
  {
    additionalProperties: false,
    description: 'One verdict for each command',
    examples: [{ items: [{ id: exampleId, newId: '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e11' }] }],
  },
);

export const RetryBody = Type.Object(
  {
    acceptRisk: Type.Optional(
      Type.Boolean({ description: 'Send it also if it may have taken effect already.' }),
    ),
  },
  { additionalProperties: false, examples: [{ acceptRisk: true }] },
);

export const PauseBody = Type.Object(
  { reason: Type.Optional(Type.String({ maxLength: 200, description: 'For whoever asks why.' })) },
  { additionalProperties: false, examples: [{ reason: 'electrician on site' }] },
);

export const QueuePaused = Type.Object(
  { paused: Type.Boolean() },
  {
    additionalProperties: false,
    description: 'Whether the queue is paused',
    examples: [{ paused: true }],
  },
);

export const CommandExplained = Type.Object(
  {
    id: Type.String(),
    status: Type.Enum(statuses),
    deviceId: Type.String(),
    because: Type.Enum(becauses),
    sentence: Type.String(),
    also: Type.Array(Type.Enum(becauses)),
    source: Source,
  },
  {
    additionalProperties: true,
    description: 'Why it is not out yet, or how it ended; the other members depend on `because`',
    examples: [
      {
        id: exampleId,
        status: 'parked',
        deviceId: '82200520004869',
        because: 'offline',
        sentence:
          'device 82200520004869 is not connected: it was last seen at 2026-01-31T08:00:00.000Z',
        also: [],
        source: 'ledger',
        lastSeenAt: '2026-01-31T08:00:00.000Z',
      },
    ],
  },
);

export const CancelRequested = Type.Object(
  {
    ...commandMembers,
    cancelRequested: Type.Literal(true, { description: 'It gets no further attempt.' }),
  },
  {
    additionalProperties: false,
    description: 'Not yet known whether it was written',
    examples: [{ ...commandExample, status: 'sent', cancelRequested: true }],
  },
);

const batchExample = {
  items: [
    {
      deviceId: '82200520004869',
      command: 'charge.stop',
      params: { socket: 1, port: 0 },
      idempotencyKey: 'order-17-stop',
    },
  ],
};

/** For the reader: accept checks each item by itself. */
export const BatchBody = Type.Union(
  [
    Type.Object({ items: Type.Array(Type.Unknown(), { maxItems: 1_000 }) }),
    Type.Array(Type.Unknown(), { maxItems: 1_000 }),
  ],
  {
    description:
      'Up to 1,000 bodies as of POST /v1/commands, each with an `idempotencyKey` of its own if wanted.',
    examples: [batchExample],
  },
);

const verdictMembers = {
  index: Type.Integer({ description: 'Of the item, from 0.' }),
  httpStatus: Type.Integer({ description: 'As POST /v1/commands would have answered it alone.' }),
};

export const BatchVerdicts = Type.Array(
  Type.Union([
    Type.Object(
      {
        ...verdictMembers,
        ...CommandAccepted.properties,
        replayed: Type.Boolean({ description: 'Its key was used before: this is that command.' }),
      },
      { additionalProperties: false, description: 'Accepted' },
    ),
    Type.Object(
      { ...verdictMembers, ...Problem.properties },
      { additionalProperties: false, description: 'Refused' },
    ),
  ]),
  {
    description: 'One verdict each, in the order of the items',
    examples: [
      [{ index: 0, httpStatus: 202, ...commandExample, durability: 'both', replayed: false }],
    ],
  },
);
