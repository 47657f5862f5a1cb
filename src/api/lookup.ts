/** Finds a command by its id alone: in the ledger, or in the queue while the ledger does not have it. */
import type { Outbound } from '../../queues/contract.ts';
import type { Keys } from '../bridge/keys.ts';
import { acceptedState, type Command, type CommandRecord } from '../command.ts';
import { DownlinkError } from '../errors.ts';
import type { Ledger } from '../store/contract.ts';

export type Held = { command: Command; nextVersion: number };

export type Found = { record: CommandRecord; source: 'ledger' | 'queue' };

export type Lookup = {
  /** Rejects with COMMAND_NOT_FOUND, or with 503 when a store that could know is away. */
  find(id: string): Promise<Found>;
};

export type LookupDeps = {
  ledger: Pick<Ledger, 'find'>;
  outbound: Pick<Outbound, 'find'>;
  keys: Keys;
};

const idPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

export function createLookup({ ledger, outbound, keys }: LookupDeps): Lookup {
  const shards = anIdPerShard(keys);

  return {
    async find(id) {
      if (!idPattern.test(id)) throw notFound(id);
      let away: unknown;
      const row = await ledger.find(id).catch((error: unknown) => {
        away = error;
        return null;
      });
      if (row) return { record: row, source: 'ledger' };
      const held = await findInQueue(id);
      if (held) return { record: asAccepted(held.command), source: 'queue' };
      if (away) throw away;
      throw notFound(id);
    },
  };

  /** The id does not tell the shard, so all are asked. */
  async function findInQueue(id: string): Promise<Held | null> {
    const answers = await Promise.all(shards.map((deviceId) => outbound.find(deviceId, id)));
    return answers.find((held) => held !== null) ?? null;
  }
}

/** A command as it was accepted: what is known of it without the ledger. */
export function asAccepted(command: Command): CommandRecord {
  return { ...command, ...acceptedState(command, command.acceptedAt) };
}

function notFound(id: string): DownlinkError {
  return new DownlinkError(
    'COMMAND_NOT_FOUND',
    `there is no command ${JSON.stringify(id.slice(0, 64))}: check its id; ended ones are kept 30 days`,
  );
}

/** One text for each shard that hashes to it. */
function anIdPerShard({ shards, shardOf }: Keys): string[] {
  const ids = new Map<number, string>();
  for (let i = 0; ids.size < shards; i += 1) ids.set(shardOf(String(i)), String(i));
  return [...ids.values()];
}
