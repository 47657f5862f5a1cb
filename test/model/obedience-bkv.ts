/** A BKV DTU of the model with one socket of two holes (BKV V1.7). */
import { bkv } from '../../src/protocols/bkv/index.ts';
import { type KvElement, kv } from '../../src/protocols/bkv/kv.ts';
import type { Fields, Message } from '../../src/protocols/protocol.ts';
import { createPorts, type Obedience, type Reply, replied, unheard } from './obedience.ts';
import { socket } from './wishes.ts';

const ok = 1;
const failed = 0;

export function createBkv(deviceId: string): Obedience {
  const ports = createPorts();
  let hasReported = false;
  let lastBusinessNo = Number(deviceId.slice(-4)) * 7;
  const up = (message: string, msgId: number, fields: Fields) =>
    bkv.encode({ direction: 'up', name: message, deviceId, msgId, fields });

  function control(message: Message, refuses: boolean): Reply {
    const { fields, msgId } = message;
    const port = ports.of(fields['holeNo']);
    const starts = fields['switch'] === 1;
    const denied = refuses || (starts && port.charging);
    if (!denied && starts) {
      lastBusinessNo = (lastBusinessNo % 0xffff) + 1;
      port.businessNo = lastBusinessNo;
    }
    if (!denied) port.charging = starts;
    const answer = {
      result: denied ? failed : ok,
      socketNo: fields['socketNo'],
      holeNo: fields['holeNo'],
      businessNo: denied ? '0000' : hex16(port.businessNo),
    };
    return replied(!denied, up('control.reply', msgId, answer));
  }

  function hole(number: 0 | 1): Fields {
    const { charging, businessNo } = ports.all[number];
    return {
      holeNo: number,
      holeStatus: charging ? '0x90' : '0x80',
      businessNo: charging ? hex16(businessNo) : '0000',
      voltageDeciV: 2280,
      powerDeciW: charging ? 1800 : 0,
      currentMilliA: charging ? 790 : 0,
      energyWh: 0,
      chargedMin: 0,
    };
  }

  function cluster(): KvElement {
    const holes = ([0, 1] as const).map((number) => {
      const { charging, businessNo } = ports.all[number];
      return kv('hole', [
        kv('holeNo', number),
        kv('holeStatus', charging ? '90' : '80'),
        kv('businessNo', charging ? hex16(businessNo) : '0000'),
        kv('voltageDeciV', 2280),
        kv('powerDeciW', charging ? 1800 : 0),
        kv('currentMilliA', charging ? 790 : 0),
        kv('energyWh', 0),
        kv('chargedMin', 0),
      ]);
    });
    return kv('socketStatusCluster', [
      kv('socketNo', socket),
      kv('socketFwVersion', 'ffff'),
      kv('mcuTempC', 37),
      kv('rssi', 30),
      ...holes,
    ]);
  }

  return {
    protocol: bkv,
    login() {
      const heartbeat = { iccid: `898604${deviceId}`, version: '200.1.17', csq: 25 };
      const frames = [up('heartbeat', 0, heartbeat)];
      // Told once, before anything is asked: later it would pass for the answer to a query.
      if (!hasReported) frames.push(up('status.report', 0, { kv: [cluster()] }));
      hasReported = true;
      return frames;
    },
    isLoginReply: (message) => message.name === 'heartbeat.reply',
    isAnswer: (message) => message.name.endsWith('.ack') || message.name.endsWith('.reply'),
    ordersOf(message) {
      const { name, fields } = message;
      if (name === 'control') {
        const what = fields['switch'] === 1 ? 'start' : 'stop';
        return what === 'stop'
          ? `stop ${fields['holeNo']}`
          : `start ${fields['holeNo']} ${fields['minutes']}`;
      }
      if (name === 'params.set') return `set ${numbersOf(message)['maxChargeMin']}`;
      if (name === 'params.read') return 'read';
      return name === 'port.query' ? 'query' : name;
    },
    obey(message, refuses) {
      const { name, msgId } = message;
      const result = refuses ? failed : ok;
      switch (name) {
        case 'control':
          return control(message, refuses);
        case 'port.query': {
          const state = { socketNo: socket, socketFwVersion: 'ffff', tempC: 37, rssi: 30 };
          return replied(
            true,
            up('port.query.reply', msgId, { ...state, holes: [hole(0), hole(1)] }),
          );
        }
        case 'params.set': {
          const elements = [kv('socketNo', socket), kv('ack', result)];
          return replied(!refuses, up('params.set.reply', msgId, { kv: elements }));
        }
        case 'params.read': {
          const elements = [kv('socketNo', socket), kv('ack', result), kv('maxChargeMin', 600)];
          return replied(!refuses, up('params.read.reply', msgId, { kv: elements }));
        }
        default:
          return unheard;
      }
    },
    repeat: (_message, first) => first,
    finish() {
      for (const port of ports.all) port.charging = false;
    },
  };
}

function numbersOf(message: Message): Record<string, unknown> {
  const elements = (message.fields['kv'] ?? []) as KvElement[];
  return Object.fromEntries(elements.map(({ name, value }) => [name, value]));
}

function hex16(value: number): string {
  return value.toString(16).padStart(4, '0');
}
