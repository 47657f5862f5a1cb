/**
 * Every documented message (AP3000 device protocol V8.6, host protocol V2.9). Each row is one command
 * byte: who asks, what the request carries, what the answer carries. The answer of a row `x` is the
 * message `x.reply`, and it travels the other way.
 *
 * Units, where the vendor states no other: duration s, power 0.1 W, voltage 0.1 V, current 1 mA, energy
 * 0.01 kWh, money cents, dates Unix seconds, temperature raw − 65 = °C with 0 for no sensor.
 */
import {
  ascii,
  counted,
  deviceIds,
  groups,
  hex,
  type Layout,
  layout,
  perPort,
  physicalId,
  rest,
  u8,
  u16,
  u32,
} from './layout.ts';

export type Row = {
  cmd: number;
  name: string;
  from: 'device' | 'server';
  request: Layout;
  /** Null: no answer is defined. */
  reply: Layout | null;
};

const nothing = layout({});
const result = layout({ result: u8 });
const time = layout({ unixTime: u32 });
const orderNo = hex(16);
const firmwareReply = layout({ result: u8, index: u16 });
const firmwarePacket = (bytes: number) => layout({ total: u16, index: u16, data: hex(bytes) });

const finished = {
  durationS: u16,
  maxPowerDeciW: u16,
  energyCentiKwh: u16,
  port: u8,
  startSource: u8,
  cardOrCode: hex(4),
  stopReason: u8,
  orderNo,
};

const basicParams = layout({
  unplugPowerDeciW: u16,
  unplugTimeS: u16,
  floatPercent: u8,
  floatDetectS: u16,
  floatTimeS: u16,
  heartbeatIntervalS: u16,
});

const advancedParams = layout({
  dynamicOverloadDeciW: u16,
  dynamicOverloadDetectS: u16,
  dynamicOverloadStartS: u16,
  unplugNoiseDeciW: u8,
  unplugNoiseTimeS: u16,
  secondFloatPointS: u16,
  secondFloatDetectS: u16,
  minPowerDeciW: u16,
  minPowerPointS: u16,
  secondMaxPointS: u16,
  // the vendor's default of 80 makes sense only as plain °C, without the usual offset of 65
  ambientAlarmC: u8,
  portAlarmC: u8,
  /** 0 on */
  optoUnplugDetect: u8,
  qrLight: u8,
});

const limitParams = layout(
  { maxChargeS: u16, overloadDeciW: u16 },
  { overVoltageDeciV: u16, underVoltageDeciV: u16 },
);

const cardKeys = layout({ sector: u8, userKey: hex(6), newKey: hex(6) });

const fromDevice: Omit<Row, 'from'>[] = [
  {
    cmd: 0x01,
    name: 'heartbeat.legacy',
    request: layout({
      fwVersion: u16,
      voltageDeciV: u16,
      ports: u8,
      portStatus: perPort(1, 'ports'),
      powerDeciW: perPort(2, 'ports'),
      peakDeciW: perPort(2, 'ports'),
      virtualId: u8,
      signal: u8,
      deviceType: u8,
      ambientTempRaw: u8,
      workMode: u8,
    }),
    reply: result,
  },
  {
    cmd: 0x02,
    name: 'card',
    request: layout(
      { cardId: hex(4), cardType: u8, port: u8, cardBalanceCent: u16 },
      { timestamp: u32, cardNumber2: counted },
    ),
    reply: layout({
      cardId: hex(4),
      accountState: u8,
      rateMode: u8,
      balanceOrExpiry: u32,
      port: u8,
    }),
  },
  {
    cmd: 0x03,
    name: 'settlement',
    request: layout(finished, { secondMaxPowerDeciW: u16, timestamp: u32, occupancyMin: u16 }),
    reply: result,
  },
  {
    cmd: 0x04,
    name: 'order.confirm',
    request: layout({ port: u8, startSource: u8, cardId: hex(4), durationS: u16, orderNo }),
    reply: layout({ port: u8, result: u8 }),
  },
  {
    cmd: 0x05,
    name: 'upgrade.request',
    request: layout({ deviceType: u8, fwVersion: u16, packageType: hex(4) }),
    reply: null,
  },
  {
    cmd: 0x06,
    name: 'power',
    request: layout(
      {
        port: u8,
        portStatus: u8,
        durationS: u16,
        energyCentiKwh: u16,
        startSource: u8,
        powerDeciW: u16,
        maxPowerDeciW: u16,
        minPowerDeciW: u16,
        avgPowerDeciW: u16,
        orderNo,
        /** ÷ 4800 = kWh */
        periodEnergyRaw: u16,
      },
      {
        peakPowerDeciW: u16,
        voltageDeciV: u16,
        currentMilliA: u16,
        ambientTempRaw: u8,
        portTempRaw: u8,
        timestamp: u32,
        occupancyMin: u16,
      },
    ),
    reply: null,
  },
  {
    cmd: 0x11,
    name: 'host.heartbeat',
    request: layout(
      {
        fwVersion: u16,
        rtcModule: u8,
        hostTime: u32,
        signal: u8,
        moduleType: u8,
        iccid: ascii(20),
        hostType: u8,
        freq: u16,
      },
      { imei: ascii(15), moduleVersion: ascii(24) },
    ),
    reply: null,
  },
  { cmd: 0x12, name: 'host.time', request: nothing, reply: time },
  { cmd: 0x15, name: 'host.upgrade-request', request: nothing, reply: result },
  {
    cmd: 0x17,
    name: 'host.status',
    request: layout({
      breaker: u8,
      tempRaw: u8,
      voltageDeciV: u16,
      /** 0.01 A, unlike elsewhere */
      currentCentiA: u16,
      energyCentiKwh: u32,
      meterCurrentCentiA: u16,
      meterEnergyCentiKwh: u32,
      smoke: u8,
      alarmRelay: u8,
      leakMilliA: u8,
      liveTempRaw: u8,
      neutralTempRaw: u8,
      lock: u8,
      breakerKind: u8,
    }),
    reply: null,
  },
  {
    cmd: 0x20,
    name: 'register',
    request: layout(
      { fwVersion: u16, ports: u8, virtualId: u8, deviceType: u8, workMode: u8 },
      { powerBoardVersion: u16 },
    ),
    reply: result,
  },
  {
    cmd: 0x21,
    name: 'heartbeat',
    request: layout({
      voltageDeciV: u16,
      ports: u8,
      portStatus: perPort(1, 'ports'),
      signal: u8,
      ambientTempRaw: u8,
    }),
    reply: result,
  },
  { cmd: 0x22, name: 'time', request: nothing, reply: time },
  {
    cmd: 0x35,
    name: 'host.sub-devices',
    request: layout({
      subDevices: groups(
        8,
        layout({ deviceType: u8, reserved: u8, lowestVersion: u16, deviceId: physicalId }),
      ),
    }),
    reply: null,
  },
  { cmd: 0x3b, name: 'host.fsk-request', request: layout({ freq: u16 }), reply: null },
  {
    cmd: 0x41,
    name: 'cabinet.heartbeat',
    // four bits of doors and four of fans; no sample shows which half is which
    request: layout({ ports: u8, doorsAndFans: u8 }),
    reply: null,
  },
  {
    cmd: 0x42,
    name: 'cabinet.alarm',
    request: layout({ alarmType: u8, port: u8, trigger: u8 }),
    reply: null,
  },
  { cmd: 0x43, name: 'cabinet.finished', request: layout(finished), reply: null },
  {
    cmd: 0x44,
    name: 'cabinet.port',
    request: layout({ pushType: u8, port: u8, orderNo }),
    reply: null,
  },
];

const fromServer: Omit<Row, 'from'>[] = [
  { cmd: 0x31, name: 'host.restart', request: nothing, reply: result },
  { cmd: 0x32, name: 'modem.restart', request: nothing, reply: result },
  { cmd: 0x33, name: 'host.clear-upgrade', request: nothing, reply: result },
  {
    cmd: 0x34,
    name: 'server.set',
    request: layout({ port: u16, moduleType: u8, socketB: u8, host: ascii(46) }),
    reply: result,
  },
  {
    // the vendor's table of this request prints 98 as its command byte, a slip
    cmd: 0x3a,
    name: 'host.fsk',
    request: layout({ freq: u16, reserved: hex(3), deviceIds }),
    reply: result,
  },
  {
    cmd: 0x72,
    name: 'cabinet.stop',
    request: layout({ port: u8, orderNo }),
    reply: layout({ result: u8, orderNo }),
  },
  { cmd: 0x81, name: 'port.query', request: nothing, reply: null },
  {
    cmd: 0x82,
    name: 'charge.control',
    request: layout(
      {
        /** 0 time, 1 monthly, 2 energy, 3 count */
        rateMode: u8,
        balanceOrExpiry: u32,
        port: u8,
        /** 1 start, 0 stop */
        action: u8,
        durationSOrEnergyCentiKwh: u16,
        orderNo,
      },
      {
        maxChargeS: u16,
        overloadDeciW: u16,
        qrLight: u8,
        longChargeMode: u8,
        extraFloatS: u16,
        skipShortCheck: u8,
        ignoreUnplug: u8,
        forceFullStop: u8,
        /** 1 W, unlike elsewhere */
        fullPowerW: u8,
        fullPowerMaxMin: u8,
      },
    ),
    reply: layout({ result: u8 }, { orderNo, port: u8, pendingPorts: u16 }),
  },
  { cmd: 0x83, name: 'params.basic', request: basicParams, reply: result },
  { cmd: 0x84, name: 'params.advanced', request: advancedParams, reply: result },
  { cmd: 0x85, name: 'params.limits', request: limitParams, reply: result },
  { cmd: 0x86, name: 'card.keys', request: cardKeys, reply: result },
  { cmd: 0x87, name: 'device.restart', request: nothing, reply: result },
  { cmd: 0x88, name: 'device.clear', request: nothing, reply: result },
  {
    cmd: 0x89,
    name: 'voice.play',
    request: layout({ interrupt: u8, ids: counted }),
    reply: result,
  },
  {
    cmd: 0x8a,
    name: 'charge.modify',
    request: layout({ rateMode: u8, port: u8, durationSOrEnergyCentiKwh: u16 }),
    reply: result,
  },
  {
    cmd: 0x8b,
    name: 'memory.read',
    request: layout({ address: u16, length: u8 }),
    reply: layout({ result: u8, data: rest }),
  },
  {
    cmd: 0x8c,
    name: 'memory.write',
    request: layout({ address: u16, data: counted }),
    reply: result,
  },
  { cmd: 0x8d, name: 'workmode.set', request: layout({ workMode: u8 }), reply: result },
  {
    cmd: 0x8e,
    name: 'qr.set',
    request: layout({ screen: u8, reserved: hex(3), text: ascii(72) }),
    reply: result,
  },
  { cmd: 0x8f, name: 'card.mode', request: layout({ cardMode: u8 }), reply: result },
  { cmd: 0x90, name: 'params.basic.read', request: nothing, reply: basicParams },
  { cmd: 0x91, name: 'params.advanced.read', request: nothing, reply: advancedParams },
  { cmd: 0x92, name: 'params.limits.read', request: nothing, reply: limitParams },
  { cmd: 0x93, name: 'card.keys.read', request: nothing, reply: cardKeys },
  { cmd: 0x95, name: 'qr.show', request: layout({ text: ascii(200) }), reply: result },
  { cmd: 0x96, name: 'device.locate', request: layout({ seconds: u8 }), reply: result },
  { cmd: 0x97, name: 'device.mute', request: layout({ mute: u8 }), reply: result },
  {
    cmd: 0x98,
    name: 'device.function',
    request: layout({ function: u8, port: u8 }),
    reply: result,
  },
  {
    cmd: 0xe0,
    name: 'firmware.sub-device',
    request: firmwarePacket(200),
    reply: firmwareReply,
  },
  {
    cmd: 0xe1,
    name: 'firmware.power-board',
    request: firmwarePacket(200),
    reply: firmwareReply,
  },
  { cmd: 0xe2, name: 'firmware.host', request: firmwarePacket(200), reply: firmwareReply },
  // the vendor shows the request alone
  { cmd: 0xe4, name: 'upgrade.auto', request: nothing, reply: null },
  {
    cmd: 0xf8,
    name: 'firmware.device-legacy',
    request: firmwarePacket(256),
    reply: firmwareReply,
  },
  {
    cmd: 0xf9,
    name: 'firmware.host-legacy',
    request: firmwarePacket(256),
    reply: firmwareReply,
  },
  {
    cmd: 0xfa,
    name: 'firmware.host-packet',
    // empty: asks the host to begin; it answers result and index 0
    request: layout({}, { total: u16, index: u16, data: hex(200) }),
    reply: firmwareReply,
  },
];

export const rows: readonly Row[] = [
  ...fromDevice.map((row) => ({ ...row, from: 'device' as const })),
  ...fromServer.map((row) => ({ ...row, from: 'server' as const })),
];
