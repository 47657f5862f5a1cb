/** Device parameters: set by 83 to 85, read back by 90 to 93. */
import { type Static, Type } from 'typebox';
import type { CommandSpec, Fields } from '../protocol.ts';
import { limitResults } from './codes.ts';
import {
  ackOf,
  answers,
  byte,
  idempotentWrite,
  params,
  query,
  request,
  word,
} from './command-kit.ts';

/** The vendor's defaults stand in for what is left out; a frame always carries its whole group. */
const defaults = {
  basic: {
    unplugPowerDeciW: 3,
    unplugTimeS: 10,
    floatPercent: 20,
    floatDetectS: 1800,
    floatTimeS: 3600,
    heartbeatIntervalS: 180,
  },
  advanced: {
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
  limits: { maxChargeS: 36_000 },
} as const;

/** Sent when one of the two is given; older firmware knows neither. */
const voltageDefaults = { overVoltageDeciV: 2700, underVoltageDeciV: 1000 } as const;

const SetParams = params({
  group: Type.Union([Type.Literal('basic'), Type.Literal('advanced'), Type.Literal('limits')]),
  // basic, 83
  unplugPowerDeciW: Type.Optional(word('power below which the plug counts as pulled, 0.1 W')),
  unplugTimeS: Type.Optional(word('for how long, s')),
  floatPercent: Type.Optional(Type.Integer({ minimum: 0, maximum: 100 })),
  floatDetectS: Type.Optional(word('s')),
  floatTimeS: Type.Optional(word('s')),
  heartbeatIntervalS: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 0xffff, description: 's; the server expects 180' }),
  ),
  // advanced, 84
  dynamicOverloadDeciW: Type.Optional(word('0.1 W')),
  dynamicOverloadDetectS: Type.Optional(word('s')),
  dynamicOverloadStartS: Type.Optional(word('s')),
  unplugNoiseDeciW: Type.Optional(byte('0.1 W')),
  unplugNoiseTimeS: Type.Optional(word('s')),
  secondFloatPointS: Type.Optional(word('s')),
  secondFloatDetectS: Type.Optional(word('s')),
  minPowerDeciW: Type.Optional(word('0.1 W')),
  minPowerPointS: Type.Optional(word('s')),
  secondMaxPointS: Type.Optional(word('s')),
  ambientAlarmC: Type.Optional(byte('°C')),
  portAlarmC: Type.Optional(byte('°C')),
  optoUnplugDetect: Type.Optional(byte('0 is on')),
  qrLight: Type.Optional(byte('light of the QR code')),
  // limits, 85
  maxChargeS: Type.Optional(word('longest charge, s')),
  overloadDeciW: Type.Optional(word('overload power, 0.1 W')),
  overVoltageDeciV: Type.Optional(word('0.1 V')),
  underVoltageDeciV: Type.Optional(word('0.1 V')),
});
type SetParams = Static<typeof SetParams>;

const ReadParams = params({
  group: Type.Union([
    Type.Literal('basic'),
    Type.Literal('advanced'),
    Type.Literal('limits'),
    Type.Literal('card'),
  ]),
});
type ReadParams = Static<typeof ReadParams>;

const members: Readonly<Record<SetParams['group'], readonly string[]>> = {
  basic: Object.keys(defaults.basic),
  advanced: Object.keys(defaults.advanced),
  limits: [...Object.keys(defaults.limits), 'overloadDeciW', ...Object.keys(voltageDefaults)],
};

const readNames: Readonly<Record<ReadParams['group'], string>> = {
  basic: 'params.basic.read',
  advanced: 'params.advanced.read',
  limits: 'params.limits.read',
  card: 'card.keys.read',
};

export const parameterCommands: Readonly<Record<string, CommandSpec>> = {
  'params.set': {
    ...idempotentWrite,
    title: "Set a group of parameters; the vendor's defaults fill what is left out",
    params: SetParams,
    // one line per group: a newer set replaces an older one only where it covers all of its fields
    orderKey: ({ group }) => `device:${String(group)}`,
    supersedes: ['params.set'],
    covers: ({ group, ...fields }) => Object.keys(fields),
    check: (given) => setFault(given as SetParams),
    encode(given, deviceId, wireId) {
      const { group, ...fields } = given as SetParams;
      return request(`params.${group}`, withDefaults(group, fields), deviceId, wireId);
    },
    recognise(given, wireId, message) {
      const { group } = given as SetParams;
      if (!answers(`params.${group}`, wireId, message)) return null;
      return ackOf(message, group === 'limits' ? { codes: limitResults } : {});
    },
  },
  'params.read': {
    ...query,
    title: 'Read a group of parameters back',
    params: ReadParams,
    encode: (given, deviceId, wireId) =>
      request(readNames[(given as ReadParams).group], {}, deviceId, wireId),
    // older firmware may answer with fewer fields: what it told is the result
    recognise: (given, wireId, message) =>
      answers(readNames[(given as ReadParams).group], wireId, message)
        ? { accepted: true, result: { ...message.fields } }
        : null,
  },
};

function setFault(given: SetParams): string | null {
  const { group, ...fields } = given;
  const stranger = Object.keys(fields).find((name) => !members[group].includes(name));
  if (stranger !== undefined) {
    return `${stranger} is not in group ${group}, which has ${members[group].join(', ')}`;
  }
  return group === 'limits' && given.overloadDeciW === undefined
    ? 'group limits needs overloadDeciW: the vendor states no default for it'
    : null;
}

function withDefaults(group: SetParams['group'], fields: Fields): Fields {
  const voltages = Object.keys(voltageDefaults).some((name) => name in fields);
  return { ...defaults[group], ...(voltages ? voltageDefaults : {}), ...fields };
}
