/**
 * Devices that do everything right: each logs in, beats on time, and answers every query at once. What they
 * measure is theirs alone: nothing but them runs in this process.
 */
import { connect } from 'node:net';
import { bkvSize } from '../../support/plain-device.ts';
import { heartbeat, queryReply } from './bytes.ts';
import { serve } from './child.ts';
import type { ConnectRequest, DevicesSeen } from './devices.ts';

const heartbeatReply = 0x0000;
const portQuery = 0x0015;

let loggedIn = 0;
let lost = 0;
let queries = 0;
let since = performance.now();
let samples: number[] = [];
/** When the beats that wait for their answer were sent, oldest first, by device. */
const unanswered: number[][] = [];

function startDevice({ host, port, everyMs }: ConnectRequest, deviceId: string): Promise<void> {
  const socket = connect({ host, port, noDelay: true });
  const beat = heartbeat(deviceId);
  const sent: number[] = [];
  unanswered.push(sent);
  let held: Buffer = Buffer.alloc(0);
  let timer: NodeJS.Timeout | undefined;
  let isIn = false;
  const send = () => {
    sent.push(performance.now());
    socket.write(beat);
  };
  return new Promise((resolve) => {
    const hear = (frame: Buffer) => {
      const cmd = frame.readUInt16BE(4);
      if (cmd === portQuery) {
        queries += 1;
        socket.write(queryReply(deviceId, frame.toString('hex', 6, 10)));
        return;
      }
      if (cmd !== heartbeatReply) return;
      const sentAt = sent.shift();
      if (sentAt !== undefined && sentAt >= since) samples.push(performance.now() - sentAt);
      if (isIn) return;
      isIn = true;
      loggedIn += 1;
      // Not all in the same moment of every second.
      setTimeout(() => {
        timer = setInterval(send, everyMs);
      }, Math.random() * everyMs);
      resolve();
    };
    socket.on('connect', send);
    socket.on('data', (chunk) => {
      held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
      for (let size = bkvSize(held); size !== null && held.length >= size; size = bkvSize(held)) {
        hear(held.subarray(0, size));
        held = held.subarray(size);
      }
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      clearInterval(timer);
      sent.length = 0;
      lost += 1;
      if (isIn) loggedIn -= 1;
      resolve();
    });
  });
}

async function connectAll(request: ConnectRequest): Promise<void> {
  const logins: Promise<void>[] = [];
  for (const deviceId of request.ids) {
    logins.push(startDevice(request, deviceId));
    await new Promise((resolve) => setTimeout(resolve, 1_000 / request.perSecond));
  }
  await Promise.all(logins);
}

/** Beats sent since the mark; one that waits still has taken as long as it waits. */
function seen(): DevicesSeen {
  const now = performance.now();
  const waiting = unanswered.flat().filter((sentAt) => sentAt >= since);
  return { loggedIn, lost, queries, beatMs: [...samples, ...waiting.map((at) => now - at)] };
}

serve((what, given) => {
  if (what === 'connect') return connectAll(given);
  if (what === 'seen') return seen();
  since = performance.now();
  samples = [];
});
