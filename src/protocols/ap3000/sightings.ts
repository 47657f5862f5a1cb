/**
 * What AP3000 messages tell of ports and charges. A charge is known by its order number, which the server
 * chose, or the device where a card or a code began it. The end of a charge (03, 43) says nothing of its port:
 * a device repeats it, when another may be charging there.
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
import type { OrderSighting, PortState, Sighting } from '../sighting.ts';
import { endReasonOfStop, orderSources, portStates } from './codes.ts';
import { orderNoFromWire, orderNoPattern, orderNoToWire } from './order-number.ts';

/** A direct device has no sockets below it. */
const socket = 0;
/** 0xff stands for a port that the device chooses. */
const maxPort = 0xfe;
const centiKwhWh = 10;
const temperatureOffset = 65;
const wireOrderPattern = /^[0-9a-f]{32}$/i;
const givenOrderPattern = new RegExp(orderNoPattern);
/** Memory that was never written. */
const emptyOrderPattern = /^(?:0+|f+)$/i;
const cardPattern = /^(?!0+$)[0-9a-f]{8}$/i;
const offlineCard = 0;
/** In 06 these are sound, and all else is an error; 0 was seen in the last one before a settlement. */
const soundInPower: ReadonlySet<unknown> = new Set([0, 1, 2, 3, 5]);

/** A port and an order number that names a charge. */
type Order = { port: number; orderNo: string };

/** What a report tells. Never throws. */
export function sightingsOf({ name, fields: given, at }: Observation): Sighting[] {
  const fields = fieldsIn(given);
  switch (name) {
    case 'heartbeat':
    case 'heartbeat.legacy':
      return portList(fields);
    case 'power':
      return running(fields, at);
    case 'order.confirm':
      return confirmed(fields, at);
    case 'settlement':
    case 'cabinet.finished':
      return ended(fields, at);
    default:
      return [];
  }
}

/**
 * What a command that succeeded tells. Never throws. A stop tells nothing: its settlement does. Nor does a
 * start that was refused but executed: the reports of its charge do.
 */
export function sightingsOfResult(done: DoneCommand): Sighting[] {
  const params = fieldsIn(done.params);
  const result = fieldsIn(done.result);
  if (done.command !== 'charge.start' || result['code'] !== undefined) return [];
  const port = isWhole(result['port'], maxPort) ? result['port'] : params['port'];
  const orderNo = givenOrder(result['orderNo']) ?? givenOrder(params['orderNo']);
  if (!isWhole(port, maxPort) || orderNo === null) return [];
  const { at, commandId } = done;
  const order = orderOf({ port, orderNo }, 'started', 'server');
  return [{ ...order, startedAt: at, readings: {}, commandId }];
}

/** 01 and 21: one status for each port; voltage and temperature are the device's. */
function portList(fields: Fields): Sighting[] {
  const { portStatus, powerDeciW, voltageDeciV, ambientTempRaw } = fields;
  if (!Array.isArray(portStatus)) return [];
  const powers: unknown[] = Array.isArray(powerDeciW) ? powerDeciW : [];
  const temperatureC = temperature(ambientTempRaw);
  return portStatus.slice(0, maxPort + 1).flatMap((code: unknown, port) => {
    if (!isWhole(code, 0xff)) return [];
    const readings = readingsOf({ voltageDeciV, powerDeciW: powers[port], temperatureC });
    return [{ kind: 'port', socket, port, state: stateOf(code), code, readings }];
  });
}

/** 06: the port and the charge that it draws power for, though the charge may have ended since. */
function running(fields: Fields, at: number): Sighting[] {
  const { port, portStatus: code, powerDeciW, voltageDeciV, currentMilliA } = fields;
  if (!isWhole(port, maxPort)) return [];
  const readings = readingsOf({
    ...chargedOf(fields),
    powerDeciW,
    voltageDeciV,
    currentMilliA,
    temperatureC: temperature(fields['portTempRaw']) ?? temperature(fields['ambientTempRaw']),
  });
  const orderNo = wireOrder(fields['orderNo']);
  const seen: Sighting[] = [];
  if (isWhole(code, 0xff)) {
    const state = soundInPower.has(code) ? stateOf(code) : 'fault';
    const named = fields['orderNo'] === undefined ? {} : { orderNo };
    seen.push({ kind: 'port', socket, port, state, code, ...named, readings });
  }
  if (orderNo !== null) {
    seen.push({
      ...orderOf({ port, orderNo }, 'charging', sourceOf(fields)),
      ...told<Pick<OrderSighting, 'startedAt' | 'maxPowerW'>>({
        // It is never repeated, so the time of the report is surer than the device's clock.
        startedAt: beganAt(at, readings),
        maxPowerW: divided(fields['maxPowerDeciW'], 10),
      }),
      readings,
    });
  }
  return seen;
}

/** 04: its duration is what was ordered, not what has passed. */
function confirmed(fields: Fields, at: number): Sighting[] {
  const order = orderIn(fields);
  if (order === null) return [];
  const sighting = orderOf(order, 'started', sourceOf(fields));
  return [{ ...sighting, ...cardOf(fields, 'cardId'), startedAt: at, readings: {} }];
}

/** 03, and 43 of a cabinet whose door is not closed yet; its 03 follows. */
function ended(fields: Fields, at: number): Sighting[] {
  const order = orderIn(fields);
  if (order === null) return [];
  const { stopReason } = fields;
  const readings = readingsOf(chargedOf(fields));
  // A repetition may carry the time at which it was sent: never later than the report, at worst as late.
  const endedAt = eventTime(deviceTime(fields), at);
  const code = isWhole(stopReason, 0xff) ? stopReason : undefined;
  return [
    {
      ...orderOf(order, 'ended', sourceOf(fields)),
      ...cardOf(fields, 'cardOrCode'),
      ...told<Pick<OrderSighting, 'startedAt' | 'maxPowerW' | 'endCode'>>({
        startedAt: beganAt(endedAt, readings),
        maxPowerW: divided(fields['maxPowerDeciW'], 10),
        endCode: code,
      }),
      endedAt,
      endReason: (code === undefined ? undefined : endReasonOfStop[code]) ?? 'other',
      readings,
    },
  ];
}

function orderOf(
  { port, orderNo }: Order,
  event: OrderSighting['event'],
  source: OrderSighting['source'],
) {
  const orderKey = `o:${port}:${orderNo}`;
  const order = { orderKey, socket, port, event, businessNo: null, orderNo, source };
  return { kind: 'order' as const, ...order };
}

function orderIn({ port, orderNo: field }: Fields): Order | null {
  const orderNo = wireOrder(field);
  return isWhole(port, maxPort) && orderNo !== null ? { port, orderNo } : null;
}

function stateOf(code: number): PortState {
  return portStates[code] ?? 'unknown';
}

function sourceOf({ startSource }: Fields): OrderSighting['source'] {
  return isWhole(startSource, 0xff) ? (orderSources[startSource] ?? null) : null;
}

/** The card of a charge that a card began; for other sources the field holds something else. */
function cardOf(fields: Fields, name: string): { card?: string } {
  const card = fields[name];
  const isCard = fields['startSource'] === offlineCard && typeof card === 'string';
  return isCard && cardPattern.test(card) ? { card } : {};
}

function chargedOf(fields: Fields): Measured {
  return {
    energyWh: word(fields['energyCentiKwh'], centiKwhWh),
    durationS: word(fields['durationS']),
  };
}

function temperature(raw: unknown): number | undefined {
  return isWhole(raw, 0xfe) && raw > 0 ? raw - temperatureOffset : undefined;
}

function deviceTime({ timestamp }: Fields): number | undefined {
  return isWhole(timestamp, 0xffff_ffff) ? timestamp * 1000 : undefined;
}

/** As people know it; null where the bytes name no order. */
function wireOrder(field: unknown): string | null {
  if (typeof field !== 'string' || !wireOrderPattern.test(field)) return null;
  return emptyOrderPattern.test(field) ? null : orderNoFromWire(field.toLowerCase());
}

/** The same, of a number as a client spelled it. */
function givenOrder(text: unknown): string | null {
  if (typeof text !== 'string' || !givenOrderPattern.test(text)) return null;
  return wireOrder(orderNoToWire(text));
}
