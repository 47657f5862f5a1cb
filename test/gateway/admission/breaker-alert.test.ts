import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import type { BreakerChange } from '../../../src/gateway/admission/breaker.ts';
import { createBreakerAlert } from '../../../src/gateway/admission/breaker-alert.ts';
import { createLog } from '../../../src/log/log.ts';
import { eventually } from '../../support/eventually.ts';
import { createManualClock } from '../manual-clock.ts';

const opened: BreakerChange = { from: 'closed', to: 'open', failures: 50, at: 1_700_000_000_000 };
const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** Answers each message with the next status; 0: not at all. */
async function createHook(...statuses: number[]) {
  const messages: Record<string, unknown>[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => {
      body += chunk;
    });
    request.on('end', () => {
      messages.push(JSON.parse(body));
      const status = statuses.shift() ?? 204;
      if (status !== 0) response.writeHead(status).end();
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/hooks/secret`, messages };
}

function setUp(webhookUrl?: string, { coalesceMs = 1_000, timeoutMs = 5_000 } = {}) {
  const clock = createManualClock();
  const lines: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
  const alert = createBreakerAlert({
    webhookUrl,
    coalesceMs,
    gatewayId: 'gw-1',
    log: createLog({ level: 'info', role: 'gateway', destination }),
    clock,
    timeoutMs,
    backoffMs: 100,
  });
  return { alert, clock, lines };
}

describe('the breaker alert', () => {
  it('writes one line for each change, an opening as an error', async () => {
    const { alert, lines } = setUp();
    alert.changed(opened);
    alert.changed({ ...opened, from: 'open', to: 'half-open' });
    alert.changed({ ...opened, from: 'half-open', to: 'closed', failures: 0 });
    expect(lines).toMatchObject([
      { level: 'error', gatewayId: 'gw-1', from: 'closed', failures: 50, openings: 1 },
      { level: 'info', msg: 'circuit breaker half-open' },
      { level: 'info', msg: 'circuit breaker closed' },
    ]);
    expect(lines[0]).toMatchObject({ msg: 'circuit breaker opened' });
    await alert.close();
  });

  it('posts an opening as JSON', async () => {
    const { url, messages } = await createHook();
    const { alert } = setUp(url);
    alert.changed(opened);
    await eventually(() => expect(messages).toHaveLength(1));
    expect(messages[0]).toEqual({
      event: 'breaker.opened',
      gatewayId: 'gw-1',
      at: '2023-11-14T22:13:20.000Z',
      failures: 50,
      openings: 1,
      sentence:
        'gateway gw-1 opened its circuit breaker, after 50 failures of its own, and refused new connections',
    });
    await alert.close();
    expect(messages).toHaveLength(1);
  });

  it('tells further openings in one message at the end of the interval', async () => {
    const { url, messages } = await createHook();
    const { alert, clock } = setUp(url);
    alert.changed(opened);
    await eventually(() => expect(messages).toHaveLength(1));
    for (let i = 0; i < 4; i += 1) alert.changed({ ...opened, from: 'half-open', failures: 1 });
    clock.pass(999);
    // The message before may still be under way: only once its answer is in is the interval what holds it.
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(messages).toHaveLength(1);
    clock.pass(1);
    await eventually(() => expect(messages).toHaveLength(2));
    expect(messages[1]).toMatchObject({ event: 'breaker.opened', openings: 4, failures: 1 });
    expect(messages[1]?.['sentence']).toContain(
      '4 times, the last time after 1 failure of its own',
    );
    await alert.close();
  });

  it('is told at once again when the interval passed quietly', async () => {
    const { url, messages } = await createHook();
    const { alert, clock } = setUp(url);
    alert.changed(opened);
    await eventually(() => expect(messages).toHaveLength(1));
    clock.pass(1_000);
    expect(messages).toHaveLength(1);
    alert.changed(opened);
    await eventually(() => expect(messages).toHaveLength(2));
    expect(messages[1]).toMatchObject({ openings: 1 });
    await alert.close();
  });

  it('tries again when the hook is in trouble', async () => {
    const { url, messages } = await createHook(500, 503);
    const { alert, clock, lines } = setUp(url);
    alert.changed(opened);
    await eventually(() => {
      clock.pass(100);
      expect(messages).toHaveLength(3);
    });
    await alert.close();
    expect(lines.filter(({ level }) => level === 'warn')).toEqual([]);
  });

  it('gives up after three tries with a warning that does not tell the secret of the hook', async () => {
    const { url, messages } = await createHook(500, 500, 500);
    const { alert, clock, lines } = setUp(url);
    alert.changed(opened);
    const warning = await eventually(() => {
      clock.pass(100);
      const line = lines.find(({ level }) => level === 'warn');
      expect(line).toBeDefined();
      return line;
    });
    expect(warning).toMatchObject({ tries: 3, error: 'the web hook answered 500' });
    expect(JSON.stringify(lines)).not.toContain('secret');
    expect(messages).toHaveLength(3);
    await alert.close();
  });

  it('does not repeat what the hook will not have', async () => {
    const { url, messages } = await createHook(404);
    const { alert, lines } = setUp(url);
    alert.changed(opened);
    await eventually(() => expect(lines.at(-1)).toMatchObject({ level: 'warn', tries: 1 }));
    await alert.close();
    expect(messages).toHaveLength(1);
  });

  it('does not wait for a hook that never answers, nor pile up messages behind it', async () => {
    const { url, messages } = await createHook(0, 0, 0);
    const { alert, clock, lines } = setUp(url, { coalesceMs: 0, timeoutMs: 50 });
    for (let i = 0; i < 5; i += 1) alert.changed(opened);
    await eventually(() => {
      clock.pass(100);
      expect(lines.some(({ level, tries }) => level === 'warn' && tries === 3)).toBe(true);
    });
    await eventually(() => expect(messages).toHaveLength(4));
    expect(messages[3]).toMatchObject({ openings: 4 });
    await alert.close();
  });

  it('survives a hook that is not there', async () => {
    const { url } = await createHook();
    const server = servers.pop();
    await new Promise((resolve) => server?.close(resolve));
    const { alert, lines } = setUp(url);
    alert.changed(opened);
    await alert.close();
    const warning = lines.find(({ level }) => level === 'warn');
    expect(warning?.['error']).toContain('the web hook did not answer');
  });

  it('does not hold up the end for the next try', async () => {
    const { url, messages } = await createHook(500, 500);
    const { alert, lines, clock } = setUp(url);
    const start = clock.ticks();
    alert.changed(opened);
    await eventually(() => expect(messages).toHaveLength(1));
    // The clock stands: only the end itself can end the wait between two tries.
    await alert.close();
    expect(clock.ticks()).toBe(start);
    expect(messages.length).toBeLessThanOrEqual(2);
    expect(lines.at(-1)).toMatchObject({ level: 'warn' });
  });

  it('tells what is untold when it is closed, and nothing afterwards', async () => {
    const { url, messages } = await createHook();
    const { alert, clock } = setUp(url);
    alert.changed(opened);
    await eventually(() => expect(messages).toHaveLength(1));
    alert.changed(opened);
    alert.changed(opened);
    await alert.close();
    expect(messages[1]).toMatchObject({ openings: 2 });
    alert.changed(opened);
    clock.pass(5_000);
    await alert.close();
    expect(messages).toHaveLength(2);
  });
});
