/** Puts reports into the uplink stream at a steady rate, as gateways do, and remembers what it put there. */
import type { Redis } from '../../src/connections/redis.ts';
import type { ReportSource } from './reports.ts';

export type Feed = {
  readonly sent: number;
  /** Entries that have to become rows of the command log. */
  readonly entryIds: readonly string[];
  /** When each device last said something. */
  readonly heardAt: ReadonlyMap<string, number>;
  /** Puts so many at once. */
  fill(count: number): Promise<void>;
  /** From now on, until `stop`. */
  start(perSecond: number): void;
  /** Resolves when all that was sent is in the stream; throws when something did not get there, or not in time. */
  stop(): Promise<void>;
};

const chunk = 1_000;
const tickMs = 10;
/** The rate is what is measured against: it may not silently be another one. */
const maxLateMs = 2_000;

export function createFeed(deps: { redis: Redis; stream: string; source: ReportSource }): Feed {
  const { redis, stream, source } = deps;
  const entryIds: string[] = [];
  const heardAt = new Map<string, number>();
  let sent = 0;
  let timer: NodeJS.Timeout | undefined;
  let writing: Promise<void> = Promise.resolve();
  let fault: unknown;

  async function put(count: number): Promise<void> {
    const pipeline = redis.pipeline();
    const rows: boolean[] = [];
    const at = Date.now();
    for (let n = 0; n < count; n += 1) {
      const report = source.next(at);
      heardAt.set(report.deviceId, at);
      rows.push(report.weight !== 'heartbeat');
      pipeline.xadd(stream, '*', 'r', JSON.stringify(report));
    }
    const replies = (await pipeline.exec()) ?? [];
    for (const [index, [error, id]] of replies.entries()) {
      if (error) throw error;
      if (rows[index]) entryIds.push(id as string);
    }
    sent += count;
  }

  return {
    get sent() {
      return sent;
    },
    entryIds,
    heardAt,
    async fill(count) {
      for (let left = count; left > 0; left -= chunk) await put(Math.min(left, chunk));
    },
    start(perSecond) {
      const startedAt = performance.now();
      let asked = 0;
      let busy = false;
      timer = setInterval(() => {
        if (busy || fault) return;
        const due = Math.floor(((performance.now() - startedAt) / 1000) * perSecond) - asked;
        if (due <= 0) return;
        if (due > (maxLateMs / 1000) * perSecond) {
          fault = new Error(`reports were to come at ${perSecond}/s, but ${due} of them are late`);
          return;
        }
        asked += due;
        busy = true;
        writing = put(due).then(
          () => {
            busy = false;
          },
          (error: unknown) => {
            fault = error;
          },
        );
      }, tickMs);
    },
    async stop() {
      clearInterval(timer);
      await writing;
      if (fault) throw fault;
    },
  };
}
