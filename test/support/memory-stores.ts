/** Ledger, queue, devices and presence in memory, each of which can be told to be away or slow. */
import type { Base, Outbound, QueueCounts } from '../../queues/contract.ts';
import type { Command, CommandRecord } from '../../src/command.ts';
import { isFinal } from '../../src/command.ts';
import { DownlinkError, type ErrorCode } from '../../src/errors.ts';
import type { Device, Devices, Ledger } from '../../src/store/contract.ts';
import type { RecentDevices } from '../../src/store/device-data.ts';

/** `hangs`: never answers. A promise: answers when it resolves. */
export type Condition = 'well' | 'away' | 'hangs' | Promise<void>;

async function endure(condition: Condition, code: ErrorCode): Promise<void> {
  if (condition === 'away') throw new DownlinkError(code, 'the store is away');
  if (condition === 'hangs') await new Promise<never>(() => undefined);
  await condition;
}

export function createMemoryLedger() {
  const rows = new Map<string, CommandRecord>();
  const claims = new Map<string, { id: string; bodyHash: string }>();
  const ledgerOnly = new Set<string>();
  const state = { condition: 'well' as Condition, writes: 0 };
  const answers = () => endure(state.condition, 'LEDGER_UNAVAILABLE');

  const ledger: Ledger = {
    async write(record) {
      await answers();
      state.writes += 1;
      const old = rows.get(record.id);
      const applied = !old || (!isFinal(old.status) && old.version < record.version);
      if (applied) {
        rows.set(record.id, { ...record, trail: { ...old?.trail, ...record.trail } });
      }
      return { applied };
    },
    async claim(record, { apiKey, key, bodyHash }) {
      await answers();
      const name = `${apiKey} ${key}`;
      const held = claims.get(name);
      if (held?.bodyHash === bodyHash) {
        return { claimed: false, same: true, record: rows.get(held.id)! };
      }
      if (held) return { claimed: false, same: false, id: held.id };
      claims.set(name, { id: record.id, bodyHash });
      rows.set(record.id, record);
      return { claimed: true };
    },
    async markLedgerOnly(id) {
      await answers();
      ledgerOnly.add(id);
    },
    async clearLedgerOnly(ids) {
      for (const id of ids) ledgerOnly.delete(id);
    },
    async find(id) {
      await answers();
      return rows.get(id) ?? null;
    },
    async findMany(ids) {
      await answers();
      return new Map(ids.flatMap((id) => (rows.has(id) ? [[id, rows.get(id)!] as const] : [])));
    },
    async list({ limit }) {
      await answers();
      return { items: [...rows.values()].slice(0, limit), nextCursor: null };
    },
    async unfinished() {
      return [];
    },
    async unclaim(id) {
      await answers();
      for (const [name, held] of claims) if (held.id === id) claims.delete(name);
      return rows.delete(id);
    },
    async claimMany(requests) {
      await answers();
      const verdicts = [];
      for (const { record, idempotency } of requests) {
        verdicts.push(await ledger.claim(record, idempotency));
      }
      return verdicts;
    },
    async overdue() {
      return [];
    },
    async replacedBy() {
      return new Map();
    },
    async listDead() {
      return { items: [], nextCursor: null };
    },
    async purgeDead() {
      return [];
    },
    async flush() {},
  };
  return { ledger, rows, ledgerOnly, state };
}

export function createMemoryOutbound() {
  const jobs = new Map<
    string,
    { command: Command; base: Base; active: boolean; blocked: boolean }
  >();
  const woken: string[] = [];
  const hastened: string[] = [];
  const state = { condition: 'well' as Condition, paused: false };
  const answers = () => endure(state.condition, 'QUEUE_UNAVAILABLE');

  const outbound: Outbound = {
    async enqueue({ command, base = { attempt: 0, version: 0 }, blocked = false }) {
      await answers();
      if (!jobs.has(command.id)) jobs.set(command.id, { command, base, active: false, blocked });
    },
    async enqueueMany(entries) {
      await answers();
      for (const entry of entries) await outbound.enqueue(entry);
    },
    async take(_deviceId, id) {
      await answers();
      const job = jobs.get(id);
      if (!job) return 'missing';
      if (job.active) return 'active';
      jobs.delete(id);
      return 'taken';
    },
    async find(_deviceId, id) {
      await answers();
      const job = jobs.get(id);
      return job ? { command: job.command, nextVersion: job.base.version + 2 } : null;
    },
    async counts(): Promise<QueueCounts> {
      await answers();
      const pending = [...jobs.values()].filter(({ active }) => active).length;
      return { waiting: jobs.size - pending, pending, dead: 0 };
    },
    async wake(_deviceId, id) {
      await answers();
      woken.push(id);
      return jobs.has(id);
    },
    async hasten(_deviceId, id) {
      await answers();
      hastened.push(id);
      return jobs.has(id);
    },
    async forget(_deviceId, id) {
      await answers();
      jobs.delete(id);
    },
    async holds(entries) {
      await answers();
      return new Set(entries.flatMap(({ id }) => (jobs.has(id) ? [id] : [])));
    },
    async inspect(_deviceId, id) {
      await answers();
      const job = jobs.get(id);
      if (!job) return null;
      return { state: job.active ? 'active' : 'waiting', dueAt: null, failedReason: null };
    },
    async pause() {
      state.paused = true;
    },
    async resume() {
      state.paused = false;
    },
    isPaused: async () => state.paused,
    async close() {},
  };
  return { outbound, jobs, woken, hastened, state };
}

export function createMemoryDevices() {
  const known = new Map<string, Device>();
  const present = new Map<string, { gatewayId: string; epoch: number; protocol: string }>();
  const state = { ledger: 'well' as Condition, redis: 'well' as Condition };

  const devices: Devices & RecentDevices = {
    async recentlySeen({ since, limit }) {
      await endure(state.ledger, 'LEDGER_UNAVAILABLE');
      const items = [...known.values()].filter(({ lastSeenAt }) => (lastSeenAt ?? 0) >= since);
      return { items: items.slice(0, limit), nextCursor: null };
    },
    async find(deviceId) {
      await endure(state.ledger, 'LEDGER_UNAVAILABLE');
      return known.get(deviceId) ?? null;
    },
    async list({ limit }) {
      await endure(state.ledger, 'LEDGER_UNAVAILABLE');
      return { items: [...known.values()].slice(0, limit), nextCursor: null };
    },
    async register(deviceId, protocol) {
      await endure(state.ledger, 'LEDGER_UNAVAILABLE');
      const isNew = !known.has(deviceId);
      if (isNew) {
        known.set(deviceId, {
          deviceId,
          protocol,
          firstSeenAt: null,
          lastSeenAt: null,
          facts: {},
        });
      }
      return isNew;
    },
    async seen() {},
  };
  const presence = {
    async find(deviceId: string) {
      await endure(state.redis, 'QUEUE_UNAVAILABLE');
      return present.get(deviceId) ?? null;
    },
    async findMany(ids: readonly string[]) {
      await endure(state.redis, 'QUEUE_UNAVAILABLE');
      return new Map(
        ids.flatMap((id) => (present.has(id) ? [[id, present.get(id)!] as const] : [])),
      );
    },
  };
  return { devices, presence, known, present, state };
}
