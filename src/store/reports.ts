/** What devices reported, as it came: the raw record behind ports, orders and the command log. */
import type { Reports, StoredReport } from './contract.ts';
import type { Database } from './database.ts';
import { isDataFault, unstorable } from './sql-faults.ts';
import { storableJson } from './storable.ts';

const maxReportsPerStatement = 500;

const addSql = `
  INSERT INTO device_reports (entry_id, device_id, protocol, name, weight, at, msg_id, fields, frame)
  SELECT "entryId", "deviceId", protocol, name, weight, at, "msgId", fields, frame
  FROM json_to_recordset($1::json) AS report ("entryId" text, "deviceId" text, protocol text,
    name text, weight text, at bigint, "msgId" bigint, fields jsonb, frame text)
  ON CONFLICT (entry_id) DO NOTHING`;

const reportList = `entry_id AS "entryId", device_id AS "deviceId", protocol, name, weight, at,
  msg_id AS "msgId", fields, frame`;

const recentSql = `
  SELECT ${reportList} FROM device_reports
  WHERE device_id = $1 AND name = ANY($2::text[]) AND at >= $3 AND at < $4
  ORDER BY at DESC, entry_id DESC LIMIT $5`;

type ReportRow = Omit<StoredReport, 'at' | 'msgId'> & { at: string; msgId: string };

/** A report that can never be stored rejects with INTERNAL, after all others of the call were stored. */
export function createReports({ database }: { database: Database }): Reports {
  return {
    async add(reports) {
      const sorted = reports.toSorted((a, b) => (a.entryId < b.entryId ? -1 : 1));
      const faults: unknown[] = [];
      for (let start = 0; start < sorted.length; start += maxReportsPerStatement) {
        await addAll(database, sorted.slice(start, start + maxReportsPerStatement), faults);
      }
      if (faults.length > 0) throw faults[0];
    },
    async recent({ deviceId, names, before, since, limit }) {
      const rows = await database.read<ReportRow>('reports.recent', recentSql, [
        deviceId,
        names,
        since ?? 0,
        before ?? Number.MAX_SAFE_INTEGER,
        limit,
      ]);
      return rows.map((row) => ({ ...row, at: Number(row.at), msgId: Number(row.msgId) }));
    },
  };
}

/** Halves a batch that cannot be stored as a whole, until it has found the report that cannot. */
async function addAll(
  database: Database,
  reports: readonly StoredReport[],
  faults: unknown[],
): Promise<void> {
  try {
    await database.query('reports.add', addSql, [storableJson(reports)]);
  } catch (error) {
    if (!isDataFault(error)) throw error;
    if (reports.length === 1) {
      faults.push(unstorable(`device report ${reports[0]?.entryId}`, error));
      return;
    }
    const half = Math.ceil(reports.length / 2);
    await addAll(database, reports.slice(0, half), faults);
    await addAll(database, reports.slice(half), faults);
  }
}
