/** Requests that wait for a command's end. A worker's word wakes them; the ledger says what came of it. */
import { atMost, bounded } from '../../queues/bounded.ts';
import { type CommandRecord, isFinal } from '../command.ts';
import type { Redis } from '../connections/redis.ts';
import type { Log } from '../log/log.ts';
import type { Ledger } from '../store/contract.ts';

export type Waits = {
  start(): Promise<void>;
  close(): Promise<void>;
  /** False when so many wait already that no more are taken. */
  hasRoom(): boolean;
  /** The ended command, or null when it did not end in time or nobody wants to know any more. */
  forEnd(id: string, timeoutMs: number, signal?: AbortSignal): Promise<CommandRecord | null>;
};

export type WaitsDeps = {
  /** A `subscriber` client. */
  redis: Pick<Redis, 'subscribe' | 'unsubscribe' | 'on' | 'off'>;
  channel: string;
  ledger: Pick<Ledger, 'findMany'>;
  log: Log;
  limit?: number;
  /** A lost message costs no more than this. */
  pollMs?: number;
};

const LAST_LOOK_MS = 1_000;
const SUBSCRIBE_TIMEOUT_MS = 2_000;
const MAX_MESSAGE_CHARS = 256;

type Waiter = (record: CommandRecord | null) => void;

export function createWaits(deps: WaitsDeps): Waits {
  const { redis, channel, ledger, log, limit = 1_000, pollMs = 1_000 } = deps;
  const waiters = new Map<string, Set<Waiter>>();
  const heard = new Set<string>();
  let count = 0;
  let looking = false;
  let closed = false;
  let poll: NodeJS.Timeout | undefined;

  function onMessage(from: string, text: string): void {
    if (from !== channel || text.length > MAX_MESSAGE_CHARS) return;
    const id = idOf(text);
    if (id === null || !waiters.has(id)) return;
    heard.add(id);
    void lookAtHeard();
  }

  /** One read at a time; what is heard meanwhile goes into the next. */
  async function lookAtHeard(): Promise<void> {
    if (looking) return;
    looking = true;
    try {
      while (heard.size > 0) {
        const ids = [...heard];
        heard.clear();
        await look(ids);
      }
    } finally {
      looking = false;
    }
  }

  async function look(ids: readonly string[]): Promise<void> {
    try {
      for (const [id, record] of await ledger.findMany(ids)) {
        if (!isFinal(record.status)) continue;
        for (const waiter of waiters.get(id) ?? []) waiter(record);
      }
    } catch (error) {
      log.debug({ error }, 'ends could not be read; they are looked for again');
    }
  }

  function add(id: string, waiter: Waiter): void {
    const group = waiters.get(id) ?? new Set();
    waiters.set(id, group.add(waiter));
    count += 1;
    poll ??= setInterval(() => {
      for (const waited of waiters.keys()) heard.add(waited);
      void lookAtHeard();
    }, pollMs).unref();
  }

  function remove(id: string, waiter: Waiter): void {
    const group = waiters.get(id);
    if (!group?.delete(waiter)) return;
    count -= 1;
    if (group.size === 0) waiters.delete(id);
    if (count === 0) {
      clearInterval(poll);
      poll = undefined;
    }
  }

  return {
    async start() {
      redis.on('message', onMessage);
      const subscribed = redis.subscribe(channel);
      subscribed.catch((error: unknown) => log.warn({ error }, 'ends cannot be heard'));
      // A Redis that is away must not keep the process from starting: the poll stands in.
      await atMost(subscribed, SUBSCRIBE_TIMEOUT_MS);
    },
    async close() {
      closed = true;
      redis.off('message', onMessage);
      for (const group of [...waiters.values()]) for (const waiter of [...group]) waiter(null);
      await atMost(redis.unsubscribe(channel), SUBSCRIBE_TIMEOUT_MS);
    },
    hasRoom: () => !closed && count < limit,
    async forEnd(id, timeoutMs, signal) {
      if (closed || count >= limit || signal?.aborted) return null;
      const { promise, resolve } = Promise.withResolvers<CommandRecord | null>();
      const giveUp = () => resolve(null);
      const timer = setTimeout(giveUp, timeoutMs);
      signal?.addEventListener('abort', giveUp, { once: true });
      add(id, resolve);
      try {
        // It may have ended before anybody listened.
        heard.add(id);
        void lookAtHeard();
        const record = await promise;
        if (record || closed || signal?.aborted) return record;
        return await lastLook(id);
      } finally {
        clearTimeout(timer);
        signal?.removeEventListener('abort', giveUp);
        remove(id, resolve);
      }
    },
  };

  async function lastLook(id: string): Promise<CommandRecord | null> {
    const late = () => new Error('the ledger is slow');
    const found = await bounded(ledger.findMany([id]), LAST_LOOK_MS, late).catch(() => null);
    const record = found?.get(id);
    return record && isFinal(record.status) ? record : null;
  }
}

function idOf(text: string): string | null {
  try {
    const { id } = (JSON.parse(text) ?? {}) as { id?: unknown };
    return typeof id === 'string' ? id : null;
  } catch {
    return null;
  }
}
