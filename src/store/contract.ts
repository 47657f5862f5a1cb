/** What the ledger does for the processes. Implemented in this folder; SQL lives nowhere else. */
import type { CommandRecord, Status } from '../command.ts';

export type Idempotency = {
  apiKey: string;
  key: string;
  /** Hash of the canonical body. */
  bodyHash: string;
  /** The claim holds until then, Unix milliseconds. */
  expiresAt: number;
};

export type Claim =
  | { claimed: true }
  /** The key was used with the same body: that command. */
  | { claimed: false; same: true; record: CommandRecord }
  /** The key was used with another body. */
  | { claimed: false; same: false; id: string };

export type CommandFilter = {
  deviceId?: string;
  status?: readonly Status[];
  command?: string;
  /** acceptedAt range, Unix milliseconds, from inclusive, to exclusive. */
  from?: number;
  to?: number;
  cursor?: string;
  limit: number;
};

export type Page<T> = { items: T[]; nextCursor: string | null };

export type Ledger = {
  /**
   * Writes the record if it is news: inserts it, or replaces an older version of a row that is not
   * final (a final row changes only unknown → succeeded | rejected). Trails merge. Batched: resolves
   * when the row is on disk; resolves too when the row was already newer. `applied` tells which.
   * Rejects with LEDGER_UNAVAILABLE.
   */
  write(record: CommandRecord): Promise<{ applied: boolean }>;
  /** Accept under an Idempotency-Key: the insert itself is the claim. Not batched. */
  claim(record: CommandRecord, idempotency: Idempotency): Promise<Claim>;
  /** The queue did not take it: the reaper shall. Batched. */
  markLedgerOnly(id: string): Promise<void>;
  /** The queue has it now. */
  clearLedgerOnly(ids: readonly string[]): Promise<void>;
  find(id: string): Promise<CommandRecord | null>;
  findMany(ids: readonly string[]): Promise<Map<string, CommandRecord>>;
  list(filter: CommandFilter): Promise<Page<CommandRecord>>;
  /** Unfinished rows in the order of their ids (UUIDv7: acceptance order), for the reaper. */
  unfinished(query: {
    afterId: string | null;
    acceptedBefore: number;
    limit: number;
    ledgerOnly: boolean;
  }): Promise<CommandRecord[]>;
  /** Resolves when everything handed over so far is on disk or refused. */
  flush(): Promise<void>;
};

export type Device = {
  deviceId: string;
  protocol: string;
  firstSeenAt: number | null;
  lastSeenAt: number | null;
  /** What the device said of itself: firmware, iccid, signal, … */
  facts: Record<string, unknown>;
};

export type Devices = {
  find(deviceId: string): Promise<Device | null>;
  list(query: {
    protocol?: string;
    cursor?: string;
    limit: number;
    /** Only these ids, when given. */
    seenSince?: number;
  }): Promise<Page<Device>>;
  /** Registers a device ahead of its first connection; true when it is new. */
  register(deviceId: string, protocol: string): Promise<boolean>;
  /** Sightings, at most one a device a call; merges facts and never moves lastSeenAt back. */
  seen(
    sightings: readonly {
      deviceId: string;
      protocol: string;
      at: number;
      facts: Record<string, unknown>;
    }[],
  ): Promise<void>;
};

export type StoredReport = {
  /** The stream entry's id: a report is stored once, however often the entry is read. */
  entryId: string;
  deviceId: string;
  protocol: string;
  name: string;
  weight: string;
  at: number;
  msgId: number;
  fields: Record<string, unknown>;
  frame: string;
};

export type Reports = {
  /** Stores reports, each entry id once. */
  add(reports: readonly StoredReport[]): Promise<void>;
};
