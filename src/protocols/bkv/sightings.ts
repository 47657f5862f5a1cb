/**
 * What BKV reports tell of holes and charges.
 *
 * A charge is known by the number that its device gave it. The answer to a control is not read as a
 * report: a start and a stop are answered alike, and only the command tells which it was. A swipe
 * asks for a charge and begins none; the order that answers it does. Neither a swipe nor the end of
 * a charge tells the state of the port: both were seen to say that it is charging, and an end may be
 * repeated when the next charge has begun.
 */
import type { DoneCommand, Fields, Observation } from '../protocol.ts';
import {
  beganAt,
  divided,
  eventTime,
  fieldsIn,
  isWhole,
  type Measured,
  readingsOf,
  told,
  word,
} from '../readings.ts';
import type { EndReason, OrderSighting, Sighting } from '../sighting.ts';
import { fromDeviceTime } from './device-time.ts';
import { endReasonOf, holeFlags, holePortState } from './hole-status.ts';

const minuteS = 60;
const maxSocket = 0xff;
/** A socket has two; more are conceivable, while 0x7f was seen for none in particular. */
const maxPort = 15;
/** More than fit into a frame. */
const maxHoles = 256;
const statusPattern = /^(?:0x)?[0-9a-f]{2}$/i;
const numberPattern = /^[0-9a-f]{4}$/i;
const cardPattern = /^(?!0+$)[0-9a-f]{12}$/i;
/** `card.end` by power tiers: only then is there an amount. */
const tierBilling = 3;
/** What was ordered and is used up, by the billing mode of a card's end. */
const cardQuotas: ReadonlyMap<unknown, EndReason> = new Map([
  [1, 'time-up'],
  [2, 'energy-up'],
]);
/** Bounds what a cluster may hold. */
const maxElements = 1024;

type Hole = { socket: number; port: number };

/** What the end of a charge may tell beside what all of them do. */
type EndMore = Partial<Pick<OrderSighting, 'source' | 'card' | 'amountCents'>> & {
  quota?: EndReason | undefined;
  endTime?: unknown;
};

/** What a report tells. Never throws. */
export function sightingsOf({ name, fields: given, at }: Observation): Sighting[] {
  const fields = fieldsIn(given);
  switch (name) {
    case 'status.report':
      return clustersIn(fields).flatMap((cluster) => clusterSightings(cluster, at));
    case 'port.query.reply':
      return holesIn(fields['holes']).flatMap((hole) =>
        holeSightings(fields['socketNo'], hole, fields['tempC'], at),
      );
    case 'exception.report':
      return exceptionSightings(flattened(elementsOf(fields['kv'])), at);
    case 'charge.end':
      return end(fields, at, {});
    case 'card.end':
      return end(fields, at, cardEnd(fields));
    case 'tiers.end':
      return end(fields, at, {
        source: 'server',
        endTime: fields['endTime'],
        ...told<EndMore>({ amountCents: word(fields['amountCent']) }),
      });
    case 'fee.end':
      return feeEnd(flattened(elementsOf(fields['kv'])), at);
    default:
      return [];
  }
}

/** What a command that succeeded tells. Never throws. */
export function sightingsOfResult(done: DoneCommand): Sighting[] {
  const { command, at } = done;
  const params = fieldsIn(done.params);
  const result = fieldsIn(done.result);
  // A refusal, which began nothing.
  if (result['code'] !== undefined) return [];
  switch (command) {
    case 'charge.start':
      return started(done, 'server', { ...params, ...result });
    case 'card.order':
      // The answer to it carries no number: the charge runs under that of the swipe.
      return started(done, 'card', { ...params, ...result, businessNo: params['businessNo'] });
    case 'port.query': {
      const socket = result['socket'] ?? params['socket'];
      return holesIn(result['holes']).flatMap((hole) => stateSightings(socket, hole, at));
    }
    default:
      return [];
  }
}

function started(
  { at, commandId }: DoneCommand,
  source: 'server' | 'card',
  { socket, port, businessNo: number }: Fields,
): Sighting[] {
  const hole = holeOf(socket, port);
  const businessNo = businessNoOf(number);
  if (hole === null || !businessNo) return [];
  return [
    { ...orderOf(hole, businessNo, 'started'), source, startedAt: at, readings: {}, commandId },
  ];
}

function clusterSightings(elements: readonly Fields[], at: number): Sighting[] {
  const { socketNo, mcuTempC } = flattened(elements);
  return elements
    .filter(({ name }) => name === 'hole')
    .slice(0, maxHoles)
    .flatMap(({ value }) => holeSightings(socketNo, flattened(elementsOf(value)), mcuTempC, at));
}

/** A hole in the names of the wire. */
function holeSightings(socket: unknown, fields: Fields, tempC: unknown, at: number): Sighting[] {
  const hole = holeOf(socket, fields['holeNo']);
  const measured = { ...measuredOf(fields), temperatureC: temperature(tempC) };
  return seen(hole, statusOf(fields['holeStatus']), fields['businessNo'], measured, at);
}

/** A hole in the names of a command's result. */
function stateSightings(socket: unknown, state: Fields, at: number): Sighting[] {
  const { voltageDeciV, powerDeciW, currentMilliA, energyWh, durationS } = state;
  const measured = { voltageDeciV, powerDeciW, currentMilliA, energyWh: word(energyWh), durationS };
  const status = isWhole(state['status'], 0xff) ? state['status'] : undefined;
  return seen(holeOf(socket, state['port']), status, state['businessNo'], measured, at);
}

/** The port, and the charge that runs at it. */
function seen(
  hole: Hole | null,
  status: number | undefined,
  number: unknown,
  measured: Measured,
  at: number,
): Sighting[] {
  if (hole === null || status === undefined) return [];
  const businessNo = businessNoOf(number);
  const readings = readingsOf(measured);
  const port: Sighting = {
    kind: 'port',
    ...hole,
    state: holePortState(status),
    code: status,
    ...(businessNo === undefined ? {} : { businessNo }),
    readings,
  };
  if (!businessNo || !holeFlags(status).includes('charging')) return [port];
  const order: Sighting = {
    ...orderOf(hole, businessNo, 'charging'),
    ...told<Pick<OrderSighting, 'startedAt'>>({ startedAt: beganAt(at, readings) }),
    readings,
  };
  return [port, order];
}

/** Of the exception itself nothing is read: the vendor explains none of its numbers. */
function exceptionSightings(fields: Fields, at: number): Sighting[] {
  return ['hole1ChargeStatus', 'hole2ChargeStatus'].flatMap((name, port) =>
    seen(holeOf(fields['socketNo'], port), statusOf(fields[name]), undefined, {}, at),
  );
}

function cardEnd(fields: Fields): EndMore {
  const { cardNo, billingMode } = fields;
  return {
    source: 'card',
    quota: cardQuotas.get(billingMode),
    ...told<EndMore>({
      card: typeof cardNo === 'string' && cardPattern.test(cardNo) ? cardNo : undefined,
      amountCents: billingMode === tierBilling ? word(fields['amountCent']) : undefined,
    }),
  };
}

function feeEnd(fields: Fields, at: number): Sighting[] {
  const { electricityFee, serviceFee, mcuTempC, endTime } = fields;
  const fees = [word(electricityFee), word(serviceFee)].filter((fee) => fee !== undefined);
  // The prices are in cents, so the fees are taken to be; the vendor does not say.
  const amountCents = fees.length === 0 ? undefined : fees.reduce((sum, fee) => sum + fee, 0);
  return end({ ...fields, tempC: mcuTempC }, at, {
    source: 'server',
    endTime,
    ...told<EndMore>({ amountCents }),
  });
}

/**
 * The end of a charge. Of 18 and 1004, which carry a reason of their own, the vendor explains no
 * value: the status byte is what tells, and its number is what is kept.
 */
function end(fields: Fields, at: number, { quota, endTime, ...more }: EndMore): Sighting[] {
  const hole = holeOf(fields['socketNo'], fields['holeNo']);
  const businessNo = businessNoOf(fields['businessNo']);
  if (hole === null || !businessNo) return [];
  const readings = readingsOf({
    ...measuredOf(fields),
    temperatureC: temperature(fields['tempC']),
  });
  const status = statusOf(fields['holeStatus']);
  const reason = status === undefined ? 'other' : endReasonOf(status);
  const endedAt = eventTime(fromDeviceTime(endTime), at);
  return [
    {
      ...orderOf(hole, businessNo, 'ended'),
      ...more,
      ...told<Pick<OrderSighting, 'startedAt' | 'endCode'>>({
        startedAt: beganAt(endedAt, readings),
        endCode: status,
      }),
      endedAt,
      endReason: reason === 'quota-up' ? (quota ?? reason) : reason,
      readings,
    },
  ];
}

function orderOf({ socket, port }: Hole, businessNo: string, event: OrderSighting['event']) {
  const orderKey = `b:${socket}:${port}:${businessNo}`;
  const order = { orderKey, socket, port, event, businessNo, orderNo: null, source: null };
  return { kind: 'order' as const, ...order };
}

function measuredOf(fields: Fields): Measured {
  const { voltageDeciV, powerDeciW, currentMilliA } = fields;
  return {
    voltageDeciV,
    powerDeciW,
    currentMilliA,
    energyWh: word(fields['energyWh']),
    durationS: word(fields['chargedMin'], minuteS),
  };
}

/** One byte without a sign, as far as anybody knows; 0 is no sensor rather than frost. */
function temperature(raw: unknown): number | undefined {
  return divided(raw, 1) || undefined;
}

function holeOf(socket: unknown, port: unknown): Hole | null {
  return isWhole(socket, maxSocket) && isWhole(port, maxPort) ? { socket, port } : null;
}

/** Null where the device numbered no charge. */
function businessNoOf(value: unknown): string | null | undefined {
  const text = typeof value === 'string' && numberPattern.test(value);
  const number = text ? Number.parseInt(value, 16) : value;
  if (!isWhole(number, 0xffff)) return undefined;
  return number === 0 ? null : String(number);
}

function statusOf(value: unknown): number | undefined {
  return typeof value === 'string' && statusPattern.test(value)
    ? Number.parseInt(value.replace(/^0x/i, ''), 16)
    : undefined;
}

function clustersIn(fields: Fields): Fields[][] {
  return elementsOf(fields['kv'])
    .filter(({ name }) => name === 'socketStatusCluster')
    .map(({ value }) => elementsOf(value));
}

function holesIn(value: unknown): Fields[] {
  return Array.isArray(value) ? value.slice(0, maxHoles).map(fieldsIn) : [];
}

function elementsOf(value: unknown): Fields[] {
  return Array.isArray(value) ? value.slice(0, maxElements).map(fieldsIn) : [];
}

/** Elements as fields; of a name that comes twice, the last. */
function flattened(elements: readonly Fields[]): Fields {
  return Object.fromEntries(
    elements.flatMap(({ name, value }) => (typeof name === 'string' ? [[name, value]] : [])),
  );
}
