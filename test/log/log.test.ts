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
  expect(line.error.message).toContain('refused');
  expect(line.error.stack).toContain('why');
});
