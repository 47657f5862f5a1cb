import { Writable } from 'node:stream';
import { expect, it } from 'vitest';
import { createLog } from '../../src/log/log.ts';

it('says of an error what helps, and nothing that a driver hung on it', () => {
  const lines: string[] = [];
  const destination = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk));
      done();
    },
  });
  const log = createLog({ level: 'info', role: 'test', destination });
  const cause = new Error('connection refused');
  const error = new Error('postgres is away', { cause });
  log.warn({ error: Object.assign(error, { code: '57P01', client: { secretKey: 4711 } }) }, 'lost');
  const [line = ''] = lines;
  expect(line).not.toContain('4711');
  expect(JSON.parse(line)).toMatchObject({
    msg: 'lost',
    error: { message: 'postgres is away', code: '57P01', cause: { message: 'connection refused' } },
  });
});
