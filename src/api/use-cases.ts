/** What the API does with commands and devices, made of the stores and the bridge; routes only speak HTTP. */
import { createAccept } from '../../queues/accept.ts';
import { createCheck, type DeviceLookup } from '../../queues/accept-check.ts';
import type { Outbound } from '../../queues/contract.ts';
import { createDeadLetters } from '../../queues/dead-letters.ts';
import type { Caps } from '../../queues/line.ts';
import { createReplay } from '../../queues/replay.ts';
import { createTakeBack } from '../../queues/take-back.ts';
import type { DeviceChanges } from '../bridge/device-changes.ts';
import type { Keys } from '../bridge/keys.ts';
import type { Expel } from '../bridge/known-devices.ts';
import type { Outbox } from '../bridge/outbox.ts';
import type { Routes } from '../bridge/routes-contract.ts';
import type { Withdrawals } from '../bridge/withdrawals.ts';
import type { Command } from '../command.ts';
import type { Log } from '../log/log.ts';
import type { Protocol } from '../protocols/protocol.ts';
import type { Devices, Ledger, Pauses } from '../store/contract.ts';
import type { DeviceIds } from '../store/device-ids.ts';
import type { DeviceLookup as CachedLookup } from '../store/device-lookup.ts';
import { createCancel } from './cancel.ts';
import { createRequireDevice } from './device-data.ts';
import { createRemoveDevice } from './device-removal.ts';
import { createShowDevice, type PresenceReading } from './devices.ts';
import { createExplain } from './explain.ts';
import { createLookup } from './lookup.ts';
import { createPausing } from './pauses.ts';

export type UseCaseDeps = {
  ledger: Ledger;
  outbound: Outbound;
  routes: Routes;
  withdrawals: Withdrawals;
  outbox: Outbox;
  devices: Pick<Devices, 'find'>;
  /** What accept asks; it is told of registrations at once. */
  deviceLookup: DeviceLookup & Pick<CachedLookup, 'put' | 'forget'>;
  /** By it the lookups of other processes are told as well. */
  deviceChanges: Pick<DeviceChanges, 'announce'>;
  deviceIds: Pick<DeviceIds, 'remove'>;
  expel: Expel;
  presence: PresenceReading;
  pauses: Pauses;
  protocols: readonly Protocol[];
  keys: Keys;
  caps: Caps;
  log: Log;
  /** Ids in the order of acceptance (UUIDv7). */
  newId: () => string;
  /** Tells the API process that waits for this command's end, if one does. */
  notify(command: Command): void;
  /** Ends that stand in for the ledger's rows are still on their way into them. */
  endsTravel(): Promise<boolean>;
  liveGateways(): Promise<ReadonlyMap<string, { draining: boolean }>>;
  liveWorkers(): Promise<number>;
  now?: () => number;
  /** Shorter in tests. */
  patience?: { graceMs: number; storeTimeoutMs: number; lookupTimeoutMs: number };
};

export type UseCases = ReturnType<typeof createUseCases>;

const LOOKUP_TIMEOUT_MS = 2_000;

export function createUseCases(deps: UseCaseDeps) {
  const { ledger, outbound, routes, withdrawals, outbox, devices, deviceLookup, presence } = deps;
  const { pauses, protocols, keys, caps, log, newId, notify, endsTravel } = deps;
  const { liveGateways, liveWorkers, patience, now = Date.now } = deps;
  const lookup = createLookup({ ledger, outbound, keys });
  const lookupTimeoutMs = patience?.lookupTimeoutMs ?? LOOKUP_TIMEOUT_MS;
  const check = createCheck({ devices: deviceLookup, presence, protocols, now, lookupTimeoutMs });
  const accept = createAccept({
    ledger,
    outbound,
    routes,
    withdrawals,
    caps,
    devices: deviceLookup,
    presence,
    protocols,
    log,
    now,
    newId,
    ...patience,
  });
  const deviceChanged = (deviceId: string) => {
    deviceLookup.forget(deviceId);
    deps.deviceChanges.announce([deviceId]);
  };
  const takeBack = createTakeBack({ outbound, routes, ledger, protocols, notify, now });
  const replay = createReplay({ accept, ledger, outbound, protocols, log, now });
  return {
    check,
    accept,
    lookup,
    replay,
    cancel: createCancel({ lookup, ledger, outbound, routes, withdrawals, takeBack, endsTravel }),
    deadLetters: createDeadLetters({ ledger, outbound, replay, log, now }),
    pausing: createPausing({ pauses, routes, outbox, keys, log, now }),
    deviceChanged,
    removeDevice: createRemoveDevice({ ...deps, deviceChanged }),
    requireDevice: createRequireDevice({ deviceLookup, presence }),
    showDevice: createShowDevice({ devices, deviceLookup, presence, pauses }),
    explain: createExplain({
      lookup,
      ledger,
      devices,
      pauses,
      routes,
      outbound,
      liveGateways,
      liveWorkers,
      protocols,
      now,
    }),
  };
}
