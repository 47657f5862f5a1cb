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
  /**
   * Takes back a command that was stored by `claim` or `write` but refused a moment later, and its key with it.
   * False when the row is not as it was accepted any more. Not batched.
   */
  unclaim(id: string): Promise<boolean>;
  /** Many claims in one statement; one verdict each, in order. A key given twice: the first wins. */
  claimMany(
    claims: readonly { record: CommandRecord; idempotency: Idempotency }[],
  ): Promise<Claim[]>;
  /** Unfinished rows past their deadline, in the order of (deadline, id), for the sweeper. */
  overdue(query: {
    before: number;
    after: { deadline: number; id: string } | null;
    limit: number;
  }): Promise<CommandRecord[]>;
  /**
   * Of these rows' devices and order keys: the newest command of these names that was accepted later than the
   * row, by row id. Tells after a loss of the queue store which command a stop had already replaced.
   */
  replacedBy(
    rows: readonly { id: string; deviceId: string; orderKey: string; names: readonly string[] }[],
  ): Promise<Map<string, string>>;
  /** Commands that ended as failed or unknown, were not purged, and settled at or after `since`; newest first. */
  listDead(filter: DeadFilter & { cursor?: string; limit: number }): Promise<Page<CommandRecord>>;
  /** Takes up to `limit` of them off that list; the rows stay. Resolves with those that were taken off. */
  purgeDead(
    filter: DeadFilter & { limit: number; at: number },
  ): Promise<{ id: string; deviceId: string }[]>;
  /** Resolves when everything handed over so far is on disk or refused. */
  flush(): Promise<void>;
};

/** Times are of `settledAt`, Unix milliseconds. */
export type DeadFilter = {
  ids?: readonly string[];
  deviceId?: string;
  command?: string;
  /** The command's code, such as NO_ACK. */
  code?: string;
  status?: 'failed' | 'unknown';
  since: number;
  until?: number;
};

export type Pause = { deviceId: string; pausedAt: number; by: string; reason: string | null };

/** Devices whose commands are held back by order of an operator. */
export type Pauses = {
  /** False when it was paused already; the first pause stands. */
  pause(pause: Pause): Promise<boolean>;
  /** False when it was not paused. */
  resume(deviceId: string): Promise<boolean>;
  find(deviceId: string): Promise<Pause | null>;
  /** All of them, by device id. */
  list(query: { afterId: string | null; limit: number }): Promise<Pause[]>;
};

export type Schedule = {
  key: string;
  /** A cron expression, or null where `everyMs` is given. */
  cron: string | null;
  everyMs: number | null;
  /** IANA name. */
  timeZone: string;
  /** The body that every tick hands to accept. */
  body: Record<string, unknown>;
  apiKey: string;
  createdAt: number;
  updatedAt: number;
  /** Of the last tick that was handed to accept: when it was due and what came of it. */
  lastTickAt: number | null;
  lastCommandId: string | null;
  lastError: string | null;
};

export type Schedules = {
  /** True when it is new. */
  put(
    schedule: Pick<
      Schedule,
      'key' | 'cron' | 'everyMs' | 'timeZone' | 'body' | 'apiKey' | 'updatedAt'
    >,
  ): Promise<boolean>;
  find(key: string): Promise<Schedule | null>;
  list(query: { cursor?: string; limit: number }): Promise<Page<Schedule>>;
  remove(key: string): Promise<boolean>;
  ticked(
    key: string,
    tick: { at: number; commandId: string | null; error: string | null },
  ): Promise<void>;
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
  /** Reports of a device by these names, newest first: before a moment, or at and after it. */
  recent(query: {
    deviceId: string;
    names: readonly string[];
    before?: number;
    since?: number;
    limit: number;
  }): Promise<StoredReport[]>;
};
