import { expect, test } from 'vitest';
import { createLog } from '../../src/log/log.ts';

test('a log line carries its role, its level by name, and the cause of an error', () => {
  const lines: string[] = [];
  const log = createLog({
    level: 'info',
    role: 'gateway',
    destination: { write: (line) => lines.push(line) },
  });
  log.debug('too fine');
  log.warn({ error: new Error('refused', { cause: new Error('why') }) }, 'bridge lost');
  expect(lines).toHaveLength(1);
  const line = JSON.parse(lines[0]!);
  expect(line).toMatchObject({ role: 'gateway', level: 'warn', msg: 'bridge lost' });
  expect(line.error).toMatchObject({ message: 'refused', cause: { message: 'why' } });
});

test('a log line of an error says nothing that a driver hung on it', () => {
  const lines: string[] = [];
  const destination = { write: (line: string) => lines.push(line) };
  const log = createLog({ level: 'info', role: 'gateway', destination });
  const error = Object.assign(new Error('gone'), { code: '57P01', client: { secretKey: 4711 } });
  log.warn({ error }, 'postgres connection lost');
  expect(lines[0]).not.toContain('4711');
  expect(JSON.parse(lines[0]!).error).toMatchObject({ message: 'gone', code: '57P01' });
});
