/** Reads a Redis stream as one consumer of a group: at least once, in batches, across outages. */
import type { Redis } from 'ioredis';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';

export type StreamEntry = { entryId: string; text: string };

export type StreamReader = { start(): Promise<void>; close(): Promise<void> };

export type StreamReaderDeps = {
  /** A client of its own: it blocks. */
  redis: Redis;
  stream: string;
  group: string;
  consumer: string;
  /**
   * Done with all of them but those whose ids it resolves with: they come again after a while, here or at
   * another consumer. Throws, and gets all of them again. An entry that can never be handled must not throw.
   */
  handle(entries: StreamEntry[]): Promise<ReadonlySet<string>>;
  log: Log;
  batchSize?: number;
};

const blockMs = 1_000;
const retryMs = 500;
/** An entry of a consumer that was not heard of for so long is taken over. */
const claimIdleMs = 15_000;
const claimEveryMs = 5_000;

type RawEntry = [id: string, fields: string[] | null];

export function createStreamReader(deps: StreamReaderDeps): StreamReader {
  const { redis, stream, group, consumer, log, batchSize = 200 } = deps;
  let closing = false;
  let running: Promise<void> = Promise.resolve();
  let claimedAt = 0;

  async function createGroup(): Promise<void> {
    try {
      await redis.xgroup('CREATE', stream, group, '0', 'MKSTREAM');
    } catch (error) {
      if (!messageOf(error).startsWith('BUSYGROUP')) throw error;
    }
  }

  async function loop(): Promise<void> {
    /** What this consumer was given before and has not finished is read once; what stays comes by `claim`. */
    let backlog: string | null = '0';
    while (!closing) {
      try {
        const taken = await claim();
        const own: RawEntry[] = backlog === null ? [] : await read(backlog);
        backlog = own.at(-1)?.[0] ?? null;
        const entries = [...taken, ...own];
        await finish(entries.length > 0 ? entries : await read('>'));
      } catch (error) {
        if (closing) return;
        if (messageOf(error).startsWith('NOGROUP')) {
          await createGroup().catch(() => undefined);
          continue;
        }
        log.warn({ stream, error: messageOf(error) }, 'stream entries wait');
        backlog = '0';
        await new Promise((resolve) => setTimeout(resolve, retryMs));
      }
    }
  }

  async function read(from: string): Promise<RawEntry[]> {
    const reply = (await redis.xreadgroup(
      'GROUP',
      group,
      consumer,
      'COUNT',
      batchSize,
      'BLOCK',
      blockMs,
      'STREAMS',
      stream,
      from,
    )) as [string, RawEntry[]][] | null;
    return reply?.[0]?.[1] ?? [];
  }

  async function claim(): Promise<RawEntry[]> {
    if (performance.now() - claimedAt < claimEveryMs) return [];
    claimedAt = performance.now();
    const [, entries] = (await redis.xautoclaim(
      stream,
      group,
      consumer,
      claimIdleMs,
      '0',
      'COUNT',
      batchSize,
    )) as [string, RawEntry[]];
    return entries;
  }

  async function finish(entries: RawEntry[]): Promise<void> {
    if (entries.length === 0) return;
    const readable: StreamEntry[] = [];
    for (const [entryId, fields] of entries) {
      if (fields?.[1] !== undefined) readable.push({ entryId, text: fields[1] });
    }
    const later = await deps.handle(readable);
    const ids = entries.map(([id]) => id).filter((id) => !later.has(id));
    if (ids.length === 0) return;
    await redis
      .multi()
      .xack(stream, group, ...ids)
      .xdel(stream, ...ids)
      .exec();
  }

  return {
    async start() {
      await createGroup();
      running = loop();
    },
    async close() {
      closing = true;
      // While Redis is away the read is repeated for ever: it ends with its client.
      const patience = setTimeout(() => redis.disconnect(), 2 * blockMs);
      await running;
      clearTimeout(patience);
    },
  };
}
