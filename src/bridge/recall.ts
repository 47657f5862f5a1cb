/** Loads the frames that a device left unanswered on earlier sessions, wherever those were. */
import type { Redis } from 'ioredis';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Keys } from './keys.ts';
import { parseUnanswered, type Remember } from './messages.ts';

/** Resolves when they were handed over, or could not be read; never rejects. `count`: how many there are. */
export type Recall = (
  deviceId: string,
  count: number,
  remember: (remember: Remember) => void,
) => Promise<void>;

export type RecallDeps = {
  redis: Redis;
  keys: Keys;
  log: Log;
  /** Unix milliseconds. */
  now?: () => number;
};

/** Of one device: more answers than these will not come. */
const maxFrames = 64;
/** Devices whose frames are loaded at the same time: a whole gateway's may come back at once. */
const maxAtOnce = 64;

export function createRecall({ redis, keys, log, now = Date.now }: RecallDeps): Recall {
  let running = 0;
  /** At most one a login that is under way. */
  const waiting: (() => void)[] = [];

  async function textsOf(deviceId: string, count: number): Promise<string[]> {
    const key = keys.unanswered(deviceId);
    if (count <= maxFrames) return Object.values(await redis.hgetall(key));
    const [, pairs] = await redis.hscan(key, 0, 'COUNT', maxFrames);
    return pairs.filter((_text, index) => index % 2 === 1);
  }

  return async (deviceId, count, remember) => {
    // Whoever ends hands its turn on, so that nobody comes in between.
    if (running >= maxAtOnce) await new Promise<void>((resolve) => waiting.push(resolve));
    else running += 1;
    try {
      for (const text of await textsOf(deviceId, count)) {
        const unanswered = parseUnanswered(text);
        if (!unanswered) continue;
        const forMs = unanswered.until - now();
        const { delivery, writtenAt } = unanswered;
        if (forMs > 0) remember({ t: 'remember', delivery, writtenAt, forMs });
      }
    } catch (error) {
      log.warn({ deviceId, error: messageOf(error) }, 'unanswered frames not recalled');
    } finally {
      const next = waiting.shift();
      if (next) next();
      else running -= 1;
    }
  };
}
