/**
 * Starting and stopping a charge, BKV V1.7 §"control", §"power tiers" and §"electricity and
 * service fee".
 */
import { type Static, Type } from 'typebox';
import type { CommandSpec } from '../../protocol.ts';
import { startAck } from '../acks.ts';
import { kv } from '../kv.ts';
import { encodeMessage } from '../message-codec.ts';
import { startProbe } from '../start-probe.ts';
import {
  AmountCents,
  chargeTtlMs,
  checkMode,
  closed,
  EnergyWh,
  type ModeRules,
  Port,
  portKey,
  priorities,
  Socket,
  starts,
  Tiers,
  TimeOfDay,
  tierFields,
  Word,
} from './params.ts';

const maxMinutes = 900;
const lastMinute = '23:59';
/** On the wire of a control. */
const byTime = 1;
const byEnergy = 0;

const FeeTiers = Type.Array(
  Type.Object(
    { until: TimeOfDay, electricityCents: Type.Integer(Word), serviceCents: Type.Integer(Word) },
    closed,
  ),
  { minItems: 1, maxItems: 24, description: 'prices per kWh until a time of day' },
);

const StartParams = Type.Object(
  {
    socket: Socket,
    port: Port,
    mode: Type.Enum(['time', 'energy', 'tiers', 'fee']),
    minutes: Type.Optional(
      Type.Integer({ minimum: 1, maximum: maxMinutes, description: 'by energy: the cap' }),
    ),
    energyWh: Type.Optional(EnergyWh),
    amountCents: Type.Optional(AmountCents),
    tiers: Type.Optional(Tiers),
    paidCents: Type.Optional(AmountCents),
    serviceFeeBy: Type.Optional(Type.Enum(['time', 'energy'])),
    feeTiers: Type.Optional(FeeTiers),
  },
  closed,
);
type StartParams = Static<typeof StartParams>;

const StopParams = Type.Object({ socket: Socket, port: Port }, closed);
type StopParams = Static<typeof StopParams>;

const startModes: ModeRules = {
  time: { needs: ['minutes'], takes: [] },
  energy: { needs: ['energyWh'], takes: ['minutes'] },
  tiers: { needs: ['amountCents', 'tiers'], takes: [] },
  fee: { needs: ['paidCents', 'serviceFeeBy', 'feeTiers'], takes: [] },
};

export const chargeCommands = {
  'charge.start': {
    title: 'Start a charge by time, energy, power tiers, or electricity and service fee',
    params: StartParams,
    priority: priorities.start,
    ttlMs: chargeTtlMs,
    ack: 'reply',
    // A second start would begin, and bill, a second charge.
    repeatable: false,
    onAmbiguous: 'probe',
    probe: startProbe,
    supersedes: [],
    excludes: starts,
    orderKey: (params) => portKey(params as StartParams),
    check: (params) => checkMode(params, startModes) ?? checkFeeTiers(params as StartParams),
    encode: (params, deviceId, wireId) => encodeStart(params as StartParams, deviceId, wireId),
    recognise: (_params, wireId, message) => startAck(wireId, message),
  },
  'charge.stop': {
    title: 'Stop the charge of a port',
    params: StopParams,
    priority: priorities.stop,
    ttlMs: chargeTtlMs,
    ack: 'reply',
    repeatable: true,
    onAmbiguous: 'resend',
    preempts: true,
    supersedes: starts,
    orderKey: (params) => portKey(params as StopParams),
    encode(params, deviceId, wireId) {
      const { socket, port } = params as StopParams;
      return encodeControl(deviceId, wireId, {
        socketNo: socket,
        holeNo: port,
        switch: 0,
        mode: byTime,
        minutes: 0,
        energyWh: 0,
      });
    },
    recognise: (_params, wireId, message) => startAck(wireId, message),
  },
} satisfies Record<string, CommandSpec>;

function encodeStart(params: StartParams, deviceId: string, wireId: number): Uint8Array {
  const hole = { socketNo: params.socket, holeNo: params.port, switch: 1 };
  switch (params.mode) {
    case 'time': {
      const minutes = params.minutes;
      return encodeControl(deviceId, wireId, { ...hole, mode: byTime, minutes, energyWh: 0 });
    }
    case 'energy': {
      const { minutes = maxMinutes, energyWh } = params;
      return encodeControl(deviceId, wireId, { ...hole, mode: byEnergy, minutes, energyWh });
    }
    case 'tiers':
      return encodeMessage({
        direction: 'down',
        name: 'tiers.start',
        deviceId,
        msgId: wireId,
        fields: { ...hole, ...tierFields(params.amountCents ?? 0, params.tiers ?? []) },
      });
    case 'fee':
      return encodeFeeStart(params, deviceId, wireId);
  }
}

function encodeControl(deviceId: string, msgId: number, fields: Record<string, unknown>) {
  return encodeMessage({ direction: 'down', name: 'control', deviceId, msgId, fields });
}

/** The elements stand in the order of the vendor's sample. */
function encodeFeeStart(params: StartParams, deviceId: string, msgId: number): Uint8Array {
  const feeTiers = params.feeTiers ?? [];
  const elements = [
    kv('socketNo', params.socket),
    kv('holeNo', params.port),
    kv('switch', 1),
    kv('chargeMode', 4),
    kv('controlType', 1),
    kv('undocumented_F4', '02'),
    kv('payAmountCent', params.paidCents ?? 0),
    kv('serviceFeeBasis', params.serviceFeeBy === 'energy' ? 1 : 0),
    kv('tierCount', feeTiers.length),
    ...feeTiers.map(({ until, electricityCents, serviceCents }) => {
      const [hour = 0, minute = 0] = until.split(':').map(Number);
      const tier = Buffer.alloc(6);
      tier.writeUInt8(hour, 0);
      tier.writeUInt8(minute, 1);
      tier.writeUInt16BE(electricityCents, 2);
      tier.writeUInt16BE(serviceCents, 4);
      return kv('serviceFeeTier', tier.toString('hex'));
    }),
  ];
  const fields = { kv: elements };
  return encodeMessage({ direction: 'down', name: 'fee.start', deviceId, msgId, fields });
}

function checkFeeTiers({ feeTiers = [] }: StartParams): string | null {
  for (const [i, { until }] of feeTiers.entries()) {
    const before = feeTiers[i - 1]?.until;
    if (before !== undefined && until <= before) {
      return `feeTiers must rise in until: ${until} follows ${before}; sort them by time`;
    }
  }
  const last = feeTiers.at(-1)?.until;
  if (last === undefined || last === lastMinute) return null;
  return `feeTiers must end at ${lastMinute}, not ${last}; add a last tier until ${lastMinute}`;
}
