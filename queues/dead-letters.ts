/** What ended as failed or unknown, as an operator handles it: looked through, asked for again, or put away. */
import type { CommandRecord } from '../src/command.ts';
import type { DownlinkError, ErrorCode } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { DeadFilter, Ledger, Page } from '../src/store/contract.ts';
import type { Outbound } from './contract.ts';
import type { Replay } from './replay.ts';

/** The list reaches back so far; the rows themselves stay longer. */
const deadWindowMs = 7 * 24 * 3_600_000;
/** Most that one call purges or replays. */
export const maxDeadPerCall = 1_000;

export type DeadWish = Omit<DeadFilter, 'since'> & { since?: number };

export type DeadVerdict = { id: string } & (
  | { newId: string }
  | { code: ErrorCode; detail: string }
);

export type DeadLetters = {
  list(wish: DeadWish & { cursor?: string; limit: number }): Promise<Page<CommandRecord>>;
  /** `more`: so many were purged that others may be left. */
  purge(wish: DeadWish): Promise<{ purged: number; more: boolean }>;
  /**
   * The newest that fit, in the order in which they were accepted once. Those that were accepted anew are off the
   * list; a command is replayed here at most once a day, however often it is asked for.
   */
  replay(
    wish: DeadWish,
    options: { limit: number; apiKey: string; acceptRisk: boolean },
  ): Promise<DeadVerdict[]>;
};

export type DeadLettersDeps = {
  ledger: Pick<Ledger, 'listDead' | 'purgeDead'>;
  outbound: Pick<Outbound, 'forget'>;
  replay: Replay;
  log: Log;
  now?: () => number;
};

const PAGE = 200;
const AT_ONCE = 20;
/** With these no further command will fare better now. */
const outages: ReadonlySet<ErrorCode> = new Set([
  'STORE_UNAVAILABLE',
  'LEDGER_UNAVAILABLE',
  'QUEUE_UNAVAILABLE',
]);

export function createDeadLetters(deps: DeadLettersDeps): DeadLetters {
  const { ledger, outbound, replay, log, now = Date.now } = deps;

  const within = ({ since = 0, ...wish }: DeadWish): DeadFilter => ({
    ...wish,
    since: Math.max(since, now() - deadWindowMs),
  });

  async function purge(wish: DeadWish) {
    const limit = maxDeadPerCall;
    const gone = await ledger.purgeDead({ ...within(wish), limit, at: now() });
    await atOnce(gone, ({ deviceId, id }) =>
      outbound.forget(deviceId, id).catch((error: unknown) => {
        // The queue's own retention removes it in time.
        log.warn({ error, commandId: id }, 'purged command stays in the queue');
      }),
    );
    return { purged: gone.length, more: gone.length === limit };
  }

  async function newest(wish: DeadWish, limit: number): Promise<CommandRecord[]> {
    const found: CommandRecord[] = [];
    const filter = within(wish);
    for (let cursor: string | null = null; found.length < limit; ) {
      const page: Page<CommandRecord> = await ledger.listDead({
        ...filter,
        ...(cursor !== null && { cursor }),
        limit: Math.min(PAGE, limit - found.length),
      });
      found.push(...page.items);
      cursor = page.nextCursor;
      if (cursor === null) break;
    }
    return found;
  }

  async function replayGroup(
    group: readonly CommandRecord[],
    how: { apiKey: string; acceptRisk: boolean },
  ): Promise<DeadVerdict[]> {
    // Two calls at once, or one that is repeated, must not send a command twice.
    const ends = await replay.replayMany(
      group.map((original) => ({ original, idempotencyKey: replayKey(original.id), ...how })),
    );
    await replay.dismiss(group.filter((_, i) => 'accepted' in ends[i]!));
    return group.map(({ id }, i) => {
      const end = ends[i]!;
      return 'error' in end ? refusal(id, end.error) : { id, newId: end.accepted.record.id };
    });
  }

  return {
    list: ({ cursor, limit, ...wish }) =>
      ledger.listDead({ ...within(wish), ...(cursor !== undefined && { cursor }), limit }),
    purge,
    async replay(wish, { limit, ...how }) {
      const originals = await newest(wish, limit);
      originals.sort((a, b) => a.acceptedAt - b.acceptedAt || (a.id < b.id ? -1 : 1));
      const verdicts: DeadVerdict[] = [];
      for (let i = 0; i < originals.length; i += PAGE) {
        const ends = await replayGroup(originals.slice(i, i + PAGE), how);
        verdicts.push(...ends);
        const outage = ends.find((end) => 'code' in end && outages.has(end.code));
        if (!outage) continue;
        const untried = originals.slice(i + PAGE).map(({ id }) => ({ ...outage, id }));
        return [...verdicts, ...untried];
      }
      return verdicts;
    },
  };
}

/** The Idempotency-Key under which a dead command is replayed without one of the caller's. */
export function replayKey(id: string): string {
  return `replay:${id}`;
}

function refusal(id: string, { code, message }: DownlinkError): DeadVerdict {
  const detail = outages.has(code) ? 'a store is away: replay it later' : message;
  return { id, code, detail };
}

/** The work on all items, so many of them at a time. */
async function atOnce<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const queue = items.values();
  const drain = async () => {
    for (const item of queue) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, drain));
}
