/** The only maker of Redis clients. What a client is for decides how it behaves while Redis is away. */
import { Redis, type RedisOptions } from 'ioredis';

export type { Redis } from 'ioredis';

/**
 * commands: fails within a moment while Redis is away, so that the caller can do something else.
 * blocking: waits for Redis for ever (BullMQ workers, stream readers).
 * subscriber: subscribes again by itself after every reconnect.
 */
export type RedisPurpose = 'commands' | 'blocking' | 'subscriber';

export type RedisConnection = {
  url: string;
  purpose: RedisPurpose;
  /** Shown by CLIENT LIST. */
  name: string;
  /** Told of every connection error; the client goes on connecting by itself. */
  onError?: (error: Error) => void;
};

const RECONNECT_FIRST_MS = 50;
const RECONNECT_MAX_MS = 2_000;
const CONNECT_TIMEOUT_MS = 5_000;
const KEEP_ALIVE_MS = 10_000;
const QUIT_TIMEOUT_MS = 1_000;
/** A command without a reply for so long means a dead socket, not a slow server. */
const REPLY_TIMEOUT_MS = 5_000;

const purposes = {
  commands: { maxRetriesPerRequest: 1, socketTimeout: REPLY_TIMEOUT_MS },
  blocking: { maxRetriesPerRequest: null },
  subscriber: { maxRetriesPerRequest: null, autoResubscribe: true },
} satisfies Record<RedisPurpose, RedisOptions>;

/** A client that connects, and reconnects, by itself. An outage never throws outside a command. */
export function connectRedis({ url, purpose, name, onError }: RedisConnection): Redis {
  const client = new Redis(url, {
    // RESP2: no HELLO round trip, the same replies from every server version, and what BullMQ's
    // scripts were written for. Nothing here needs RESP3's types or its pushes.
    protocol: 2,
    connectionName: name,
    connectTimeout: CONNECT_TIMEOUT_MS,
    keepAlive: KEEP_ALIVE_MS,
    noDelay: true,
    retryStrategy: reconnectDelayMs,
    ...purposes[purpose],
  });
  // Without a listener every refused connection would print a warning of its own.
  client.on('error', (error: Error) => onError?.(error));
  batchWrites(client);
  if (purpose === 'commands') {
    // Commands given before the first connection wait for it (two attempts at most); later ones,
    // given while Redis is away, are refused at once.
    client.once('ready', () => {
      client.options.enableOfflineQueue = false;
      // Never sent twice by the client: a publish whose reply was lost may have been heard, and repeated
      // by itself it would report that nobody listens.
      client.options.maxRetriesPerRequest = 0;
    });
  }
  return client;
}

/**
 * The commands of one event-loop turn go to the socket as one write. ioredis writes each by itself, which
 * costs a system call a command; its own auto-pipelining keeps only one batch under way at a time.
 */
function batchWrites(client: Redis): void {
  const send = client.sendCommand.bind(client);
  client.sendCommand = (...args: Parameters<Redis['sendCommand']>) => {
    const { stream } = client;
    if (stream?.writableCorked === 0) {
      stream.cork();
      setImmediate(() => stream.uncork());
    }
    return send(...args);
  };
}

/** 50 ms, growing to 2 s; the jitter keeps many processes from coming back in one moment. */
export function reconnectDelayMs(times: number): number {
  const ceiling = Math.min(RECONNECT_FIRST_MS * 2 ** times, RECONNECT_MAX_MS);
  return Math.round(ceiling / 2 + (Math.random() * ceiling) / 2);
}

/** Ends a client: lets what was sent be answered, but waits no longer than a second. */
export async function closeRedis(client: Redis): Promise<void> {
  if (client.status === 'ready') {
    const bound = AbortSignal.timeout(QUIT_TIMEOUT_MS);
    const bounded = new Promise<void>((resolve) => {
      bound.addEventListener('abort', () => resolve(), { once: true });
    });
    await Promise.race([client.quit().catch(() => undefined), bounded]);
  }
  client.disconnect();
}
