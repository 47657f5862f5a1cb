/** Tells every process that remembers devices which of them were registered, removed or changed. */
import type { Redis } from 'ioredis';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';

export type DeviceChanges = {
  /** Told to the other processes with all others of this turn of the event loop; again until Redis takes it. */
  announce(deviceIds: readonly string[]): void;
  close(): void;
};

export type DeviceChangesDeps = {
  redis: Pick<Redis, 'publish'>;
  channel: string;
  /** This process, which does not hear its own word. */
  from: string;
  log: Log;
  retryMs?: number;
};

export type DeviceChangesListener = { start(): Promise<void>; close(): Promise<void> };

export type DeviceChangesListenerDeps = {
  /** A `subscriber` client; others may listen on it too. */
  redis: Pick<Redis, 'subscribe' | 'unsubscribe' | 'on' | 'off'>;
  channel: string;
  from: string;
  lookup: { forget(deviceId: string): void; forgetAll(): void };
  log: Log;
  timeoutMs?: number;
};

const version = 1;
const maxIdsPerMessage = 1_000;
const maxIdLength = 32;
const maxMessageLength = 64 * 1024;
/** More that could not be told are told as "all". */
const maxUntold = 10_000;
const retryEveryMs = 1_000;

const Change = Type.Object({
  v: Type.Literal(version),
  from: Type.String({ maxLength: 64 }),
  /** Or all of them. */
  ids: Type.Union([
    Type.Literal('all'),
    Type.Array(Type.String({ minLength: 1, maxLength: maxIdLength }), {
      maxItems: maxIdsPerMessage,
    }),
  ]),
});
const check = Compile(Change);

export function createDeviceChanges(deps: DeviceChangesDeps): DeviceChanges {
  const { redis, channel, from, log, retryMs = retryEveryMs } = deps;
  let untold = new Set<string>();
  let all = false;
  let timer: NodeJS.Immediate | NodeJS.Timeout | null = null;
  let closed = false;

  function note(deviceIds: Iterable<string>): void {
    if (all) return;
    for (const deviceId of deviceIds) untold.add(deviceId);
    if (untold.size <= maxUntold) return;
    all = true;
    untold.clear();
  }

  async function tell(): Promise<void> {
    const ids = [...untold];
    const everything = all;
    untold = new Set();
    all = false;
    timer = null;
    try {
      if (everything) await publish('all');
      for (let start = 0; start < ids.length; start += maxIdsPerMessage) {
        await publish(ids.slice(start, start + maxIdsPerMessage));
      }
    } catch (error) {
      // While Redis is away nobody hears; whoever was cut off alone forgets everything when it is back.
      log.debug({ error: messageOf(error) }, 'changed devices not told yet');
      all ||= everything;
      note(ids);
      again();
    }
  }

  function publish(ids: 'all' | string[]): Promise<number> {
    return redis.publish(channel, JSON.stringify({ v: version, from, ids }));
  }

  function again(): void {
    if (closed || timer) return;
    timer = setTimeout(() => void tell(), retryMs);
    timer.unref();
  }

  return {
    announce(deviceIds) {
      note(deviceIds);
      if (!closed) timer ??= setImmediate(() => void tell());
    },
    close() {
      closed = true;
      if (timer && 'refresh' in timer) clearTimeout(timer);
    },
  };
}

/**
 * Makes a lookup forget what changes elsewhere. What is said while nobody listens is lost, so after every gap
 * all of it is forgotten. A Redis that is away keeps nobody from starting: until it is back, entries grow old.
 */
export function createDeviceChangesListener(
  deps: DeviceChangesListenerDeps,
): DeviceChangesListener {
  const { redis, channel, from, lookup, log, timeoutMs = 2_000 } = deps;

  function onMessage(at: string, text: string): void {
    if (at !== channel) return;
    const change = readChange(text);
    if (change === null) {
      log.warn({ text: text.slice(0, 200) }, 'word of changed devices unreadable');
      lookup.forgetAll();
      return;
    }
    if (change.from === from) return;
    if (change.ids === 'all') lookup.forgetAll();
    else for (const deviceId of change.ids) lookup.forget(deviceId);
  }

  /** Behind the client's own subscription, on the same connection: from its answer on, nothing is missed. */
  function listen(): Promise<void> {
    return redis.subscribe(channel).then(
      () => lookup.forgetAll(),
      (error: unknown) =>
        log.debug({ error: messageOf(error) }, 'changes of devices cannot be heard'),
    );
  }

  const onReady = () => void listen();

  return {
    async start() {
      redis.on('message', onMessage);
      redis.on('ready', onReady);
      await within(listen(), timeoutMs);
    },
    async close() {
      redis.off('message', onMessage);
      redis.off('ready', onReady);
      await within(
        redis.unsubscribe(channel).catch(() => undefined),
        timeoutMs,
      );
    },
  };
}

function readChange(text: string) {
  if (text.length > maxMessageLength) return null;
  try {
    const value: unknown = JSON.parse(text);
    return check.Check(value) ? value : null;
  } catch {
    return null;
  }
}

async function within(step: Promise<unknown>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const pause = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([step, pause]);
  clearTimeout(timer);
}
