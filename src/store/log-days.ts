/** The days of the command log: made ahead, dropped whole. The functions are in migration 0006. */
import type { Database } from './database.ts';

export type LogDays = {
  /** Makes the partitions of the days around `now` that are missing; resolves with how many it made. */
  makeLogDays(query: { now: number; daysBack?: number; daysAhead?: number }): Promise<number>;
  /** Drops the oldest day that ended at or before `before`; resolves with its table, or null for none. */
  dropLogDay(before: number): Promise<string | null>;
};

const dayMs = 86_400_000;
/** For what waited in the stream while PostgreSQL was away. */
const defaultDaysBack = 2;
/** So long may every worker stand still before rows come to lie in the default partition. */
const defaultDaysAhead = 3;

const makeSql = 'SELECT make_command_log_day($1::bigint) AS made';
const dropSql = 'SELECT drop_command_log_day($1::bigint) AS dropped';

export function createLogDays({ database }: { database: Database }): LogDays {
  return {
    async makeLogDays({ now, daysBack = defaultDaysBack, daysAhead = defaultDaysAhead }) {
      const today = Math.floor(now / dayMs);
      let count = 0;
      // Today first, and each in a transaction of its own, for each holds its locks to the end.
      for (let day = today; day <= today + daysAhead; day += 1) count += await make(day);
      for (let day = today - 1; day >= today - daysBack; day -= 1) count += await make(day);
      return count;
    },
    async dropLogDay(before) {
      const { rows } = await database.query<{ dropped: string | null }>('log.dropDay', dropSql, [
        before,
      ]);
      return rows[0]?.dropped ?? null;
    },
  };

  async function make(day: number): Promise<number> {
    const { rows } = await database.query<{ made: boolean }>('log.makeDay', makeSql, [day]);
    return rows[0]?.made ? 1 : 0;
  }
}
