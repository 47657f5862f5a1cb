/** What devices reported, as it came: the part of the command log that no command caused. */
import { createCommandLog } from './command-log.ts';
import type { Reports, StoredReport } from './contract.ts';
import type { Database } from './database.ts';

const recentSql = `
  SELECT entry_id AS "entryId", device_id AS "deviceId", protocol, name, weight, at,
    msg_id AS "msgId", fields, frame
  FROM command_log
  WHERE device_id = $1 AND at >= $3 AND at < $4 AND name = ANY($2::text[])
    AND direction = 'up' AND command_id IS NULL
  ORDER BY at DESC, entry_id DESC LIMIT $5`;

type ReportRow = Omit<StoredReport, 'at' | 'msgId'> & { at: string; msgId: string };

/** A report that can never be stored rejects with INTERNAL, after all others of the call were stored. */
export function createReports({ database }: { database: Database }): Reports {
  const log = createCommandLog({ database });
  return {
    add(reports) {
      const up = { direction: 'up', commandId: null } as const;
      return log.add(reports.map((report) => ({ ...report, ...up })));
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
