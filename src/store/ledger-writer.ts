/** Batches what is written to the ledger: one statement at a time, many rows each, every id once a batch. */
import { type CommandRecord, isFinal } from '../command.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { logWrittenSql } from './command-log.ts';
import { columnList, recordsFrom, recordValues } from './command-rows.ts';
import type { Database } from './database.ts';
import { isDataFault, unstorable } from './sql-faults.ts';
import { storableJson } from './storable.ts';

export type LedgerWriterDeps = {
  database: Database;
  maxBatchRows: number;
  metrics?: Pick<Metrics, 'ledgerBatchRows'> | undefined;
};

/** Its callers must bound how many promises they hold; each ends within a few statement timeouts. */
export type LedgerWriter = {
  write(record: CommandRecord): Promise<{ applied: boolean }>;
  /** Follows every write of the same id that was handed over before. */
  markLedgerOnly(id: string): Promise<void>;
};

type WriteCaller = {
  record: CommandRecord;
  resolve(result: { applied: boolean }): void;
  reject(error: unknown): void;
};
type MarkCaller = { id: string; resolve(): void; reject(error: unknown): void };

/** What one row becomes, for everybody who wrote it since the last batch. */
type Entry = { record: CommandRecord; writers: WriteCaller[]; markers: MarkCaller[] };

/**
 * Inserts, or replaces an older version of a row that is not final; a final row changes only from
 * unknown to succeeded or rejected. The device's word beats any version: who counts on while it is
 * under way has only not heard it yet. What was asked never changes; trails merge when the row changes.
 */
const writeSql = `
  INSERT INTO commands AS held (${columnList})
  SELECT ${recordValues} FROM ${recordsFrom('$1')}
  ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, version = greatest(held.version, excluded.version),
    reason = excluded.reason,
    code = excluded.code, result = excluded.result, late = excluded.late,
    inferred = excluded.inferred, settled_at = excluded.settled_at,
    trail = held.trail || excluded.trail
  WHERE held.ended IS NULL
      AND (excluded.version > held.version
        OR excluded.status IN ('succeeded', 'rejected', 'unacknowledged'))
    OR held.ended = 'unknown' AND excluded.status IN ('succeeded', 'rejected')
  RETURNING id`;

/** The row and its part of the command log, together or not at all. Its trail is the whole one. */
const loggedAs = 'id, device_id, protocol, command, params, result, trail, ended';
const writeAndLogSql = `
  WITH written AS (${writeSql.replace('RETURNING id', `RETURNING ${loggedAs}`)}),
  logged AS (${logWrittenSql})
  SELECT id FROM written`;

/**
 * A record that its row has overtaken may still know of an attempt that the row does not: it came by way
 * of the stream that stood in for the ledger. What both know stays as the row has it.
 */
const mergeTrailsSql = `
  WITH written AS (UPDATE commands AS held SET trail = record.trail || held.trail
  FROM (
    SELECT commands.id, record.trail FROM json_to_recordset($1::json) AS record (id text, trail jsonb)
    JOIN commands ON commands.id = record.id
    WHERE NOT commands.trail ?& ARRAY(SELECT jsonb_object_keys(record.trail))
    ORDER BY commands.id FOR UPDATE OF commands
  ) AS record
  WHERE held.id = record.id
  RETURNING ${loggedAs.replaceAll(/\w+/g, 'held.$&')})
  ${logWrittenSql}`;

/** The inner query locks the rows in the order in which batches of writes do. */
const markSql = `
  UPDATE commands SET ledger_only = true WHERE id IN (
    SELECT id FROM commands WHERE id = ANY($1::text[]) AND ended IS NULL ORDER BY id FOR UPDATE
  )`;

export function createLedgerWriter({
  database,
  maxBatchRows,
  metrics,
}: LedgerWriterDeps): LedgerWriter {
  /** The batches to come, in the order of their callers. */
  const entries = new Map<string, Entry>();
  /** Records that do not replace the one in `entries`: they follow it, so that the row itself decides. */
  let followers: WriteCaller[] = [];
  let markers: MarkCaller[] = [];
  let running = false;

  function offer(caller: WriteCaller): void {
    const { record } = caller;
    const entry = entries.get(record.id);
    if (!entry) {
      entries.set(record.id, { record, writers: [caller], markers: [] });
    } else if (replaces(record, entry.record)) {
      entry.record = { ...record, trail: { ...entry.record.trail, ...record.trail } };
      entry.writers.push(caller);
    } else {
      followers.push(caller);
    }
  }

  /** At the end of this turn of the event loop when idle; else the next batch fills meanwhile. */
  function wake(): void {
    if (running) return;
    running = true;
    setImmediate(() => void run());
  }

  async function run(): Promise<void> {
    while (entries.size > 0 || markers.length > 0) {
      const batch = takeBatch();
      const marks = [...markers, ...batch.flatMap((entry) => entry.markers)];
      markers = [];
      try {
        await writeAll(batch);
        await markAll(marks);
      } catch (error) {
        refuse(batch, marks, error);
      }
      const waiting = followers;
      followers = [];
      for (const caller of waiting) offer(caller);
    }
    running = false;
  }

  function takeBatch(): Entry[] {
    const batch: Entry[] = [];
    for (const [id, entry] of entries) {
      if (batch.length >= maxBatchRows) break;
      entries.delete(id);
      batch.push(entry);
    }
    // Batches of all processes lock their rows in one order, so none waits for another in a circle.
    return batch.sort((a, b) => (a.record.id < b.record.id ? -1 : 1));
  }

  /** Throws when the store is away; a row that can never be stored is found by halving its batch. */
  async function writeAll(batch: readonly Entry[]): Promise<void> {
    if (batch.length === 0) return;
    try {
      const rows = storableJson(batch.map((entry) => entry.record));
      // Only an end has rows for the log: batches without one do not pay for it.
      const answer = await (batch.some(({ record }) => isFinal(record.status))
        ? database.query<{ id: string }>('ledger.writeAndLog', writeAndLogSql, [rows])
        : database.query<{ id: string }>('ledger.write', writeSql, [rows]));
      metrics?.ledgerBatchRows.observe(batch.length);
      const applied = new Set(answer.rows.map(({ id }) => id));
      await mergeTrails(batch.filter(({ record }) => !applied.has(record.id)));
      for (const { record, writers } of batch) {
        for (const writer of writers) writer.resolve({ applied: applied.has(record.id) });
      }
    } catch (error) {
      if (!isDataFault(error)) throw error;
      await writeParts(batch, error);
    }
  }

  async function mergeTrails(overtaken: readonly Entry[]): Promise<void> {
    const trails = overtaken
      .filter(({ record }) => Object.keys(record.trail).length > 0)
      .map(({ record: { id, trail } }) => ({ id, trail }));
    if (trails.length === 0) return;
    await database.query('ledger.mergeTrails', mergeTrailsSql, [storableJson(trails)]);
  }

  async function writeParts(batch: readonly Entry[], fault: unknown): Promise<void> {
    const [first] = batch;
    if (!first) return;
    if (batch.length > 1) {
      const half = Math.ceil(batch.length / 2);
      await writeAll(batch.slice(0, half));
      await writeAll(batch.slice(half));
    } else if (first.writers.length > 1) {
      for (const writer of first.writers) {
        await writeAll([{ record: writer.record, writers: [writer], markers: [] }]);
      }
    } else {
      first.writers[0]?.reject(unstorable(`command ${first.record.id}`, fault));
    }
  }

  async function markAll(marks: readonly MarkCaller[]): Promise<void> {
    if (marks.length === 0) return;
    await database.query('ledger.markLedgerOnly', markSql, [marks.map(({ id }) => id)]);
    for (const mark of marks) mark.resolve();
  }

  /** The store is away: nobody waits for it in the queue. Whoever was answered already stays answered. */
  function refuse(batch: readonly Entry[], marks: readonly MarkCaller[], error: unknown): void {
    const unwritten = [...batch, ...entries.values()];
    const callers = [
      ...unwritten.flatMap((entry) => entry.writers),
      ...[...entries.values()].flatMap((entry) => entry.markers),
      ...followers,
      ...marks,
      ...markers,
    ];
    entries.clear();
    followers = [];
    markers = [];
    for (const caller of callers) caller.reject(error);
  }

  return {
    write(record) {
      return new Promise((resolve, reject) => {
        offer({ record, resolve, reject });
        wake();
      });
    },
    markLedgerOnly(id) {
      return new Promise((resolve, reject) => {
        const marker = { id, resolve, reject };
        (entries.get(id)?.markers ?? markers).push(marker);
        wake();
      });
    },
  };
}

/** The rule of `writeSql`, for two records of which neither is written yet. */
function replaces(next: CommandRecord, held: CommandRecord): boolean {
  const answered = next.status === 'succeeded' || next.status === 'rejected';
  if (isFinal(held.status)) return held.status === 'unknown' && answered;
  return next.version > held.version || answered || next.status === 'unacknowledged';
}
