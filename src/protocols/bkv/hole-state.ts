/** What a device says of a hole, whichever message says it, in the names that the protocols share. */
import type { Fields } from '../protocol.ts';
import { type HoleFlag, holeFlags } from './hole-status.ts';
import { elementsIn, type KvElement, kvFields, kvValue } from './kv.ts';

/** What the device left out is left out here. */
export type HoleState = {
  port?: number;
  /** The status byte as it came. */
  status?: number;
  flags?: HoleFlag[];
  charging?: boolean;
  /** 0 where no charge has been numbered. */
  businessNo?: number;
  voltageDeciV?: number;
  powerDeciW?: number;
  currentMilliA?: number;
  energyWh?: number;
  /** In whole minutes. */
  durationS?: number;
};

/** One hole, from the fields of a message or of an element that holds one. */
export function holeState(fields: Fields): HoleState {
  const status = numberOfHex(fields['holeStatus']);
  const flags = status === undefined ? undefined : holeFlags(status);
  const minutes = fields['chargedMin'];
  return known({
    port: fields['holeNo'],
    status,
    flags,
    charging: flags?.includes('charging'),
    businessNo: numberOfHex(fields['businessNo']),
    voltageDeciV: fields['voltageDeciV'],
    powerDeciW: fields['powerDeciW'],
    currentMilliA: fields['currentMilliA'],
    energyWh: fields['energyWh'],
    durationS: typeof minutes === 'number' ? minutes * 60 : undefined,
  });
}

/** The holes of a socket in a status report; null when the report is not about that socket. */
export function reportedHoles(socket: number, fields: Fields): HoleState[] | null {
  const cluster = listsNamed(elementsIn(fields), 'socketStatusCluster').find(
    (elements) => kvValue(elements, 'socketNo') === socket,
  );
  if (cluster === undefined) return null;
  return listsNamed(cluster, 'hole').map((elements) => holeState(kvFields(elements)));
}

/** Without the fields that the device left out. */
export function known(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

export function numberOfHex(value: unknown): number | undefined {
  return typeof value === 'string' ? Number.parseInt(value, 16) : undefined;
}

function listsNamed(elements: readonly KvElement[], wanted: string): KvElement[][] {
  return elements.flatMap(({ name, value }) =>
    name === wanted && Array.isArray(value) ? [value] : [],
  );
}
