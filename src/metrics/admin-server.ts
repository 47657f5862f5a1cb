/** What a process tells operators: /metrics, /health/live, /health/ready. */
import type { AddressInfo } from 'node:net';
import Fastify from 'fastify';
import { ALL_INTERFACES, formatAddr, parseAddr } from '../config/addr.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Registry } from './metrics.ts';

export type Readiness = { ready: boolean; detail?: string };

export type AdminServerDeps = {
  /** ":9101"; port 0: any free one. */
  addr: string;
  registry: Registry;
  /** False once the process shall be replaced. */
  live: () => boolean;
  /** True while the process can do its work. */
  ready: () => Promise<Readiness>;
  log: Log;
};

export type AdminServer = {
  /** Listens; resolves with the address as text. */
  start(): Promise<string>;
  close(): Promise<void>;
};

const READY_TIMEOUT_MS = 3_000;

export function createAdminServer({
  addr,
  registry,
  live,
  ready,
  log,
}: AdminServerDeps): AdminServer {
  const app = Fastify({ forceCloseConnections: true });

  app.get('/metrics', async (_request, reply) => {
    reply.type(registry.contentType);
    return registry.metrics();
  });
  app.get('/health/live', async (_request, reply) => {
    const alive = live();
    reply.code(alive ? 200 : 503);
    return { alive };
  });
  app.get('/health/ready', async (_request, reply) => {
    const answer = await readiness(ready);
    reply.code(answer.ready ? 200 : 503);
    return { status: answer.ready ? 'healthy' : 'unhealthy', ...answer };
  });

  return {
    async start() {
      const { host = ALL_INTERFACES, port } = parseAddr(addr);
      await app.listen({ host, port });
      const text = formatAddr(app.server.address() as AddressInfo);
      log.debug({ addr: text }, 'admin server listens');
      return text;
    },
    close: () => app.close(),
  };
}

/** A check that throws or hangs is an answer too. */
async function readiness(ready: AdminServerDeps['ready']): Promise<Readiness> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<Readiness>((resolve) => {
    const detail = `the readiness check did not answer within ${READY_TIMEOUT_MS} ms`;
    timer = setTimeout(() => resolve({ ready: false, detail }), READY_TIMEOUT_MS);
  });
  try {
    return await Promise.race([ready(), timeout]);
  } catch (error) {
    return { ready: false, detail: messageOf(error) };
  } finally {
    clearTimeout(timer);
  }
}
