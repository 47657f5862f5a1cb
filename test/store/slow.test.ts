import { describe, expect, it } from 'vitest';
import { slowStatements } from '../../src/store/slow.ts';
import { freshDatabase } from '../support/stores.ts';

describe('the slow statements of a database', () => {
  it('are told, or else how to have them counted', async () => {
    const { url } = await freshDatabase();
    const answer = await slowStatements({ url, meanMs: 0, limit: 5 });
    if (answer.available) {
      expect(answer.statements.length).toBeLessThanOrEqual(5);
    } else {
      expect(answer.hint).toMatch(/CREATE EXTENSION pg_stat_statements/);
    }
  });

  it('are asked for with sensible bounds, of a server that is there', async () => {
    const { url } = await freshDatabase();
    const wrong = { code: 'BAD_REQUEST' };
    await expect(slowStatements({ url, meanMs: -1, limit: 5 })).rejects.toMatchObject(wrong);
    await expect(slowStatements({ url, meanMs: 1, limit: 0 })).rejects.toMatchObject(wrong);
    const nowhere = 'postgres://nobody@127.0.0.1:1/nothing';
    await expect(slowStatements({ url: nowhere, meanMs: 1, limit: 5 })).rejects.toMatchObject({
      code: 'LEDGER_UNAVAILABLE',
    });
  });
});
