/** Looks at the commands of a batch while it runs, and when it is over. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Answer, ShownCommand } from '../support/api-client.ts';
import type { Stack } from '../support/stack.ts';
import type { Shown, Sight } from './story.ts';

/** `giveUpAt`: it should have had its end long before. */
export type AcceptedCommand = { id: string; giveUpAt: number };

const sightEveryMs = 250;
const pageSize = '200';
const showAtOnce = 8;

/** Looks at all commands of the batch again and again, and keeps every change that it sees. */
export function createSights(stack: Stack, since: string) {
  const all: Sight[] = [];
  const last = new Map<string, Sight>();
  const finals = new Set<string>();
  let stopped = false;
  let wake: (() => void) | undefined;

  async function look(): Promise<void> {
    for (let cursor: string | null = null; ; ) {
      const query = new URLSearchParams({
        limit: pageSize,
        from: since,
        ...(cursor && { cursor }),
      });
      const at = Date.now();
      const page: Answer = await stack.api.request('GET', `/v1/commands?${query}`);
      if (page.status !== 200) throw new Error(`the list answers ${page.status}`);
      for (const { id, status, late, final } of page.body['items'] as ShownCommand[]) {
        if (final) finals.add(id);
        const before = last.get(id);
        if (before?.status === status && before.late === late) continue;
        const sight = { id, at, status, late };
        last.set(id, sight);
        all.push(sight);
      }
      cursor = page.body['nextCursor'];
      if (cursor === null) return;
    }
  }

  const looking = (async () => {
    while (!stopped) {
      await look();
      await Promise.race([delay(sightEveryMs), new Promise<void>((resolve) => (wake = resolve))]);
    }
  })();
  looking.catch(() => undefined);

  return {
    all,
    /** Resolves when all have an end, or should have had one long ago. */
    async everyEnd(commands: readonly AcceptedCommand[]): Promise<void> {
      const isOpen = ({ id, giveUpAt }: AcceptedCommand) =>
        !finals.has(id) && giveUpAt > Date.now();
      while (commands.some(isOpen)) await Promise.race([delay(100), looking]);
    },
    async stop(): Promise<void> {
      stopped = true;
      wake?.();
      await looking;
    },
  };
}

/** Every command as GET /v1/commands/:id shows it. */
export async function showAll(
  stack: Stack,
  ids: readonly string[],
): Promise<ReadonlyMap<string, Shown>> {
  const records = new Map<string, Shown>();
  const left = [...ids];
  const show = async () => {
    for (let id = left.pop(); id !== undefined; id = left.pop()) {
      records.set(id, (await stack.api.command(id)) as ShownCommand & Shown);
    }
  };
  await Promise.all(Array.from({ length: showAtOnce }, show));
  return records;
}
