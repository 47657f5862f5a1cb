import { afterEach, expect, test } from 'vitest';
import { createLog } from '../../src/log/log.ts';
import { type AdminServer, createAdminServer } from '../../src/metrics/admin-server.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';

const log = createLog({ level: 'silent', role: 'test' });
let server: AdminServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function serve(deps: Partial<Parameters<typeof createAdminServer>[0]> = {}): Promise<string> {
  server = createAdminServer({
    addr: '127.0.0.1:0',
    registry: createMetrics('worker').registry,
    live: () => true,
    ready: async () => ({ ready: true }),
    log,
    ...deps,
  });
  return `http://${await server.start()}`;
}

test('the worker exposes the outbound metrics by their names, and none of the gateway alone', async () => {
  const metrics = createMetrics('worker');
  metrics.observeQueue(async () => ({ waiting: 3, pending: 2, dead: 1 }));
  metrics.observePool({ totalCount: 5, idleCount: 3, waitingCount: 4 });
  metrics.outboundErrors.inc({ type: 'timeout' });
  const text = await metrics.registry.metrics();
  for (const line of [
    'outbound_queue_size 3',
    'outbound_pending_size 2',
    'outbound_dead_size 1',
    'outbound_sent_total 0',
    'outbound_completed_total 0',
    'outbound_failed_total 0',
    'outbound_timeout_total 0',
    'outbound_late_acks_total 0',
    'outbound_errors_total{type="timeout"} 1',
    'outbound_send_latency_seconds_count 0',
    'outbound_ack_latency_seconds_count 0',
    'db_pool_connections{state="acquired"} 2',
    'db_pool_connections{state="idle"} 3',
    'db_pool_connections{state="waiting"} 4',
  ]) {
    expect(text.split('\n')).toContain(line);
  }
  expect(text).toContain('process_resident_memory_bytes');
  expect(text).not.toContain('gateway_frames_total');
});

test('the gateway exposes its connections as they are at the scrape', async () => {
  const metrics = createMetrics('gateway');
  let open = 1;
  const rest = { maxConnections: 9, waiting: 0, breakerState: 0, breakerFailures: 0, banned: 0 };
  metrics.observeTcp(() => ({ connections: open, ...rest }));
  expect(await metrics.registry.metrics()).toContain('tcp_connections_active 1\n');
  open = 7;
  expect(await metrics.registry.metrics()).toContain('tcp_connections_active 7\n');
});

test('the three queue sizes of one scrape come from one reading', async () => {
  const metrics = createMetrics('api');
  let readings = 0;
  metrics.observeQueue(async () => {
    readings += 1;
    return { waiting: readings, pending: readings, dead: readings };
  });
  await metrics.registry.metrics();
  expect(readings).toBe(1);
  expect(await metrics.registry.metrics()).toContain('outbound_dead_size 2\n');
});

test('a queue that cannot be read does not hide the other metrics', async () => {
  const metrics = createMetrics('worker');
  metrics.observeQueue(async () => {
    throw new Error('redis is away');
  });
  const text = await metrics.registry.metrics();
  expect(text).toMatch(/^outbound_queue_size nan$/im);
  expect(text).toContain('outbound_sent_total 0');
});

test('/metrics answers in the text format of Prometheus', async () => {
  const response = await fetch(`${await serve()}/metrics`);
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
  expect(await response.text()).toContain('# TYPE outbound_sent_total counter');
});

test('/health/live and /health/ready follow what the process says of itself', async () => {
  let [alive, answer] = [true, { ready: true } as { ready: boolean; detail?: string }];
  const base = await serve({ live: () => alive, ready: async () => answer });
  const get = async (path: string) => {
    const response = await fetch(base + path);
    return [response.status, await response.json()];
  };
  expect(await get('/health/live')).toEqual([200, { alive: true }]);
  expect(await get('/health/ready')).toEqual([200, { status: 'healthy', ready: true }]);
  alive = false;
  answer = { ready: false, detail: 'bridge lost' };
  expect(await get('/health/live')).toEqual([503, { alive: false }]);
  expect(await get('/health/ready')).toEqual([
    503,
    { status: 'unhealthy', ready: false, detail: 'bridge lost' },
  ]);
});

test('a readiness check that throws means not ready', async () => {
  const base = await serve({
    ready: async () => {
      throw new Error('no redis');
    },
  });
  const response = await fetch(`${base}/health/ready`);
  expect([response.status, await response.json()]).toEqual([
    503,
    { status: 'unhealthy', ready: false, detail: 'no redis' },
  ]);
});
