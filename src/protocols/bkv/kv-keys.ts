/**
 * The keys of the 0x1000 payload, BKV V1.7 §"key-value messages": name, kind, and size where it
 * is fixed.
 */

export type KvKey =
  | { name: string; kind: 'number'; size: number }
  /** Identifiers, bits, BCD and what nobody has explained: shown as hex. */
  | { name: string; kind: 'hex'; size?: number }
  /** Holds elements itself. */
  | { name: string; kind: 'list' };

export const kvKeys: ReadonlyMap<number, KvKey> = new Map<number, KvKey>([
  [0x01, hex('cmd', 2)],
  [0x02, hex('frameSeq', 8)],
  [0x03, hex('gatewayId', 7)],
  [0x06, hex('deviceTime', 7)], // BCD, as 2E
  [0x07, number('mcuTempC', 1)],
  [0x08, number('holeNo', 1)],
  [0x09, hex('holeStatus', 1)],
  [0x0a, hex('businessNo', 2)],
  [0x0b, number('powerDeciW', 2)],
  [0x0c, number('currentMilliA', 2)],
  [0x0d, number('energyWh', 2)],
  [0x0e, number('chargedMin', 2)],
  [0x0f, number('ack', 1)],
  [0x10, number('overCurrentLimitMilliA', 2)],
  [0x11, number('powerLimitDeciW', 2)],
  [0x12, number('chargeMode', 1)],
  [0x13, number('switch', 1)],
  [0x21, number('fullChargeDelayS', 2)],
  [0x22, number('nullChargeDelayS', 2)],
  [0x23, number('fullPowerThresholdDeciW', 2)],
  [0x24, number('nullPowerThresholdDeciW', 2)],
  [0x25, number('highTempThresholdC', 1)],
  [0x2e, hex('endTime', 7)], // BCD, where the end by tiers is binary
  [0x2f, number('endReason', 1)],
  [0x3e, hex('socketFwVersion', 2)],
  [0x47, number('controlType', 1)],
  [0x4a, number('socketNo', 1)],
  [0x4b, number('socketEventState', 1)],
  [0x4c, number('hole1EventState', 1)],
  [0x4d, number('hole2EventState', 1)],
  [0x4e, number('overVoltageDeciV', 2)],
  [0x4f, number('underVoltageDeciV', 2)],
  [0x50, number('hole1LeakCurrent', 2)],
  [0x51, number('hole2LeakCurrent', 2)],
  [0x52, number('hole1OverTemp', 1)],
  [0x53, number('hole2OverTemp', 1)],
  [0x54, number('socketEventReason', 1)],
  [0x55, number('hole1EventReason', 1)],
  [0x56, number('hole2EventReason', 1)],
  [0x57, hex('hole1ChargeStatus', 1)],
  [0x58, hex('hole2ChargeStatus', 1)],
  [0x59, number('maxChargeMin', 2)],
  [0x5a, hex('undocumented_5A', 2)],
  [0x5b, { name: 'hole', kind: 'list' }],
  [0x60, number('tricklePercent', 1)],
  [0x68, number('buttonBaseAmount', 4)],
  [0x80, number('serviceFeeBasis', 1)], // 0 by time, 1 by energy
  [0x83, hex('serviceFeeTier', 6)], // until hh mm, electricity cents 2, service cents 2
  [0x84, hex('tierChargedTimeAndEnergy')], // the meaning of its last two bytes is unknown
  [0x85, number('electricityFee', 2)],
  [0x86, number('serviceFee', 2)],
  [0x88, number('payAmountCent', 2)],
  [0x89, number('tierCount', 1)],
  [0x93, number('antiPulseTime', 2)],
  [0x94, { name: 'socketStatusCluster', kind: 'list' }],
  [0x95, number('voltageDeciV', 2)],
  [0x96, number('rssi', 1)],
  [0x98, number('undocumented_98', 1)],
  [0x99, number('undocumented_99', 1)],
  [0x9a, number('undocumented_9A', 1)],
  [0x9b, number('undocumented_9B', 1)],
  [0xf4, hex('undocumented_F4', 1)],
]);

/** The byte of each key, by its name. */
export const kvKeyNamed: ReadonlyMap<string, number> = new Map(
  [...kvKeys].map(([byte, { name }]) => [name, byte]),
);

function number(name: string, size: number): KvKey {
  return { name, kind: 'number', size };
}

function hex(name: string, size?: number): KvKey {
  return size === undefined ? { name, kind: 'hex' } : { name, kind: 'hex', size };
}
