/** Takes commands out of their lines that have ended, or were never stored: nobody else would let those behind go. */
import type { Redis } from 'ioredis';
import type { Outbound } from '../queues/contract.ts';
import type { Keys } from '../src/bridge/keys.ts';
import type { Routes } from '../src/bridge/routes-contract.ts';
import { isFinal } from '../src/command.ts';
import { messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Ledger } from '../src/store/contract.ts';

export type LineKeeperDeps = {
  redis: Redis;
  keys: Keys;
  ledger: Pick<Ledger, 'findMany'>;
  outbound: Pick<Outbound, 'holds' | 'wake'>;
  routes: Pick<Routes, 'leave'>;
  log: Log;
  now: () => number;
};

export type Kept = { entries: number; left: number };

/** A younger one may still be on its way from its line into the stores. */
const youngMs = 30_000;
const linesAtOnce = 200;
/** Of one line in one turn; a line is longer than this only by stops. */
const entriesAtOnce = 100;
const lookUpAtOnce = 500;

type Line = { deviceId: string; line: string; member: string };
type Entry = { deviceId: string; line: string; id: string };

/** A line that was joined in the meantime is not empty any more. KEYS: line, lines. ARGV: member. */
const forgetEmpty = `
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('SREM', KEYS[2], ARGV[1])`;

/** One turn through all lines; it rejects when a store is away. */
export function createLineKeeper(deps: LineKeeperDeps): () => Promise<Kept> {
  const { redis, keys, ledger, outbound, routes, log, now } = deps;

  async function oldEntries(shard: number, lines: readonly Line[]): Promise<Entry[]> {
    const until = (now() - youngMs) * 1_000;
    const found = await Promise.all(
      lines.map(async ({ deviceId, line, member }) => {
        const key = keys.line(deviceId, line);
        const ids = await redis.zrangebyscore(key, '-inf', until, 'LIMIT', 0, entriesAtOnce);
        if (ids.length === 0) await redis.eval(forgetEmpty, 2, key, keys.lines(shard), member);
        return ids.map((id) => ({ deviceId, line, id }));
      }),
    );
    return found.flat();
  }

  /** Entries whose command is over. In doubt it is not. */
  async function ended(entries: readonly Entry[]): Promise<Entry[]> {
    const held = await outbound.holds(entries);
    const missing = entries.filter(({ id }) => !held.has(id));
    if (missing.length === 0) return [];
    // In this order: an end that was told before the queue was asked is in the ledger when that is asked.
    if ((await redis.xlen(keys.settlements())) > 0) return [];
    const rows = await ledger.findMany(missing.map(({ id }) => id));
    return missing.filter(({ id }) => {
      const row = rows.get(id);
      return !row || isFinal(row.status);
    });
  }

  async function leave({ deviceId, line, id }: Entry): Promise<void> {
    const woken = await routes.leave(deviceId, id, line);
    log.warn({ commandId: id, deviceId, line }, 'command taken out of its line');
    for (const next of woken) {
      // Its own backstop wakes it, if this does not.
      await outbound.wake(deviceId, next).catch((error) => {
        log.warn({ commandId: next, error: messageOf(error) }, 'parked command not woken');
      });
    }
  }

  return async function keepLines() {
    const kept: Kept = { entries: 0, left: 0 };
    for (let shard = 0; shard < keys.shards; shard += 1) {
      let cursor = '0';
      do {
        const [next, members] = await redis.sscan(keys.lines(shard), cursor, 'COUNT', linesAtOnce);
        cursor = next;
        const entries = await oldEntries(shard, members.map(lineOf));
        kept.entries += entries.length;
        for (let start = 0; start < entries.length; start += lookUpAtOnce) {
          const over = await ended(entries.slice(start, start + lookUpAtOnce));
          // One after another: those of one line leave in their order.
          for (const entry of over) await leave(entry);
          kept.left += over.length;
        }
      } while (cursor !== '0');
    }
    return kept;
  };
}

/** The line's name may have a bar in it; a device id has none. */
function lineOf(member: string): Line {
  const at = member.indexOf('|');
  return { deviceId: member.slice(0, at), line: member.slice(at + 1), member };
}
