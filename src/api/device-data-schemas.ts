/** The shapes of what is known of a device: ports, orders and command log. */
import { type TSchema, Type } from 'typebox';
import { orderStatuses } from '../store/device-data.ts';
import { CommandQuery, Cursor, Limit, orNull, Time } from './schemas.ts';

const directions = ['up', 'down'] as const;
export const maxLogDays = 31;

const number = (description?: string) =>
  orNull(Type.Number(description === undefined ? {} : { description }));
const text = (description?: string) =>
  orNull(Type.String(description === undefined ? {} : { description }));
const pageOf = <T extends TSchema>(item: T, description: string, example: unknown) =>
  Type.Object(
    { items: Type.Array(item), nextCursor: orNull(Type.String()) },
    {
      additionalProperties: false,
      description,
      examples: [{ items: [example], nextCursor: null }],
    },
  );

const portExample = {
  deviceId: '82200520004869',
  socket: 1,
  port: 0,
  state: 'charging',
  code: 1,
  businessNo: '17',
  orderNo: null,
  powerW: 212,
  voltageV: 229.4,
  currentA: 0.93,
  energyWh: 140,
  durationS: 2400,
  temperatureC: null,
  updatedAt: '2026-01-31T08:00:00.000Z',
};

const PortShown = Type.Object(
  {
    deviceId: Type.String(),
    socket: Type.Integer({ description: 'BKV: the socket number; AP3000: 0.' }),
    port: Type.Integer({ description: 'From 0: hole A, or port 1, is 0.' }),
    state: Type.String({ description: 'idle, plugged, charging, full, fault or unknown.' }),
    code: orNull(Type.Integer({ description: "The device's own number for the state." })),
    businessNo: text(),
    orderNo: text(),
    powerW: number(),
    voltageV: number(),
    currentA: number(),
    energyWh: number(),
    durationS: number(),
    temperatureC: number(),
    updatedAt: Time,
  },
  { additionalProperties: false },
);

export const PortPage = pageOf(PortShown, 'All ports of a device', portExample);

const orderExample = {
  id: '4711',
  deviceId: '82200520004869',
  socket: 1,
  port: 0,
  businessNo: '17',
  orderNo: null,
  status: 'ended',
  source: 'server',
  card: null,
  startedAt: '2026-01-31T07:20:00.000Z',
  endedAt: '2026-01-31T08:00:00.000Z',
  createdAt: '2026-01-31T07:20:00.400Z',
  updatedAt: '2026-01-31T08:00:00.000Z',
  energyWh: 140,
  durationS: 2400,
  powerW: null,
  maxPowerW: 231,
  amountCents: 120,
  endReason: 'time-up',
  endCode: 1,
  commandId: '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10',
};

export const OrderShown = Type.Object(
  {
    id: Type.String(),
    deviceId: Type.String(),
    socket: Type.Integer(),
    port: Type.Integer(),
    businessNo: text("The device's own number of the charge."),
    orderNo: text('The number that the start command gave it.'),
    status: Type.Enum(orderStatuses),
    source: text('What started it: server, card, offline or code.'),
    card: text(),
    startedAt: orNull(Time),
    endedAt: orNull(Time),
    createdAt: Type.String({ description: 'ISO 8601; when it was first heard of.' }),
    updatedAt: Time,
    energyWh: number(),
    durationS: number(),
    powerW: number('The last one told.'),
    maxPowerW: number(),
    amountCents: orNull(Type.Integer()),
    endReason: text('In the words that the protocols share, such as full or time-up.'),
    endCode: orNull(Type.Integer({ description: "The device's own number for it." })),
    commandId: text('The command that started it.'),
  },
  {
    additionalProperties: false,
    description: 'An order: one charging session',
    examples: [orderExample],
  },
);

export const OrderPage = pageOf(OrderShown, 'A page of orders, newest first', orderExample);

const logExample = {
  id: 'c:01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10:1:d',
  at: '2026-01-31T08:00:00.000Z',
  deviceId: '82200520004869',
  direction: 'down',
  protocol: 'bkv',
  name: 'charge.stop',
  weight: 'command',
  msgId: 4711,
  commandId: '01929d2c-7a3e-7c55-b1c4-6a1f0f2d9e10',
  fields: { socket: 1, port: 0 },
  frame: 'fcff001a',
};

const LogEntryShown = Type.Object(
  {
    id: Type.String(),
    at: Time,
    deviceId: Type.String(),
    direction: Type.Enum(directions, { description: 'down: to the device.' }),
    protocol: Type.String(),
    name: Type.String({
      description: "Of the message; of a command's own frames the command's, or probe.",
    }),
    weight: Type.String({ description: 'command, state or money.' }),
    msgId: Type.Integer(),
    commandId: text(),
    fields: Type.Object({}, { additionalProperties: true, description: 'What was decoded.' }),
    frame: Type.String({ description: 'All bytes of the frame in hex.' }),
  },
  { additionalProperties: false },
);

export const LogPage = pageOf(LogEntryShown, 'A page of frames, newest first', logExample);

const moment = (description: string) =>
  Type.Optional(
    Type.String({ maxLength: 40, description: `ISO 8601 with its zone; ${description}` }),
  );

export const OrderQuery = Type.Object(
  {
    from: moment('createdAt from, inclusive.'),
    to: moment('createdAt to, exclusive.'),
    status: Type.Optional(Type.Enum(orderStatuses)),
    cursor: Type.Optional(Cursor),
    limit: Type.Optional(Limit),
  },
  { additionalProperties: false },
);

export const LogQuery = Type.Object(
  {
    from: moment('inclusive; 24 hours before `to` without it.'),
    to: moment(`exclusive; now without it. At most ${maxLogDays} days after \`from\`.`),
    direction: Type.Optional(Type.Enum(directions)),
    name: Type.Optional(Type.String({ maxLength: 64 })),
    cursor: Type.Optional(Cursor),
    limit: Type.Optional(Limit),
  },
  { additionalProperties: false },
);

const { deviceId: _, ...ofDevice } = CommandQuery.properties;

export const DeviceCommandQuery = Type.Object(ofDevice, { additionalProperties: false });

export const OrderParams = Type.Object({
  id: Type.String({ pattern: '^[1-9][0-9]{0,14}$', description: 'A whole number.' }),
});
