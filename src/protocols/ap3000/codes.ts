/** What the numbers on the wire mean: every table of the AP3000 device protocol V8.6 in one place. */
import type { EndReason, OrderSighting, PortState } from '../sighting.ts';

type Codes = Readonly<Record<number, string>>;

/** Port status of messages 01 and 21. In message 06 only 1, 2, 3 and 5 are sound; all else is an error. */
export const portStatuses: Codes = {
  0: 'idle',
  1: 'charging',
  2: 'plugged in, not started',
  3: 'plugged in, full',
  4: 'cannot meter',
  5: 'float charging',
  6: 'memory fault',
  7: 'contact jammed',
  8: 'bad contact or blown fuse',
  9: 'relay stuck',
  10: 'hall sensor fault',
  11: 'precheck: relay or fuse fault',
  13: 'precheck: short circuit',
  14: 'relay stuck, filtered',
  15: 'card chip fault',
  16: 'detection circuit fault',
};

/** The same in the words that the protocols share. Float charging still draws power. */
export const portStates: Readonly<Record<number, PortState>> = {
  0: 'idle',
  1: 'charging',
  2: 'plugged',
  3: 'full',
  4: 'fault',
  5: 'charging',
  6: 'fault',
  7: 'fault',
  8: 'fault',
  9: 'fault',
  10: 'fault',
  11: 'fault',
  13: 'fault',
  14: 'fault',
  15: 'fault',
  16: 'fault',
};

/** Stop reason of a settlement (03, 43). */
export const stopReasons: Codes = {
  1: 'full',
  2: 'longest time reached',
  3: 'preset time reached',
  4: 'preset energy reached',
  5: 'unplugged',
  6: 'overload',
  7: 'stopped by the server',
  8: 'dynamic overload',
  9: 'power too low',
  10: 'ambient temperature too high',
  11: 'port temperature too high',
  12: 'over-current',
  13: 'unplugged, or jammed',
  14: 'no power drawn',
  15: 'precheck: relay or fuse fault',
  16: 'water',
  17: 'fire at this port',
  18: 'fire at another port',
  19: 'door opened by password',
  20: 'door open',
  21: 'external stop',
  22: 'stopped by card',
  23: 'forced by the server',
  24: 'fire protection system',
  25: 'memory fault',
  26: 'over-voltage',
  27: 'under-voltage',
  28: 'cut off at low power',
};

/** The same in the words that the protocols share. */
export const endReasonOfStop: Readonly<Record<number, EndReason>> = {
  1: 'full',
  2: 'max-time',
  3: 'time-up',
  4: 'energy-up',
  5: 'unplugged',
  6: 'overload',
  7: 'server',
  8: 'overload',
  9: 'low-power',
  10: 'fault-temperature',
  11: 'fault-temperature',
  12: 'fault-current',
  13: 'unplugged',
  14: 'no-load',
  15: 'fault-hardware',
  16: 'fault-water',
  17: 'fault-fire',
  18: 'fault-fire',
  19: 'door',
  20: 'door',
  21: 'external',
  22: 'card',
  23: 'server',
  24: 'fault-fire',
  25: 'fault-hardware',
  26: 'fault-voltage',
  27: 'fault-voltage',
  28: 'low-power',
};

/** Answer to 82. The device has acted in spite of its refusal for 3 and 9; for 1 and 2 it has not. */
export const chargeResults: Codes = {
  0: 'done',
  1: 'no charger is plugged in; not executed',
  2: 'the port is in that state already; not executed',
  3: 'the port has a fault; executed nevertheless',
  4: 'there is no such port',
  5: 'several ports are pending; name one of them',
  6: 'the total power would be exceeded',
  7: 'memory fault',
  8: 'precheck: relay or fuse fault',
  9: 'precheck: relay stuck; executed nevertheless',
  10: 'precheck: short circuit',
  11: 'smoke alarm',
  12: 'over-voltage',
  13: 'under-voltage',
  14: 'the port does not respond',
};

/** Answer to 8A. */
export const modifyResults: Codes = {
  0: 'done',
  1: 'the port is not charging',
  2: 'the new limit is below what was already used',
  3: 'there is no such mode or port',
};

/** Answer to 85. */
export const limitResults: Codes = { 0: 'done', 1: 'a value is beyond its limits' };

/** Answers to firmware packets E0, E1, E2, F8, F9 and FA. */
export const firmwareResults: Codes = {
  0: 'next packet',
  1: 'send the packet again',
  2: 'the sum is wrong',
  3: 'the device type does not fit',
  4: 'the check packet is missing',
  5: 'the device type is refused',
};

/** Account state in the answer to a card swipe (02). */
export const accountStates: Codes = {
  0: 'in order',
  1: 'not registered',
  2: 'bound',
  3: 'unbound',
  4: 'swiped again',
  5: 'count used up',
  6: 'balance too low',
  7: 'expired',
  8: 'port fault',
  9: 'clear the card',
  10: 'time used up',
  11: 'card of another operator',
  12: 'device not registered',
  13: 'a monthly plan must be bought',
  14: 'regional variant 14',
  15: 'regional variant 15',
  16: 'temporary variant 16',
  17: 'temporary variant 17',
  18: 'temporary variant 18',
};

export const cardTypes: Codes = { 0: 'old', 1: 'new', 3: 'UID only', 4: 'social card' };

export const startSources: Codes = { 0: 'offline card', 1: 'server', 3: 'verification code' };

/** The same in the words that the protocols share. */
export const orderSources: Readonly<Record<number, NonNullable<OrderSighting['source']>>> = {
  0: 'offline',
  1: 'server',
  3: 'code',
};

/** The meaning of a code, or the code itself where the vendor names none. */
export function meaningOf(codes: Codes, code: number): string {
  return codes[code] ?? `code ${code}, which the vendor does not name`;
}
