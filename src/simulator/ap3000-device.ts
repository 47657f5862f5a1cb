/** How an AP3000 device behaves on the wire (AP3000 device protocol V8.6, host protocol V2.9). */
import { ap3000 } from '../protocols/ap3000/index.ts';
import type { Fields, Message } from '../protocols/protocol.ts';
import type { Charging } from './charging.ts';
import { nextMsgId, portOf } from './device.ts';
import type { Behaviour, Device, EndReason, Port, Reply } from './model.ts';

export type Ap3000Deps = { charging: Charging; now: () => number };

/** Ports by the kind byte of the physical id: single and double socket, 10-, 16- and 12-way. */
const portsOfKind: Readonly<Record<number, number>> = { 3: 1, 4: 2, 5: 10, 6: 16, 7: 12 };
const anyPort = 0xff;
const idle = 0;
const busy = 1;
const startedByServer = 1;
/** Results of 82 and 8A that refuse without having acted. */
const noCharger = 1;
const sameState = 2;
const noSuchPort = 4;
const notCharging = 1;
const stopReasons: Record<EndReason, number> = { ordered: 3, stopped: 7 };
/** A plausible e-bike charger: 180 W at 228 V. */
const powerDeciW = 1800;
const voltageDeciV = 2280;
const currentMilliA = 790;
const watt = 180;

/** What a device holds before anybody set anything: the vendor's defaults. */
const factoryParams: Readonly<Record<string, Fields>> = {
  'params.basic': {
    unplugPowerDeciW: 3,
    unplugTimeS: 10,
    floatPercent: 20,
    floatDetectS: 1800,
    floatTimeS: 3600,
    heartbeatIntervalS: 180,
  },
  'params.advanced': {
    dynamicOverloadDeciW: 800,
    dynamicOverloadDetectS: 30,
    dynamicOverloadStartS: 1800,
    unplugNoiseDeciW: 10,
    unplugNoiseTimeS: 300,
    secondFloatPointS: 10_800,
    secondFloatDetectS: 300,
    minPowerDeciW: 300,
    minPowerPointS: 1800,
    secondMaxPointS: 300,
    ambientAlarmC: 80,
    portAlarmC: 80,
    optoUnplugDetect: 0,
    qrLight: 1,
  },
  'params.limits': { maxChargeS: 36_000, overloadDeciW: 12_000 },
  'card.keys': { sector: 0, userKey: 'ffffffffffff', newKey: 'ffffffffffff' },
};

/** Commands after which the device, or its modem, starts anew. */
const restarts: ReadonlySet<string> = new Set(['device.restart', 'host.restart', 'modem.restart']);

export function createAp3000Behaviour({ charging, now }: Ap3000Deps): Behaviour {
  const up = (device: Device, name: string, msgId: number, fields: Fields) =>
    ap3000.encode({ direction: 'up', name, deviceId: device.deviceId, msgId, fields });

  const reply = (device: Device, { name, msgId }: Message, fields: Fields) =>
    up(device, `${name}.reply`, msgId, fields);

  const behaviour: Behaviour = {
    protocol: ap3000,
    heartbeatMs: 180_000,
    reportMs: 300_000,
    settlementRepeatMs: 1_800_000,
    hello: (deviceId) =>
      ap3000.encode({
        direction: 'up',
        name: 'iccid',
        deviceId: '',
        msgId: 0,
        fields: { iccid: `898604${Number.parseInt(deviceId, 16).toString().padStart(14, '0')}` },
      }),
    login: (device) => [register(device), up(device, 'time', nextMsgId(device), {})],
    heartbeat,
    hears(_device, { name }) {
      if (name === 'register.reply') return 'login';
      // a card swipe is answered by the business, with a command
      return name.endsWith('.reply') && name !== 'card.reply' ? 'answer' : 'command';
    },
    obey,
    repeated(device, message, earlier) {
      const { name, fields } = message;
      const isStart = name === 'charge.control' && fields['action'] === 1;
      if (!isStart || !earlier.executed || device.knobs.repeatedStart === 'same-answer')
        return null;
      const { orderNo, port } = fields;
      const more = { result: sameState, orderNo, port, pendingPorts: 0 };
      return { says: 'nack', executed: true, frames: [reply(device, message, more)] };
    },
    portReport,
    stateReports(device) {
      const active = [...(device.ports?.values() ?? [])].filter(({ charging: on }) => on);
      return active.map((port) => portReport(device, port));
    },
    settlement(device, port, why) {
      const msgId = nextMsgId(device);
      const frame = up(device, 'settlement', msgId, settlementFields(port, why));
      return { name: 'settlement', msgId, socket: 0, port: port.port, frame };
    },
    settles: (answer, settlement) =>
      answer.name === 'settlement.reply' && answer.msgId === settlement.msgId,
  };

  function portReport(device: Device, port: Port): Uint8Array {
    return up(device, 'power', nextMsgId(device), powerFields(port));
  }

  function register(device: Device): Uint8Array {
    const kind = Number.parseInt(device.deviceId.slice(0, 2), 16);
    return up(device, 'register', nextMsgId(device), {
      fwVersion: 640,
      ports: portCount(device),
      virtualId: 0,
      deviceType: kind === 3 ? 0x20 : 0x21,
      workMode: 6,
    });
  }

  function heartbeat(device: Device): Uint8Array {
    const ports = portCount(device);
    const portStatus = Array.from({ length: ports }, (_, port) =>
      device.ports?.get(port)?.charging ? busy : idle,
    );
    return up(device, 'heartbeat', nextMsgId(device), {
      voltageDeciV,
      ports,
      portStatus,
      signal: 25,
      ambientTempRaw: 90,
    });
  }

  function obey(device: Device, message: Message, refuse: boolean): Reply {
    const { name, fields } = message;
    const yes = (more: Fields = {}, then?: () => void): Reply => ({
      says: 'ack',
      executed: true,
      frames: [reply(device, message, { result: 0, ...more })],
      ...(then && { then }),
    });
    const no = (result: number, more: Fields = {}): Reply => ({
      says: 'nack',
      executed: false,
      frames: [reply(device, message, { result, ...more })],
    });
    const values = (known: Fields): Reply => ({
      says: 'ack',
      executed: true,
      frames: [reply(device, message, known)],
    });

    switch (name) {
      case 'charge.control':
        return control(device, fields, refuse, yes, no);
      case 'charge.modify': {
        const port = device.ports?.get(fields['port'] as number);
        if (refuse || !port?.charging) return no(notCharging);
        port.order = { ...port.order, ...fields };
        return yes({}, () => charging.prolonged(device, port, durationOf(port.order)));
      }
      case 'cabinet.stop': {
        const more = { orderNo: fields['orderNo'] };
        if (refuse) return no(1, more);
        const port = portOf(device, 0, fields['port'] as number);
        return yes(more, () => charging.ended(device, port, 'stopped'));
      }
      case 'port.query':
        // 81 has no answer of its own: it makes the device register and beat
        return {
          says: ap3000.commands['port.query']?.ack === 'reply' ? 'ack' : 'nothing',
          executed: true,
          frames: [register(device), heartbeat(device)],
        };
      case 'params.basic':
      case 'params.advanced':
      case 'params.limits':
      case 'card.keys':
        if (refuse) return no(1);
        device.params ??= new Map();
        device.params.set(name, fields);
        return yes();
      case 'params.basic.read':
      case 'params.advanced.read':
      case 'params.limits.read':
      case 'card.keys.read': {
        const group = name.slice(0, -'.read'.length);
        return values(device.params?.get(group) ?? factoryParams[group]!);
      }
      case 'memory.read':
        return refuse
          ? no(1, { data: '' })
          : yes({ data: '00'.repeat(fields['length'] as number) });
      case 'firmware.sub-device':
      case 'firmware.power-board':
      case 'firmware.host':
      case 'firmware.device-legacy':
      case 'firmware.host-legacy':
      case 'firmware.host-packet': {
        const index = fields['index'] ?? 0;
        return refuse ? no(5, { index }) : yes({ index });
      }
      case 'card.reply':
      case 'upgrade.auto':
        return { says: 'nothing', executed: true, frames: [] };
      case 'unknown':
        return { says: 'nothing', executed: false, frames: [] };
      default: {
        if (refuse) return no(1);
        return yes({}, restarts.has(name) ? () => device.link.drop('device') : undefined);
      }
    }
  }

  function control(
    device: Device,
    fields: Fields,
    refuse: boolean,
    yes: (more: Fields, then?: () => void) => Reply,
    no: (result: number, more: Fields) => Reply,
  ): Reply {
    const orderNo = fields['orderNo'] as string;
    const count = portCount(device);
    const wanted = fields['port'] as number;
    const number = wanted === anyPort ? firstIdle(device, count) : wanted;
    const more = { orderNo, port: number, pendingPorts: 0 };
    if (number >= count) return no(noSuchPort, more);
    const port = portOf(device, 0, number);
    if (fields['action'] === 1) {
      if (refuse) return no(noCharger, more);
      if (port.charging) return no(sameState, more);
      port.orderNo = orderNo;
      port.order = fields;
      charging.begun(device, port, durationOf(fields));
      return yes(more);
    }
    if (refuse || !port.charging) return no(sameState, more);
    // a stop with another order's number is ignored
    if (port.orderNo !== orderNo) return { says: 'nothing', executed: false, frames: [] };
    charging.ended(device, port, 'stopped');
    return yes(more);
  }

  function powerFields(port: Port): Fields {
    const durationS = durationSoFar(port);
    return {
      port: port.port,
      portStatus: port.charging ? busy : idle,
      durationS,
      energyCentiKwh: energyCentiKwh(durationS),
      startSource: startedByServer,
      powerDeciW: port.charging ? powerDeciW : 0,
      maxPowerDeciW: powerDeciW,
      minPowerDeciW: powerDeciW,
      avgPowerDeciW: powerDeciW,
      orderNo: port.orderNo,
      periodEnergyRaw: 0,
      peakPowerDeciW: powerDeciW,
      voltageDeciV,
      currentMilliA: port.charging ? currentMilliA : 0,
      ambientTempRaw: 90,
      portTempRaw: 95,
      timestamp: Math.floor(now() / 1000),
      occupancyMin: Math.min(0xffff, Math.floor(durationS / 60)),
    };
  }

  function settlementFields(port: Port, why: EndReason): Fields {
    const durationS = durationSoFar(port);
    return {
      durationS,
      maxPowerDeciW: powerDeciW,
      energyCentiKwh: energyCentiKwh(durationS),
      port: port.port,
      startSource: startedByServer,
      cardOrCode: '00000000',
      stopReason: stopReasons[why],
      orderNo: port.orderNo,
      secondMaxPowerDeciW: powerDeciW,
      timestamp: Math.floor(now() / 1000),
      occupancyMin: Math.min(0xffff, Math.floor(durationS / 60)),
    };
  }

  const durationSoFar = (port: Port) =>
    Math.min(0xffff, Math.max(0, Math.floor((now() - port.startedAt) / 1000)));

  return behaviour;
}

function portCount({ deviceId }: Device): number {
  return portsOfKind[Number.parseInt(deviceId.slice(0, 2), 16)] ?? 2;
}

function firstIdle(device: Device, count: number): number {
  for (let port = 0; port < count; port += 1) {
    if (!device.ports?.get(port)?.charging) return port;
  }
  return 0;
}

/** Until the order is filled at the power that this device always draws; null: until full, or stopped. */
function durationOf(order: Fields): number | null {
  const value = order['durationSOrEnergyCentiKwh'] as number;
  if (value === 0) return null;
  return order['rateMode'] === 2 ? (value * 10 * 3_600_000) / watt : value * 1000;
}

function energyCentiKwh(durationS: number): number {
  return Math.min(0xffff, Math.floor((durationS * watt) / 3600 / 10));
}
