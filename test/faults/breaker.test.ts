/** The circuit breaker of a gateway with real sockets: our own failures open it, what peers do does not. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { BreakerChange } from '../../src/gateway/admission/breaker.ts';
import {
  type BreakerAlert,
  createBreakerAlert,
} from '../../src/gateway/admission/breaker-alert.ts';
import { systemClock } from '../../src/gateway/clock.ts';
import { createGateway, type Gateway } from '../../src/gateway/gateway.ts';
import { createLog } from '../../src/log/log.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import type { Decoder, Protocol } from '../../src/protocols/protocol.ts';
import { eventually } from '../support/eventually.ts';
import { createRecordingBridge } from '../support/recording-bridge.ts';
import { garbage, heartbeat, idsOf } from './attacks/bytes.ts';

const threshold = 50;
const halfOpenMax = 5;
const banThreshold = 20;
const openMs = 500;
const ids = idsOf('8220', 200);
const quiet = createLog({ level: 'silent', role: 'gateway' });

let gateway: Gateway;
let alert: BreakerAlert;
let hook: Server;
let port: number;
let isBroken: boolean;
let posts: Record<string, unknown>[];
let changes: string[];
let sockets: Socket[];

beforeEach(async () => {
  isBroken = false;
  posts = [];
  changes = [];
  sockets = [];
  hook = createServer(async (request, response) => {
    posts.push(JSON.parse(await textOf(request)));
    response.end();
  });
  hook.listen(0, '127.0.0.1');
  await once(hook, 'listening');
  alert = createBreakerAlert({
    webhookUrl: `http://127.0.0.1:${(hook.address() as AddressInfo).port}/hook`,
    coalesceMs: 600_000,
    gatewayId: 'gw-test',
    log: quiet,
    clock: systemClock,
  });
  gateway = createGateway({
    bridge: createRecordingBridge(),
    protocols: [breakable(bkv)],
    addr: '127.0.0.1:0',
    admission: {
      rateLimit: 10_000,
      rateBurst: 10_000,
      breaker: { threshold, timeoutMs: openMs, halfOpenMax },
      ban: { threshold: banThreshold, windowMs: 60_000, durationMs: 60_000 },
    },
    onBreakerChange(change: BreakerChange) {
      changes.push(change.to);
      alert.changed(change);
    },
    log: quiet,
  });
  const { tcp } = await gateway.start();
  port = Number(tcp.slice(tcp.lastIndexOf(':') + 1));
});

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await gateway.stop();
  await alert.close();
  hook.close();
});

describe('the circuit breaker', () => {
  test('opens on failures of our own, says so once, and closes when logins are answered again', async () => {
    isBroken = true;
    for (const id of ids.slice(0, threshold)) await peer(heartbeat(id));
    await eventually(() => expect(changes).toEqual(['open']));
    expect(gateway.counts.closed.internal).toBe(threshold);
    await eventually(() => expect(posts).toHaveLength(1));
    expect(posts[0]).toMatchObject({ event: 'breaker.opened', gatewayId: 'gw-test', openings: 1 });

    const refused = await peer(heartbeat(ids[0]!));
    await gone(refused);
    expect(gateway.counts.refused.breaker).toBe(1);

    await eventually(() => expect(changes).toEqual(['open', 'half-open']));
    await gone(await peer(heartbeat(ids[0]!)));
    await eventually(() => expect(changes).toEqual(['open', 'half-open', 'open']));

    isBroken = false;
    await eventually(() => expect(changes.slice(3)).toEqual(['half-open']));
    for (const id of ids.slice(0, halfOpenMax)) await answered(await peer(heartbeat(id)));
    await eventually(() => expect(changes.slice(3)).toEqual(['half-open', 'closed']));
    await answered(await peer(heartbeat(ids[100]!)));
    expect(posts).toHaveLength(1);
  });

  test('does not open on garbage: the address it comes from is refused instead', async () => {
    const devices = await Promise.all(ids.slice(0, 3).map((id) => peer(heartbeat(id))));
    await Promise.all(devices.map(answered));
    for (let i = 0; i < 2 * threshold; i += 1) await gone(await peer(garbage(2_048), '127.0.0.9'));
    expect(gateway.counts.closed['no-frame']).toBe(banThreshold);
    expect(gateway.counts.refused.banned).toBe(2 * threshold - banThreshold);
    await gone(await peer(heartbeat(ids[3]!), '127.0.0.9'));
    expect(changes).toEqual([]);
    await answered(await peer(heartbeat(ids[4]!)));
  });

  test('does not open on garbage from where devices are logged in, which stay welcome there', async () => {
    const device = await peer(heartbeat(ids[0]!));
    await answered(device);
    for (let i = 0; i < 2 * threshold; i += 1) await gone(await peer(garbage(2_048)));
    expect(gateway.counts.closed['no-frame']).toBe(2 * threshold);
    expect(gateway.counts.refused.banned).toBe(0);
    expect(changes).toEqual([]);
    await answered(await peer(heartbeat(ids[1]!)));
    const heard = device.bytesRead;
    device.write(heartbeat(ids[0]!));
    await eventually(() => expect(device.bytesRead).toBeGreaterThan(heard));
  });
});

/** The protocol, whose decoder throws while ours is said to be broken. */
function breakable(protocol: Protocol): Protocol {
  return {
    ...protocol,
    decoder(direction): Decoder {
      const decoder = protocol.decoder(direction);
      return {
        push(chunk) {
          if (isBroken) throw new TypeError('a fault of our own');
          return decoder.push(chunk);
        },
        giveUp: () => decoder.giveUp(),
        get pending() {
          return decoder.pending;
        },
      };
    },
  };
}

/** A peer that connects and says this; refused ones may be gone before they have said it. */
async function peer(bytes: Uint8Array, localAddress = '127.0.0.1'): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port, localAddress, noDelay: true });
  sockets.push(socket);
  socket.on('error', () => undefined);
  socket.resume();
  socket.once('connect', () => socket.write(bytes));
  await Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(() => undefined);
  return socket;
}

async function gone(socket: Socket): Promise<void> {
  await eventually(() => expect(socket.destroyed).toBe(true));
}

/** Its heartbeat was answered. */
async function answered(socket: Socket): Promise<void> {
  await eventually(() => expect(socket.bytesRead).toBeGreaterThan(0));
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text;
}
