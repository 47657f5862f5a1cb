/** The ledger on PostgreSQL: what was asked, and how it ended. */
import type { Pool } from 'pg';
import { DownlinkError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { claimCommands, unclaimCommand } from './claims.ts';
import { listCommands } from './command-list.ts';
import { type CommandRow, recordList, recordOf } from './command-rows.ts';
import type { Ledger } from './contract.ts';
import { createDatabase } from './database.ts';
import { listDead, purgeDead } from './dead-letters.ts';
import { createLedgerWriter } from './ledger-writer.ts';
import { replacedBy } from './replacements.ts';
import { createRetention, type Retention } from './retention.ts';

export type LedgerDeps = {
  pool: Pool;
  log: Log;
  metrics?: Pick<Metrics, 'dbQueryLatency' | 'ledgerBatchRows'> | undefined;
  /** Rows of one statement. */
  maxBatchRows?: number;
  /** Callers that may wait for their rows; one more is refused. */
  maxPending?: number;
  /** Batches under way at once; every id has its writer, so its rows keep their order. */
  writers?: number;
  statementTimeoutMs?: number;
};

export type PostgresLedger = Ledger &
  Retention & {
    /** Refuses what comes, waits for what was handed over. The pool stays open. */
    close(): Promise<void>;
  };

const findSql = `SELECT ${recordList} FROM commands WHERE id = $1`;
const findManySql = `SELECT ${recordList} FROM commands WHERE id = ANY($1::text[])`;
const clearSql = `
  UPDATE commands SET ledger_only = false WHERE id IN (
    SELECT id FROM commands WHERE id = ANY($1::text[]) AND ledger_only ORDER BY id FOR UPDATE
  )`;
const unfinishedSql = `
  SELECT ${recordList} FROM commands
  WHERE ended IS NULL AND id > $1 AND accepted_at < $2 ORDER BY id LIMIT $3`;
const ledgerOnlySql = `
  SELECT ${recordList} FROM commands
  WHERE ended IS NULL AND ledger_only AND id > $1 AND accepted_at < $2 ORDER BY id LIMIT $3`;

export const overdueSql = `
  SELECT ${recordList} FROM commands
  WHERE ended IS NULL AND deadline <= $1 AND (deadline, id) > ($2::bigint, $3)
  ORDER BY deadline, id LIMIT $4`;

export function createLedger({
  pool,
  log,
  metrics,
  maxBatchRows = 1_000,
  maxPending = 20_000,
  writers: writerCount = 2,
  statementTimeoutMs,
}: LedgerDeps): PostgresLedger {
  const database = createDatabase({ pool, log, metrics, statementTimeoutMs });
  const writers = Array.from({ length: writerCount }, () =>
    createLedgerWriter({ database, maxBatchRows, metrics }),
  );
  const pending = new Set<Promise<unknown>>();
  let closed = false;

  function writerOf(id: string) {
    // The tail of a UUIDv7 is random.
    const hash = id.charCodeAt(id.length - 1) + id.charCodeAt(id.length - 2);
    return writers[hash % writerCount] ?? writers[0]!;
  }

  /** Keeps count of who waits; refuses whom there is no room for. */
  function admit<T>(write: () => Promise<T>): Promise<T> {
    if (closed) return Promise.reject(refusal('the ledger is closed'));
    if (pending.size >= maxPending) {
      return Promise.reject(refusal(`${maxPending} rows wait for the ledger, and no more may`));
    }
    const promise = write();
    const done = () => pending.delete(promise);
    pending.add(promise);
    promise.then(done, done);
    return promise;
  }

  async function flush(): Promise<void> {
    await Promise.allSettled(pending);
  }

  async function records(name: string, text: string, values: readonly unknown[]) {
    return (await database.read<CommandRow>(name, text, values)).map(recordOf);
  }

  return {
    write: (record) => admit(() => writerOf(record.id).write(record)),
    markLedgerOnly: (id) => admit(() => writerOf(id).markLedgerOnly(id)),
    async claim(record, idempotency) {
      const claims = await admit(() => claimCommands(database, [{ record, idempotency }]));
      return claims[0]!;
    },
    claimMany: (claims) => admit(() => claimCommands(database, claims)),
    unclaim: (id) => admit(() => unclaimCommand(database, id)),
    async clearLedgerOnly(ids) {
      if (ids.length > 0) await database.query('ledger.clearLedgerOnly', clearSql, [ids]);
    },
    async find(id) {
      return (await records('ledger.find', findSql, [id]))[0] ?? null;
    },
    async findMany(ids) {
      if (ids.length === 0) return new Map();
      const found = await records('ledger.findMany', findManySql, [ids]);
      return new Map(found.map((record) => [record.id, record]));
    },
    list: (filter) => listCommands(database, filter),
    ...createRetention({ database }),
    unfinished: ({ afterId, acceptedBefore, limit, ledgerOnly }) =>
      ledgerOnly
        ? records('ledger.ledgerOnly', ledgerOnlySql, [afterId ?? '', acceptedBefore, limit])
        : records('ledger.unfinished', unfinishedSql, [afterId ?? '', acceptedBefore, limit]),
    overdue: ({ before, after, limit }) =>
      records('ledger.overdue', overdueSql, [before, after?.deadline ?? 0, after?.id ?? '', limit]),
    replacedBy: (rows) => replacedBy(database, rows),
    listDead: (filter) => listDead(database, filter),
    purgeDead: (filter) => purgeDead(database, filter),
    flush,
    async close() {
      closed = true;
      await flush();
      database.close();
    },
  };
}

function refusal(message: string): DownlinkError {
  return new DownlinkError('LEDGER_UNAVAILABLE', message);
}
