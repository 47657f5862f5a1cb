/** Start, stop and change of a charge: 82, 8A, and 72 for cabinets. */
import { type Static, Type } from 'typebox';
import type { Params } from '../../command.ts';
import type { CommandSpec, Fields } from '../protocol.ts';
import { chargeResults, modifyResults } from './codes.ts';
import {
  ackOf,
  answers,
  byte,
  exchange,
  OrderNo,
  Port,
  params,
  portControl,
  request,
  stopControl,
  word,
} from './command-kit.ts';
import { orderNoFromWire, orderNoToWire } from './order-number.ts';
import { startProbe } from './start-probe.ts';

const maxWord = 0xffff;
/** Lets the device choose the port. */
const anyPort = 0xff;
const energyUnitWh = 10;
const rateModes = { time: 0, full: 0, energy: 2 } as const;
const modifyModes = { time: 0, timeFullStop: 1, energy: 2 } as const;

const Seconds = Type.Integer({ minimum: 1, maximum: maxWord });
const EnergyWh = Type.Integer({
  minimum: energyUnitWh,
  maximum: maxWord * energyUnitWh,
  multipleOf: energyUnitWh,
  description: 'Wh, in steps of 10',
});

const StartParams = params({
  port: Type.Union([Port, Type.Literal('auto')], {
    description: '0 is port 1; auto: the device chooses',
  }),
  mode: Type.Union([Type.Literal('time'), Type.Literal('energy'), Type.Literal('full')]),
  seconds: Type.Optional(Seconds),
  minutes: Type.Optional(Type.Integer({ minimum: 1, maximum: Math.floor(maxWord / 60) })),
  energyWh: Type.Optional(EnergyWh),
  orderNo: OrderNo,
  balanceCents: Type.Optional(
    Type.Integer({ minimum: 0, maximum: 0xffff_ffff, description: 'read out by voice' }),
  ),
  maxSeconds: Type.Optional(word("longest charge; 0 keeps the device's setting")),
  overloadDeciW: Type.Optional(word("overload power, 0.1 W; 0 keeps the device's setting")),
  qrLight: Type.Optional(Type.Boolean({ description: 'light of the QR code' })),
  longMode: Type.Optional(Type.Boolean()),
  extraFloatS: Type.Optional(word('extra float charging, s; 65535 cancels it')),
  shortCheck: Type.Optional(Type.Boolean({ description: 'check for a short circuit first' })),
  ignoreUnplug: Type.Optional(Type.Boolean()),
  forceFullStop: Type.Optional(
    Type.Boolean({ description: 'stop when full although time or energy is preset' }),
  ),
  fullPowerW: Type.Optional(byte('power below which the battery counts as full, W')),
  fullPowerMaxMinutes: Type.Optional(byte('longest time at that power, min')),
});
type StartParams = Static<typeof StartParams>;

const StopParams = params({ port: Port, orderNo: OrderNo });
type StopParams = Static<typeof StopParams>;

const ModifyParams = params({
  port: Port,
  mode: Type.Union([Type.Literal('time'), Type.Literal('timeFullStop'), Type.Literal('energy')]),
  seconds: Type.Optional(Seconds),
  energyWh: Type.Optional(EnergyWh),
});
type ModifyParams = Static<typeof ModifyParams>;

export const chargeCommands: Readonly<Record<string, CommandSpec>> = {
  'charge.start': {
    ...portControl,
    title: 'Start a charge by time, by energy, or until full',
    params: StartParams,
    // a second start answers "same state", which alone does not say whose charge is running
    repeatable: false,
    onAmbiguous: 'probe',
    probe: startProbe,
    excludes: ['charge.start'],
    check: (given) => startFault(given as StartParams),
    encode: (given, deviceId, wireId) =>
      request('charge.control', startFields(given as StartParams), deviceId, wireId),
    recognise: recogniseCharge,
  },
  'charge.stop': {
    ...stopControl,
    // the device ignores a stop that does not carry the running order's number
    title: 'Stop the charge of an order',
    params: StopParams,
    encode: (given, deviceId, wireId) =>
      request('charge.control', stopFields(given as StopParams), deviceId, wireId),
    recognise: recogniseCharge,
  },
  'charge.modify': {
    ...portControl,
    title: 'Change the time or the energy of a running charge',
    params: ModifyParams,
    repeatable: false,
    // no probe: neither its answer nor a report tells the limit that a charge runs under
    onAmbiguous: 'stop',
    check: (given) => modifyFault(given as ModifyParams),
    ...exchange('charge.modify', (given) => modifyFields(given as ModifyParams), {
      codes: modifyResults,
    }),
  },
  'cabinet.stop': {
    ...stopControl,
    title: 'Stop a cabinet charge, its door closed',
    params: StopParams,
    encode(given, deviceId, wireId) {
      const { port, orderNo } = given as StopParams;
      return request('cabinet.stop', { port, orderNo: orderNoToWire(orderNo) }, deviceId, wireId);
    },
    recognise: (given, wireId, message) =>
      answers('cabinet.stop', wireId, message)
        ? ackOf(message, { result: (fields) => orderOf(given, fields) })
        : null,
  },
};

/** 0 is done; of the refusals, 3 and 9 were executed all the same, which their sentences say. */
function recogniseCharge(...[given, wireId, message]: Parameters<CommandSpec['recognise']>) {
  if (!answers('charge.control', wireId, message)) return null;
  return ackOf(message, {
    codes: chargeResults,
    result: (fields) => {
      const { port, pendingPorts } = fields;
      return {
        ...orderOf(given, fields),
        ...(port === undefined ? {} : { port }),
        ...(pendingPorts === undefined ? {} : { pendingPorts }),
      };
    },
  });
}

/** The order number of an answer, in the client's own spelling where it is the same order. */
function orderOf({ orderNo: given }: Params, { orderNo }: Fields): { orderNo?: string } {
  if (typeof orderNo !== 'string') return {};
  const same = typeof given === 'string' && orderNoToWire(given) === orderNo;
  return { orderNo: same ? given : orderNoFromWire(orderNo) };
}

function startFault(given: StartParams): string | null {
  const { mode, seconds, minutes, energyWh } = given;
  if (mode === 'time') {
    if (energyWh !== undefined) return 'energyWh does not go with mode time: leave it out';
    if (seconds !== undefined && minutes !== undefined) return 'give seconds or minutes, not both';
    return seconds === undefined && minutes === undefined
      ? 'mode time needs seconds or minutes'
      : null;
  }
  if (seconds !== undefined || minutes !== undefined) {
    return `seconds and minutes do not go with mode ${mode}: leave them out`;
  }
  if (mode === 'energy') return energyWh === undefined ? 'mode energy needs energyWh' : null;
  return energyWh === undefined ? null : 'energyWh does not go with mode full: leave it out';
}

function modifyFault({ mode, seconds, energyWh }: ModifyParams): string | null {
  const [wanted, other] = mode === 'energy' ? ['energyWh', 'seconds'] : ['seconds', 'energyWh'];
  const given = { seconds, energyWh };
  if (given[wanted as keyof typeof given] === undefined) return `mode ${mode} needs ${wanted}`;
  return given[other as keyof typeof given] === undefined
    ? null
    : `${other} does not go with mode ${mode}: leave it out`;
}

function startFields(given: StartParams): Fields {
  const { port, mode, seconds, minutes = 0, energyWh = 0, orderNo, balanceCents = 0 } = given;
  return {
    rateMode: rateModes[mode],
    balanceOrExpiry: balanceCents,
    port: port === 'auto' ? anyPort : port,
    action: 1,
    // 0 charges until full, which is what mode full asks for
    durationSOrEnergyCentiKwh:
      mode === 'energy' ? energyWh / energyUnitWh : (seconds ?? minutes * 60),
    orderNo: orderNoToWire(orderNo),
    ...trailingFields(given),
  };
}

/**
 * The fields that were appended over the years, as far as the last one that was given; older firmware
 * knows fewer. What lies between takes the value that changes nothing.
 */
function trailingFields(given: StartParams): Fields {
  const flag = (value: boolean | undefined) => (value === undefined ? undefined : Number(value));
  const { qrLight, shortCheck } = given;
  const fields: [name: string, value: number | undefined, unchanged: number][] = [
    ['maxChargeS', given.maxSeconds, 0],
    ['overloadDeciW', given.overloadDeciW, 0],
    // 0 is on
    ['qrLight', qrLight === undefined ? undefined : Number(!qrLight), 0],
    ['longChargeMode', flag(given.longMode), 0],
    ['extraFloatS', given.extraFloatS, 0],
    // 2 checks as usual; that 1 skips the check follows from the field's name only
    ['skipShortCheck', shortCheck === undefined ? undefined : shortCheck ? 2 : 1, 2],
    ['ignoreUnplug', flag(given.ignoreUnplug), 0],
    ['forceFullStop', flag(given.forceFullStop), 0],
    ['fullPowerW', given.fullPowerW, 0],
    ['fullPowerMaxMin', given.fullPowerMaxMinutes, 0],
  ];
  // the vendor's own sample always reaches as far as the overload power
  const last = Math.max(
    1,
    fields.findLastIndex(([, value]) => value !== undefined),
  );
  return Object.fromEntries(
    fields.slice(0, last + 1).map(([name, value, unchanged]) => [name, value ?? unchanged]),
  );
}

/** Of a stop the device reads the port, the action and the order number. */
function stopFields({ port, orderNo }: StopParams): Fields {
  return {
    rateMode: 0,
    balanceOrExpiry: 0,
    port,
    action: 0,
    durationSOrEnergyCentiKwh: 0,
    orderNo: orderNoToWire(orderNo),
    maxChargeS: 0,
    overloadDeciW: 0,
  };
}

function modifyFields({ port, mode, seconds = 0, energyWh = 0 }: ModifyParams): Fields {
  return {
    rateMode: modifyModes[mode],
    port,
    durationSOrEnergyCentiKwh: mode === 'energy' ? energyWh / energyUnitWh : seconds,
  };
}
