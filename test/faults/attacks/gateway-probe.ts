/**
 * Loaded into the gateway process before its own code. On SIGWINCH, which means nothing to a process without a
 * terminal, it collects garbage, counts what is still there, and writes that to standard error. And it makes
 * the vendors' clocks run faster: they fix a minute between heartbeats and ten seconds for a frame, and a test
 * that waits for those three times over, attack by attack, takes an hour.
 */
import { subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { protocols } from '../../../src/protocols/index.ts';

export type Probed = {
  /**
   * Sockets that were ever accepted and are still in memory. Connections, sessions, lanes and timers of a
   * peer lead to its socket, so whatever holds one of them holds it as well.
   */
  sockets: number;
  heapBytes: number;
  rssBytes: number;
};

const heartbeatMs = 1_600;
/** Three frames that never end are more garbage than a connection may send; it must not be idle by then. */
const partialFrameMs = 600;

for (const { limits } of protocols) Object.assign(limits, { heartbeatMs, partialFrameMs });

setFlagsFromString('--expose-gc');
const collect: () => void = runInNewContext('gc');
const accepted = new Set<WeakRef<Socket>>();

subscribe('net.server.socket', (message) => {
  accepted.add(new WeakRef((message as { socket: Socket }).socket));
});

function probe(): void {
  collect();
  for (const each of accepted) if (!each.deref()) accepted.delete(each);
  const { heapUsed, rss } = process.memoryUsage();
  const probed: Probed = { sockets: accepted.size, heapBytes: heapUsed, rssBytes: rss };
  process.stderr.write(`probed ${JSON.stringify(probed)}\n`);
}

process.on('SIGWINCH', () => {
  collect();
  // What the first collection released, handles and their callbacks, is gone a turn later.
  setTimeout(probe, 50);
});
