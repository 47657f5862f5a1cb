/** How a BKV DTU and the sockets behind it behave on the wire (BKV V1.7). */
import { bkv } from '../protocols/bkv/index.ts';
import { type KvElement, kv } from '../protocols/bkv/kv.ts';
import type { Fields, Message } from '../protocols/protocol.ts';
import type { Charging } from './charging.ts';
import { nextBusinessNo, portOf } from './device.ts';
import type { Behaviour, Device, EndReason, Port, Reply } from './model.ts';

export type BkvDeps = { charging: Charging; now: () => number };

const ok = 1;
const failed = 0;
const holes = [0, 1] as const;
const firstSocket = 1;
/** Hole status: online and idle, online and charging, and the same at the end of an ordered time. */
const idleStatus = 0x80;
const chargingStatus = 0x90;
const endStatus = 0xb0;
const noBusinessNo = '0000';
const firmware = 'ffff';
const tempC = 37;
const rssi = 0x1e;
/** A plausible e-bike charger: 180 W at 228 V. */
const powerDeciW = 1800;
const voltageDeciV = 2280;
const currentMilliA = 790;
const watt = 180;

/** The answers to what a device reports by itself; all else is a command. */
const answers: ReadonlySet<string> = new Set([
  'charge.end.ack',
  'fee.end.ack',
  'exception.report.ack',
  'status.report.ack',
]);

/** What a socket holds before anybody set anything. */
const factoryParams: Readonly<Record<string, number>> = {
  fullPowerThresholdDeciW: 100,
  tricklePercent: 10,
  fullChargeDelayS: 7200,
  nullPowerThresholdDeciW: 8,
  nullChargeDelayS: 120,
  maxChargeMin: 600,
  highTempThresholdC: 85,
  powerLimitDeciW: 7000,
  overCurrentLimitMilliA: 5000,
  buttonBaseAmount: 0,
  antiPulseTime: 45,
};

export function createBkvBehaviour({ charging, now }: BkvDeps): Behaviour {
  const up = (device: Device, name: string, msgId: number, fields: Fields) =>
    bkv.encode({ direction: 'up', name, deviceId: device.deviceId, msgId, fields });

  const behaviour: Behaviour = {
    protocol: bkv,
    heartbeatMs: 60_000,
    reportMs: 300_000,
    settlementRepeatMs: 10_000,
    hello: () => null,
    login: (device) => [heartbeat(device)],
    heartbeat,
    hears(device, { name }) {
      if (name === 'heartbeat.reply') return device.loggedIn ? 'answer' : 'login';
      return answers.has(name) ? 'answer' : 'command';
    },
    obey,
    // no vendor document has another answer for it
    repeated: () => null,
    portReport: (device, port) => statusReport(device, port.socket),
    stateReports(device) {
      const sockets = new Set([...(device.ports?.values() ?? [])].map(({ socket }) => socket));
      const spokenOf = sockets.size > 0 ? [...sockets] : [firstSocket];
      return spokenOf.map((socket) => statusReport(device, socket));
    },
    settlement(device, port, why) {
      const name = endNames[String(port.order['kind'])] ?? 'charge.end';
      const { socket } = port;
      return { name, msgId: 0, socket, port: port.port, frame: endReport(device, name, port, why) };
    },
    settles(answer, settlement) {
      if (answer.name === 'fee.end.ack') return settlement.name === 'fee.end';
      // the acknowledgement names the socket alone
      const forOthers = answer.name === 'charge.end.ack' && settlement.name !== 'fee.end';
      return forOthers && answer.fields['socketNo'] === settlement.socket;
    },
  };

  function statusReport(device: Device, socket: number): Uint8Array {
    return up(device, 'status.report', 0, { kv: [clusterOf(device, socket)] });
  }

  function heartbeat(device: Device): Uint8Array {
    const iccid = `898604${device.deviceId.padStart(14, '0')}`;
    return up(device, 'heartbeat', 0, { iccid, version: '200.1.17', csq: 25 });
  }

  function obey(device: Device, message: Message, refuse: boolean): Reply {
    const { name, msgId, fields } = message;
    const result = refuse ? failed : ok;
    const answer = (frame: Uint8Array, then?: () => void): Reply => ({
      says: refuse ? 'nack' : 'ack',
      executed: !refuse,
      frames: [frame],
      ...(then && { then }),
    });
    /** A reply of the same name with these fields. */
    const reply = (more: Fields) => answer(up(device, `${name}.reply`, msgId, more));
    const { socketNo, holeNo } = fields;

    switch (name) {
      case 'control':
      case 'tiers.start':
      case 'card.order':
      case 'fee.start':
        return control(device, message, refuse);
      case 'port.query': {
        const socket = socketNo as number;
        const states = holes.map((hole) => holeState(device, socket, hole));
        const seen = { socketNo: socket, socketFwVersion: firmware, tempC, rssi, holes: states };
        return {
          says: 'ack',
          executed: true,
          frames: [up(device, 'port.query.reply', msgId, seen)],
        };
      }
      case 'network.refresh':
      case 'network.add':
      case 'network.delete':
        return reply({ result });
      case 'voice.window':
        return reply({ socketNo, holeNo, result });
      case 'params.set': {
        const set = numbersOf(message);
        const key = `socket ${set['socketNo']}`;
        if (!refuse) {
          device.params ??= new Map();
          device.params.set(key, { ...device.params.get(key), ...set });
        }
        return reply({ kv: [kv('socketNo', set['socketNo'] ?? 0), kv('ack', result)] });
      }
      case 'params.read': {
        const socket = numbersOf(message)['socketNo'] ?? 0;
        const set = refuse ? {} : { ...factoryParams, ...device.params?.get(`socket ${socket}`) };
        const values = Object.entries(set).filter(([key]) => key in factoryParams);
        return reply({
          kv: [
            kv('socketNo', socket),
            kv('ack', result),
            ...values.map(([key, value]) => kv(key, value as number)),
          ],
        });
      }
      // a firmware order and a card's balance have no documented answer
      case 'ota':
      case 'card.balance':
        return { says: 'nothing', executed: true, frames: [] };
      default:
        return { says: 'nothing', executed: false, frames: [] };
    }
  }

  /** Starts and stops of every kind: they differ in the layout of order and answer alone. */
  function control(device: Device, message: Message, refuse: boolean): Reply {
    const order = orderOf(message);
    const port = portOf(device, order.socketNo, order.holeNo);
    const starts = order.switch === 1;
    const denied = refuse || (starts && port.charging);
    if (!denied && starts) {
      port.businessNo = order.businessNo ?? nextBusinessNo(device);
      port.order = order;
      charging.begun(device, port, order.durationMs);
    }
    if (!denied && !starts) charging.ended(device, port, 'stopped');
    const result = denied ? failed : ok;
    const businessNo = denied ? noBusinessNo : hex16(port.businessNo);
    const { socketNo, holeNo } = order;
    const fields: Fields =
      order.kind === 'fee'
        ? {
            kv: [
              kv('socketNo', socketNo),
              kv('holeNo', holeNo),
              kv('businessNo', businessNo),
              kv('ack', result),
            ],
          }
        : order.kind === 'card'
          ? { socketNo, holeNo, result }
          : { result, socketNo, holeNo, businessNo };
    return {
      says: denied ? 'nack' : 'ack',
      executed: !denied,
      frames: [up(device, `${message.name}.reply`, message.msgId, fields)],
    };
  }

  function holeState(device: Device, socket: number, hole: number): Fields {
    const port = device.ports?.get(socket * 256 + hole);
    const active = port?.charging === true;
    const minutes = active ? minutesSince(port.startedAt) : 0;
    return {
      holeNo: hole,
      holeStatus: statusHex(active ? chargingStatus : idleStatus),
      businessNo: active ? hex16(port.businessNo) : noBusinessNo,
      voltageDeciV,
      powerDeciW: active ? powerDeciW : 0,
      currentMilliA: active ? currentMilliA : 0,
      energyWh: energyWh(minutes),
      chargedMin: minutes,
    };
  }

  function clusterOf(device: Device, socket: number): KvElement {
    return kv('socketStatusCluster', [
      kv('socketNo', socket),
      kv('socketFwVersion', firmware),
      kv('mcuTempC', tempC),
      kv('rssi', rssi),
      ...holes.map((hole) => {
        const state = holeState(device, socket, hole);
        return kv('hole', [
          kv('holeNo', hole),
          kv('holeStatus', bare(state['holeStatus'])),
          kv('businessNo', state['businessNo'] as string),
          kv('voltageDeciV', voltageDeciV),
          kv('powerDeciW', state['powerDeciW'] as number),
          kv('currentMilliA', state['currentMilliA'] as number),
          kv('energyWh', state['energyWh'] as number),
          kv('chargedMin', state['chargedMin'] as number),
        ]);
      }),
    ]);
  }

  function endReport(device: Device, name: string, port: Port, why: EndReason): Uint8Array {
    const chargedMin = minutesSince(port.startedAt);
    const holeStatus = statusHex(why === 'ordered' ? endStatus : idleStatus);
    const businessNo = hex16(port.businessNo);
    if (name === 'fee.end')
      return up(device, name, 0, { kv: feeEnd(port, holeStatus, chargedMin) });
    const end = {
      socketNo: port.socket,
      socketFwVersion: firmware,
      tempC,
      rssi,
      holeNo: port.port,
      holeStatus,
      businessNo,
      powerDeciW,
      currentMilliA,
      energyWh: energyWh(chargedMin),
      chargedMin,
    };
    const tiers = { amountCent: 0, settlePowerDeciW: 0, tierMinutes: [] };
    if (name === 'tiers.end') {
      const endTime = localTime(now());
      return up(device, name, 0, { ...end, endTime, endReason: 2, ...tiers });
    }
    if (name === 'card.end') {
      const card = { cardNo: '000000000000', cardType: 0, billingMode: 1 };
      return up(device, name, 0, { ...end, ...card, ...tiers });
    }
    return up(device, name, 0, end);
  }

  function feeEnd(port: Port, holeStatus: string, chargedMin: number): KvElement[] {
    return [
      kv('mcuTempC', tempC),
      kv('socketNo', port.socket),
      kv('holeNo', port.port),
      kv('holeStatus', bare(holeStatus)),
      kv('businessNo', hex16(port.businessNo)),
      kv('powerDeciW', powerDeciW),
      kv('currentMilliA', currentMilliA),
      kv('energyWh', energyWh(chargedMin)),
      kv('chargedMin', chargedMin),
      kv('endTime', localTime(now()).replace(/\D/g, '')),
      kv('endReason', 8),
      kv('chargeMode', 4),
      kv('electricityFee', 0),
      kv('serviceFee', 0),
      kv('tierCount', 0),
    ];
  }

  const minutesSince = (startedAt: number) =>
    Math.min(0xffff, Math.max(0, Math.floor((now() - startedAt) / 60_000)));

  return behaviour;
}

type Order = {
  kind: 'time' | 'tiers' | 'fee' | 'card';
  socketNo: number;
  holeNo: number;
  switch: number;
  businessNo?: number;
  /** null: until it is stopped. */
  durationMs: number | null;
};

const endNames: Readonly<Record<string, string>> = {
  time: 'charge.end',
  tiers: 'tiers.end',
  fee: 'fee.end',
  card: 'card.end',
};

function orderOf(message: Message): Order {
  if (message.name === 'fee.start') {
    const { socketNo = 0, holeNo = 0, switch: on = 0 } = numbersOf(message);
    return { kind: 'fee', socketNo, holeNo, switch: on, durationMs: null };
  }
  const { fields } = message;
  const where = {
    socketNo: fields['socketNo'] as number,
    holeNo: fields['holeNo'] as number,
    switch: fields['switch'] as number,
  };
  if (message.name === 'tiers.start') {
    const [first] = fields['tiers'] as { minutes: number }[];
    return { kind: 'tiers', ...where, durationMs: first ? first.minutes * 60_000 : null };
  }
  const durationMs = durationOf(fields);
  if (message.name !== 'card.order') return { kind: 'time', ...where, durationMs };
  const businessNo = Number.parseInt(fields['businessNo'] as string, 16);
  return { kind: 'card', ...where, businessNo, durationMs };
}

/** Until the order is filled at the power that this device always draws; minutes bound an order by energy. */
function durationOf(fields: Fields): number | null {
  const minutes = fields['minutes'] as number;
  const energy = fields['energyWh'] as number;
  const byTime = minutes > 0 ? minutes * 60_000 : null;
  if (fields['mode'] !== 0 || energy === 0) return byTime;
  const byEnergy = (energy * 3_600_000) / watt;
  return byTime === null ? byEnergy : Math.min(byTime, byEnergy);
}

/** The numbers of a key-value message, by name. */
function numbersOf(message: Message): Record<string, number> {
  const elements = (message.fields['kv'] ?? []) as KvElement[];
  const numbers: Record<string, number> = {};
  for (const { name, value } of elements) if (typeof value === 'number') numbers[name] = value;
  return numbers;
}

function energyWh(minutes: number): number {
  return Math.min(0xffff, Math.floor((minutes * watt) / 60));
}

function hex16(value: number): string {
  return value.toString(16).padStart(4, '0');
}

function statusHex(status: number): string {
  return `0x${status.toString(16)}`;
}

/** Key-value elements carry bits without the mark. */
function bare(status: unknown): string {
  return String(status).replace('0x', '');
}

/** The devices live at UTC+8. */
function localTime(ms: number): string {
  return new Date(ms + 8 * 3_600_000).toISOString().slice(0, 19).replace('T', ' ');
}
