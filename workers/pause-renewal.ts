/**
 * Says to Redis which devices are paused: the ledger is the truth, and Redis may have lost its copy, or never have
 * got the word that a pause, or its end, was meant to leave there.
 */
import type { Routes } from '../src/bridge/routes-contract.ts';
import type { Log } from '../src/log/log.ts';
import type { Pauses } from '../src/store/contract.ts';

export type PauseRenewalDeps = {
  pauses: Pick<Pauses, 'list' | 'find'>;
  routes: Pick<Routes, 'setPaused' | 'pausedDevices'>;
  /** A pause ended without a word to those who waited for it. */
  onResumed(deviceId: string): void;
  log: Log;
  devicesPerPage?: number;
};

/** Whoever pauses and resumes faster than this is followed in the next turn. */
const maxLooks = 4;

/** One turn; it resolves with how many devices are paused, and rejects when a store is away. */
export function createPauseRenewal(deps: PauseRenewalDeps): () => Promise<number> {
  const { pauses, routes, onResumed, log, devicesPerPage = 500 } = deps;
  /** Says it as the ledger has it, until that has not changed while it was said. */
  async function agree(deviceId: string): Promise<boolean> {
    let pausedAt = await pausedSince(deviceId);
    for (let look = 1; look <= maxLooks; look += 1) {
      await routes.setPaused(deviceId, pausedAt);
      const meant = await pausedSince(deviceId);
      if (meant === pausedAt) break;
      pausedAt = meant;
    }
    if (pausedAt !== null) return true;
    log.info({ deviceId }, 'device resumed in the queue store');
    onResumed(deviceId);
    return false;
  }

  async function pausedSince(deviceId: string): Promise<number | null> {
    return (await pauses.find(deviceId))?.pausedAt ?? null;
  }

  return async function renewPauses() {
    const paused = new Set<string>();
    /** Devices that Redis calls paused, by whomever: a resume may not have reached it. */
    const told = new Set(await routes.pausedDevices());
    let afterId: string | null = null;
    for (;;) {
      const query: Parameters<Pauses['list']>[0] = { afterId, limit: devicesPerPage };
      const page = await pauses.list(query);
      await Promise.all(page.map(({ deviceId, pausedAt }) => routes.setPaused(deviceId, pausedAt)));
      // Whoever was resumed in between has been called paused again just now.
      const again = new Map((await pauses.list(query)).map((pause) => [pause.deviceId, pause]));
      for (const { deviceId, pausedAt } of page) {
        const stands = again.get(deviceId)?.pausedAt === pausedAt || (await agree(deviceId));
        if (stands) paused.add(deviceId);
        told.delete(deviceId);
      }
      const last = page.at(-1);
      if (page.length < devicesPerPage || !last) break;
      afterId = last.deviceId;
    }
    for (const deviceId of told) {
      if (await agree(deviceId)) paused.add(deviceId);
    }
    return paused.size;
  };
}
