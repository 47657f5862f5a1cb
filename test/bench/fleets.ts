/** Devices in processes of their own, since each may open only so many sockets. */
import { startRemoteFleet } from '../../src/simulator/remote.ts';
import { mergeRoundTrips, type RoundTrips } from '../../src/simulator/round-trips.ts';

export type Fleets = {
  devices: number;
  /** Connections, with their logins, a second: from the first to the last. */
  connectedPerS: number;
  roundTrips(clear?: boolean): Promise<RoundTrips>;
  /** Devices that are logged in, and connections that ended so far. */
  state(): Promise<{ loggedIn: number; lost: number }>;
  stop(): Promise<void>;
};

export type FleetsOptions = {
  port: number;
  deviceIds: readonly string[];
  heartbeatMs: number;
};

const perProcess = 10_000;
/** More than can be taken: how fast they come in is what is measured. */
const connectPerSecond = 20_000;
/** Together below what waits to be accepted in the kernel: beyond it a peer tries again only a second later. */
const connectingAtOnce = 1_000;
const startTimeoutMs = 90_000;

/** Connects them as fast as they are taken; resolves when all are logged in. */
export async function startFleets(options: FleetsOptions): Promise<Fleets> {
  const { port, deviceIds, heartbeatMs } = options;
  const processes = Math.ceil(deviceIds.length / perProcess);
  const each = Math.ceil(deviceIds.length / processes);
  const started = await Promise.allSettled(
    Array.from({ length: processes }, (_, n) =>
      startRemoteFleet({
        host: '127.0.0.1',
        port,
        devices: deviceIds
          .slice(n * each, (n + 1) * each)
          .map((deviceId) => ({ deviceId, protocol: 'bkv' as const })),
        knobs: { ackDelayMs: 0, heartbeatMs, loginRepeatMs: 5_000, reconnectMs: [1_000, 3_000] },
        connectPerSecond: connectPerSecond / processes,
        connectingAtOnce: Math.ceil(connectingAtOnce / processes),
        startTimeoutMs,
        // what a device heard is nothing that is looked at here
        log: { capacity: 0 },
      }),
    ),
  );
  const fleets = started.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const stop = async () => {
    await Promise.allSettled(fleets.map((fleet) => fleet.stop()));
  };
  const failed = started.find((one) => one.status === 'rejected');
  if (failed) {
    await stop();
    throw failed.reason;
  }
  const begun = Math.min(...fleets.map(({ startedAt }) => startedAt));
  const ready = Math.max(...fleets.map(({ readyAt }) => readyAt));
  return {
    devices: deviceIds.length,
    connectedPerS: (deviceIds.length * 1000) / Math.max(1, ready - begun),
    async roundTrips(clear = false) {
      return mergeRoundTrips(await Promise.all(fleets.map((fleet) => fleet.roundTrips(clear))));
    },
    async state() {
      const all = await Promise.all(fleets.map((fleet) => fleet.stats()));
      return {
        loggedIn: all.reduce((sum, { loggedIn }) => sum + loggedIn, 0),
        lost: all.reduce((sum, { disconnects }) => sum + disconnects, 0),
      };
    },
    stop,
  };
}
