import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { DownlinkError } from '../errors.ts';

/** Below 32768: the system hands higher ones to outgoing connections. */
const LOWEST = 20_000;
const HIGHEST = 32_000;
const TRIES = 50;

/** A port of 127.0.0.1 that nobody listens on at this moment. */
export async function findFreePort(): Promise<number> {
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    const port = randomInt(LOWEST, HIGHEST);
    if (await isFree(port)) return port;
  }
  throw new DownlinkError(
    'DISCOVERY_FAILED',
    `no free port was found between ${LOWEST} and ${HIGHEST} in ${TRIES} tries`,
  );
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
      server.close(() => resolve(true));
    });
  });
}
