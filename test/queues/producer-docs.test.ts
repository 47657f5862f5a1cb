/** The examples of docs/producers.md, run as they stand there against the whole of downlink. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { type Stack, startStack } from '../support/stack.ts';

const root = join(import.meta.dirname, '../..');
const page = readFileSync(join(root, 'docs/producers.md'), 'utf8');
const deviceId = '82200520004869';

let stack: Stack;
beforeAll(async () => {
  stack = await startStack();
  await stack.api.request('PUT', `/v1/devices/${deviceId}`, {});
});
afterAll(() => stack?.stop());

/** Runs a block of code of the page by its name and resolves with the JSON it prints. */
async function runExample(name: string): Promise<{ id: string }> {
  const code = new RegExp(`\`\`\`js\n// ${name}\n([\\s\\S]*?)\`\`\``).exec(page)?.[1];
  if (code === undefined) throw new Error(`docs/producers.md has no example ${name}`);
  // The package's own name leads to what was built; here the sources stand in.
  const local = code.replace("'downlink/queues'", "'./queues/index.ts'");
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--input-type=module', '--eval', local],
    {
      cwd: root,
      timeout: 15_000,
      env: {
        PATH: process.env['PATH'],
        REDIS_URL: stack.redisUrl,
        DOWNLINK_REDIS_PREFIX: stack.prefix,
      },
    },
  );
  return JSON.parse(stdout) as { id: string };
}

test.each(['producer.mjs', 'raw.mjs'])(
  'a command that %s adds waits for its device as any other',
  async (name) => {
    const { id } = await runExample(name);
    await eventually(async () => {
      expect(await stack.api.command(id)).toMatchObject({
        id,
        deviceId,
        command: 'port.query',
        status: 'parked',
        apiKey: 'billing',
        maxAttempts: 4,
      });
    });
  },
);
