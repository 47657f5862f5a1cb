/** From what stands in stored fields, which may be anything, to values that can be believed. */
import type { Fields } from './protocol.ts';
import type { Readings } from './sighting.ts';

/** As devices tell it; anything that is no number of the wire counts as not told. */
export type Measured = {
  voltageDeciV?: unknown;
  powerDeciW?: unknown;
  currentMilliA?: unknown;
  energyWh?: unknown;
  durationS?: unknown;
  temperatureC?: unknown;
};

/** All bits of a word set: what erased memory reads as. */
const erasedWord = 0xffff;
/** A socket that speaks has mains voltage; 0 is a socket that does not measure it. */
const voltageV = { min: 1, max: 500 };
const temperatureC = { min: -40, max: 125 };
/** What the wire can count, with units of 10 Wh and of a minute. */
const energyWh = { min: 0, max: 655_340 };
const durationS = { min: 0, max: 3_932_040 };
const minuteMs = 60_000;
/** A device keeps an unreported end for weeks. */
const oldestMs = 90 * 24 * 60 * minuteMs;
/** How far a device's clock may be ahead. */
const aheadMs = 10 * minuteMs;

/** The plausible ones among the values. */
export function readingsOf(measured: Measured): Readings {
  return told<Readings>({
    voltageV: within(divided(measured.voltageDeciV, 10), voltageV),
    powerW: divided(measured.powerDeciW, 10),
    currentA: divided(measured.currentMilliA, 1000),
    energyWh: within(measured.energyWh, energyWh),
    durationS: within(measured.durationS, durationS),
    temperatureC: within(measured.temperatureC, temperatureC),
  });
}

/** A 16-bit number of the wire, in the unit of which it counts `unit`; undefined when it says nothing. */
export function word(value: unknown, unit = 1): number | undefined {
  return isWhole(value, erasedWord - 1) ? value * unit : undefined;
}

/** The same, divided: a tenth is no exact binary fraction, a division by ten is rounded once. */
export function divided(value: unknown, by: number): number | undefined {
  const whole = word(value);
  return whole === undefined ? undefined : whole / by;
}

/** A whole number from 0 to `max`. */
export function isWhole(value: unknown, max: number): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max;
}

/** The device's own time for an event if it can be right, else that of the report. Unix milliseconds. */
export function eventTime(deviceMs: number | undefined, at: number): number {
  const plausible = deviceMs !== undefined && deviceMs >= at - oldestMs && deviceMs <= at + aheadMs;
  return plausible ? deviceMs : at;
}

/** When a charge began that had lasted so long at that moment. */
export function beganAt(moment: number, { durationS }: Readings): number | undefined {
  return durationS === undefined ? undefined : moment - durationS * 1000;
}

/** Without the values that are not known. */
export function told<T extends object>(
  values: {
    [K in keyof T]: T[K] | undefined;
  },
): Partial<T> {
  const known = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(known) as Partial<T>;
}

/** The value as fields; none where it is no object. */
export function fieldsIn(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

function within(value: unknown, { min, max }: { min: number; max: number }): number | undefined {
  return typeof value === 'number' && value >= min && value <= max ? value : undefined;
}
