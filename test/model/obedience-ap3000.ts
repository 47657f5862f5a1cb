/** An AP3000 double socket of the model (AP3000 device protocol V8.6). */
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import type { Fields, Message } from '../../src/protocols/protocol.ts';
import { createPorts, type Obedience, type Reply, replied, unheard } from './obedience.ts';

export function createAp3000(deviceId: string, repeats: 'same' | 'state'): Obedience {
  const ports = createPorts();
  let lastMsgId = 0;
  const nextId = () => {
    lastMsgId = (lastMsgId % 0xffff) + 1;
    return lastMsgId;
  };
  const up = (message: string, msgId: number, fields: Fields) =>
    ap3000.encode({ direction: 'up', name: message, deviceId, msgId, fields });
  const reply = ({ name, msgId }: Message, fields: Fields) => up(`${name}.reply`, msgId, fields);
  const sameState = 2;
  const noCharger = 1;

  function control(message: Message, refuses: boolean): Reply {
    const { fields } = message;
    const port = ports.of(fields['port']);
    const orderNo = String(fields['orderNo']);
    const answer = (result: number) =>
      reply(message, { result, orderNo, port: fields['port'], pendingPorts: 0 });
    if (fields['action'] === 1) {
      if (refuses) return replied(false, answer(noCharger));
      if (port.charging) return replied(false, answer(sameState));
      port.charging = true;
      port.orderNo = orderNo;
      return { ...replied(true, answer(0)), reports: [power(fields['port'] as number)] };
    }
    if (refuses || !port.charging) return replied(false, answer(sameState));
    // a stop with another order's number is ignored
    if (port.orderNo !== orderNo) return unheard;
    port.charging = false;
    return replied(true, answer(0));
  }

  function power(number: number): Uint8Array {
    const { charging, orderNo } = ports.of(number);
    return up('power', nextId(), {
      port: number,
      portStatus: charging ? 1 : 0,
      durationS: 1,
      energyCentiKwh: 0,
      startSource: 1,
      powerDeciW: 1800,
      maxPowerDeciW: 1800,
      minPowerDeciW: 1800,
      avgPowerDeciW: 1800,
      orderNo,
      periodEnergyRaw: 0,
      peakPowerDeciW: 1800,
      voltageDeciV: 2280,
      currentMilliA: 790,
      ambientTempRaw: 90,
      portTempRaw: 95,
      timestamp: Math.floor(Date.now() / 1000),
      occupancyMin: 0,
    });
  }

  return {
    protocol: ap3000,
    login: () => [
      up('register', nextId(), {
        fwVersion: 640,
        ports: 2,
        virtualId: 0,
        deviceType: 0x21,
        workMode: 6,
      }),
    ],
    isLoginReply: (message) => message.name === 'register.reply',
    isAnswer: (message) => message.name.endsWith('.reply'),
    ordersOf({ name, fields }) {
      const value = Number(fields['durationSOrEnergyCentiKwh']);
      switch (name) {
        case 'charge.control':
          return fields['action'] === 1
            ? `start ${fields['port']} ${value - 1_000}`
            : `stop ${fields['port']}`;
        case 'charge.modify':
          return `modify ${fields['port']} ${value - 10_000}`;
        case 'params.basic':
          return `set ${fields['floatTimeS']}`;
        case 'params.basic.read':
          return 'read basic';
        case 'params.advanced.read':
          return 'read advanced';
        default:
          return name;
      }
    },
    obey(message, refuses) {
      switch (message.name) {
        case 'charge.control':
          return control(message, refuses);
        case 'charge.modify': {
          const does = !refuses && ports.of(message.fields['port']).charging;
          return replied(does, reply(message, { result: does ? 0 : 1 }));
        }
        case 'params.basic':
          return replied(!refuses, reply(message, { result: refuses ? 1 : 0 }));
        case 'params.basic.read':
          return replied(true, reply(message, basic));
        case 'params.advanced.read':
          return replied(true, reply(message, advanced));
        default:
          return unheard;
      }
    },
    repeat(message, first) {
      const isStart = message.name === 'charge.control' && message.fields['action'] === 1;
      if (!isStart || repeats === 'same' || !first.executed) return first;
      // A device that does not know its own message again: to it the port is busy.
      const { fields } = message;
      const { orderNo, port } = fields;
      const state = reply(message, { result: sameState, orderNo, port, pendingPorts: 0 });
      return { says: 'nack', executed: true, frames: [state], reports: [] };
    },
    finish() {
      for (const port of ports.all) port.charging = false;
    },
  };
}

/** The vendor's defaults. */
const basic = {
  unplugPowerDeciW: 3,
  unplugTimeS: 10,
  floatPercent: 20,
  floatDetectS: 1800,
  floatTimeS: 3600,
  heartbeatIntervalS: 180,
};
const advanced = {
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
};
