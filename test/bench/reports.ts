/** What devices say while they charge, as a gateway puts it into the uplink stream: real frames and their fields. */
import type { Report } from '../../src/bridge/gateway-bridge.ts';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { kv } from '../../src/protocols/bkv/kv.ts';
import { toHex } from '../../src/protocols/bytes.ts';
import type { Decoder, Fields, Protocol } from '../../src/protocols/protocol.ts';

export type ReportSource = {
  /** The next report of the next device. Its charge is on the way, or ends with it. */
  next(at: number): Report;
  /** Order keys of the charges that have ended, as `device|key`, with the energy that their ends told. */
  ended: ReadonlyMap<string, number>;
};

/**
 * The round of a device: four heartbeats, five reports of the charge that runs, and its end; then the next
 * charge. So 40 % are heartbeats, 50 % states and 10 % money.
 */
const round = [
  'heartbeat',
  'state',
  'heartbeat',
  'state',
  'state',
  'heartbeat',
  'state',
  'state',
  'heartbeat',
  'end',
] as const;

const watt = 180;
const minutesPerStep = 10;
const deciW = watt * 10;
const voltageDeciV = 2280;
const currentMilliA = 790;
const socketNo = 1;
/** A BKV business number has 16 bits, and 0 is none. */
const maxBusinessNo = 0xffff;

type Speaker = { deviceId: string; protocol: Protocol; step: number; charge: number };

/** The devices take turns, each at another place of its round than its neighbours. */
export function createReportSource(deviceIds: readonly string[]): ReportSource {
  const speakers = deviceIds.map((deviceId, n): Speaker => {
    const protocol = deviceId.length === 14 ? bkv : ap3000;
    return { deviceId, protocol, step: n % round.length, charge: 1 };
  });
  const decoders = new Map<Protocol, Decoder>([bkv, ap3000].map((one) => [one, one.decoder('up')]));
  const ended = new Map<string, number>();
  let turn = 0;

  function next(at: number): Report {
    const speaker = speakers[turn++ % speakers.length]!;
    const { deviceId, protocol, step, charge } = speaker;
    const kind = round[step]!;
    const say = protocol === bkv ? bkvSays : ap3000Says;
    const { name, fields } = say(kind, { step, charge });
    const msgId = protocol === bkv ? 0 : (charge * round.length + step) % 0xffff;
    const frame = protocol.encode({ direction: 'up', name, deviceId, msgId, fields });
    const [decoded] = decoders.get(protocol)!.push(frame);
    if (decoded?.kind !== 'message') throw new Error(`${name} of ${deviceId} was not decoded`);
    const { message } = decoded;
    if (kind === 'end') {
      ended.set(`${deviceId}|${keyOf(protocol, charge)}`, energyOf(step));
      speaker.charge = (charge % maxBusinessNo) + 1;
    }
    speaker.step = (step + 1) % round.length;
    return {
      deviceId,
      protocol: protocol.name,
      name: message.name,
      weight: protocol.weight(message),
      at,
      msgId: message.msgId,
      fields: message.fields,
      frame: toHex(message.frame),
    };
  }

  return { next, ended };
}

type Moment = { step: number; charge: number };
type Said = { name: string; fields: Fields };

function bkvSays(kind: (typeof round)[number], { step, charge }: Moment): Said {
  if (kind === 'heartbeat') {
    const iccid = '89860463112070319417';
    return { name: 'heartbeat', fields: { iccid, version: '200.1.17', csq: 20 + (charge % 12) } };
  }
  const businessNo = hex16(charge);
  const chargedMin = step * minutesPerStep;
  if (kind === 'end') {
    const where = { socketNo, socketFwVersion: '5036', tempC: 37, rssi: 30, holeNo: 0 };
    const measured = { powerDeciW: deciW, currentMilliA, energyWh: energyOf(step), chargedMin };
    return {
      name: 'charge.end',
      fields: { ...where, holeStatus: '0xb0', businessNo, ...measured },
    };
  }
  const hole = (holeNo: number, charging: boolean) =>
    kv('hole', [
      kv('holeNo', holeNo),
      kv('holeStatus', charging ? '90' : '80'),
      kv('businessNo', charging ? businessNo : '0000'),
      kv('voltageDeciV', voltageDeciV),
      kv('powerDeciW', charging ? deciW : 0),
      kv('currentMilliA', charging ? currentMilliA : 0),
      kv('energyWh', charging ? energyOf(step) : 0),
      kv('chargedMin', charging ? chargedMin : 0),
    ]);
  const cluster = kv('socketStatusCluster', [
    kv('socketNo', socketNo),
    kv('socketFwVersion', '5036'),
    kv('mcuTempC', 37),
    kv('rssi', 30),
    hole(0, true),
    hole(1, false),
  ]);
  return { name: 'status.report', fields: { kv: [cluster] } };
}

function ap3000Says(kind: (typeof round)[number], { step, charge }: Moment): Said {
  if (kind === 'heartbeat') {
    const ports = { ports: 2, portStatus: [1, 0] };
    return {
      name: 'heartbeat',
      fields: { voltageDeciV, ...ports, signal: 25, ambientTempRaw: 90 },
    };
  }
  const charged = {
    port: 0,
    durationS: step * minutesPerStep * 60,
    energyCentiKwh: energyOf(step) / 10,
    startSource: 1,
    maxPowerDeciW: deciW,
    orderNo: orderNoOf(charge),
  };
  if (kind === 'end') {
    const end = { cardOrCode: '00000000', stopReason: 1, secondMaxPowerDeciW: deciW };
    return { name: 'settlement', fields: { ...charged, ...end } };
  }
  const powers = { powerDeciW: deciW, minPowerDeciW: deciW, avgPowerDeciW: deciW };
  const more = { periodEnergyRaw: 0, peakPowerDeciW: deciW, voltageDeciV, currentMilliA };
  return { name: 'power', fields: { ...charged, portStatus: 1, ...powers, ...more } };
}

/** Tens, since AP3000 counts 10 Wh. */
function energyOf(step: number): number {
  return (step * minutesPerStep * watt) / 60;
}

function keyOf(protocol: Protocol, charge: number): string {
  return protocol === bkv ? `b:${socketNo}:0:${charge}` : `o:0:${orderNoOf(charge)}`;
}

function orderNoOf(charge: number): string {
  return `2026${charge.toString().padStart(28, '0')}`;
}

function hex16(value: number): string {
  return value.toString(16).padStart(4, '0');
}

/** Half of each protocol, and none that a seeded database has. */
export function mixedDeviceIds(count: number): string[] {
  return Array.from({ length: count }, (_, n) =>
    n % 2 === 0 ? `82${String(n).padStart(12, '0')}` : `04${n.toString(16).padStart(6, '0')}`,
  );
}
