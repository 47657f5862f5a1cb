import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { createLifecycle } from '../../src/lifecycle/lifecycle.ts';
import { createLog } from '../../src/log/log.ts';

const log = createLog({ level: 'silent', role: 'test' });

test('what was opened last is closed first, and only once', async () => {
  const lifecycle = createLifecycle({ log });
  const closed: string[] = [];
  for (const name of ['pool', 'queue', 'server']) {
    lifecycle.onClose(name, async () => closed.push(name));
  }
  await Promise.all([lifecycle.close(), lifecycle.close()]);
  expect(closed).toEqual(['server', 'queue', 'pool']);
  expect(lifecycle.closing()).toBe(true);
});

test('an error does not keep the rest open, and the first one is told', async () => {
  const lifecycle = createLifecycle({ log });
  const closed: string[] = [];
  lifecycle.onClose('pool', () => closed.push('pool'));
  lifecycle.onClose('second', () => {
    throw new Error('second error');
  });
  lifecycle.onClose('first', async () => {
    throw new Error('first error');
  });
  await expect(lifecycle.close()).rejects.toThrow('first error');
  expect(closed).toEqual(['pool']);
});

test('a closer that hangs is left behind after its bound', async () => {
  const lifecycle = createLifecycle({ log });
  const closed: string[] = [];
  lifecycle.onClose('pool', () => closed.push('pool'));
  lifecycle.onClose('socket', () => new Promise(() => undefined), 20);
  await expect(lifecycle.close()).rejects.toMatchObject({
    code: 'TIMEOUT',
    message: 'socket did not close within 20 ms',
  });
  expect(closed).toEqual(['pool']);
});

/** A process whose closer takes `closeMs`, with `graceMs` to end. */
async function startProcess(closeMs: number, graceMs: number, more = '') {
  const script = `
    import { createLifecycle, onSignal } from ${JSON.stringify(new URL('../../src/lifecycle/lifecycle.ts', import.meta.url).href)};
    import { createLog } from ${JSON.stringify(new URL('../../src/log/log.ts', import.meta.url).href)};
    const lifecycle = createLifecycle({ log: createLog({ level: 'info', role: 'test' }) });
    const timer = setInterval(() => {}, 1000);
    lifecycle.onClose('work', async () => {
      console.log('closing');
      await new Promise((resolve) => setTimeout(resolve, ${closeMs}));
      console.log('closed');
    }, 60000);
    lifecycle.endOnSignals({ graceMs: ${graceMs} });
    ${more}
    console.log('ready');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let output = '';
  const until = async (text: string) => {
    while (!output.includes(text)) await once(child.stdout, 'data');
  };
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  const exit = once(child, 'exit');
  await until('ready');
  return { child, until, exit, output: () => output };
}

test('a signal closes everything and ends the process with 0', async () => {
  const { child, exit, output } = await startProcess(10, 5000);
  child.kill('SIGTERM');
  expect(await exit).toEqual([0, null]);
  expect(output()).toContain('closed');
});

test('a second signal ends the process at once', async () => {
  const { child, until, exit, output } = await startProcess(60_000, 60_000);
  child.kill('SIGTERM');
  await until('closing');
  child.kill('SIGTERM');
  expect(await exit).toEqual([1, null]);
  expect(output()).not.toContain('closed');
});

test('a drain that takes too long ends with 1', async () => {
  const { child, exit } = await startProcess(60_000, 50);
  child.kill('SIGINT');
  expect(await exit).toEqual([1, null]);
});

test('a hang-up ends a process that has nothing to read again', async () => {
  const { child, exit, output } = await startProcess(10, 5000);
  child.kill('SIGHUP');
  expect(await exit).toEqual([0, null]);
  expect(output()).toContain('closed');
});

test('a hang-up does not end a process that listens for it', async () => {
  const { child, exit, until, output } = await startProcess(
    10,
    5000,
    "onSignal('SIGHUP', () => console.log('read again'));",
  );
  child.kill('SIGHUP');
  await until('read again');
  child.kill('SIGHUP');
  await until('read again\nread again');
  expect(output()).not.toContain('closing');
  child.kill('SIGTERM');
  expect(await exit).toEqual([0, null]);
});

test('a process that ends by itself keeps the exit code it was given', async () => {
  const { exit } = await startProcess(10, 5000, 'process.exitCode = 3; clearInterval(timer);');
  expect(await exit).toEqual([3, null]);
});
