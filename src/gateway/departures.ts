/** Presences to be removed. A removal that Redis did not take is tried again until it does. */
import type { GatewayBridge } from '../bridge/gateway-bridge.ts';

export type Departures = {
  leave(deviceId: string, epoch: number): void;
  /** Tries again what failed. */
  retry(): void;
  /** Removals that are under way. */
  underWay(): number;
};

/** More sessions than a gateway holds; what is over it lapses with the gateway's lease. */
const MAX_FAILED = 100_000;
const RETRY_AT_ONCE = 1_000;

export function createDepartures({ bridge }: { bridge: GatewayBridge }): Departures {
  const failed = new Map<string, number>();
  let underWay = 0;

  function leave(deviceId: string, epoch: number): void {
    underWay += 1;
    bridge
      .logout(deviceId, epoch)
      .catch(() => {
        // Removal compares epochs, so a newer presence of the device is safe from it.
        if (failed.size < MAX_FAILED) failed.set(deviceId, epoch);
      })
      .finally(() => {
        underWay -= 1;
      });
  }

  return {
    leave,
    retry() {
      let left = RETRY_AT_ONCE;
      for (const [deviceId, epoch] of failed) {
        if (left === 0) return;
        left -= 1;
        failed.delete(deviceId);
        leave(deviceId, epoch);
      }
    },
    underWay: () => underWay,
  };
}
