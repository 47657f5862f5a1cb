/** One attack, with the sockets and the processor time of its own process. */

import { writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { setPriority } from 'node:os';
import type { AttackKind, AttackRequest, AttackSeen } from './attacker.ts';
import { endlessFrame, garbage, heartbeat, largestFrame } from './bytes.ts';
import { serve } from './child.ts';

/** A peer of the attack; what it does once it is connected is the attack. */
type Peer = {
  socket: Socket;
  deviceId: string;
  /** Again and again, until the connection is gone. */
  every(ms: number, act: () => void): void;
  /** Says a heartbeat and waits for the first bytes that come back. */
  logIn(): Promise<void>;
};

type Habit = {
  connected(peer: Peer): void;
  /** After how long a connection that ended is made anew; absent: never. */
  againMs?: number;
};

/** Attackers live on other machines: ours is not to be busy with being them. */
const lowest = 19;
const stubbornMs = 50;
const floodFrames = 200;

const habits: Record<AttackKind, Habit> = {
  silent: { connected: () => undefined },
  garbage: { connected: ({ socket }) => void socket.write(garbage(2_048)) },
  'garbage again': {
    connected: ({ socket }) => void socket.write(garbage(2_048)),
    againMs: stubbornMs,
  },
  'half a frame': {
    async connected(peer) {
      await peer.logIn();
      peer.socket.write(heartbeat(peer.deviceId).subarray(0, 30));
    },
  },
  'half a first frame': {
    connected: ({ socket, deviceId }) => void socket.write(heartbeat(deviceId).subarray(0, 30)),
  },
  'a byte a second': {
    connected(peer) {
      const frame = heartbeat(peer.deviceId);
      let at = 0;
      peer.socket.write(frame.subarray(0, 1));
      peer.every(1_000, () => {
        at += 1;
        peer.socket.write(frame.subarray(at % frame.length, (at % frame.length) + 1));
      });
    },
  },
  'endless frames': {
    async connected(peer) {
      await peer.logIn();
      const begin = () => void peer.socket.write(endlessFrame(peer.deviceId, largestFrame - 96));
      begin();
      peer.every(100, () => void peer.socket.write(Buffer.alloc(1)));
      // Once the one before was given up: a frame in a frame would fill it.
      peer.every(700, begin);
    },
  },
  deaf: {
    connected(peer) {
      peer.socket.pause();
      const frame = heartbeat(peer.deviceId);
      peer.socket.write(frame);
      peer.every(100, () => void peer.socket.write(frame));
    },
  },
  'deaf flood': {
    connected(peer) {
      peer.socket.pause();
      flood(peer);
    },
  },
  flood: {
    async connected(peer) {
      await peer.logIn();
      flood(peer);
    },
  },
  resets: { connected: ({ socket }) => void socket.resetAndDestroy(), againMs: 0 },
  'resets after login': {
    async connected(peer) {
      await peer.logIn();
      peer.socket.resetAndDestroy();
    },
    againMs: 0,
  },
  storm: { connected: () => undefined, againMs: 0 },
  crowd: {
    connected(peer) {
      const frame = heartbeat(peer.deviceId);
      peer.socket.write(frame);
      peer.every(500, () => void peer.socket.write(frame));
    },
  },
  vanished: { connected: (peer) => void peer.logIn() },
  'borrowed ids': {
    connected: ({ socket, deviceId }) => void socket.write(heartbeat(deviceId)),
    againMs: 1_000,
  },
};

const seen: AttackSeen = { live: 0, tries: 0, opened: 0, ended: 0, answered: 0, mostMs: 0 };
const sockets = new Set<Socket>();
let running = false;
/** Counts the rounds, so that what an earlier one still had to do is not done. */
let round = 0;

/** As fast as the socket takes it. */
function flood({ socket, deviceId }: Peer): void {
  const frames = Buffer.concat(Array.from({ length: floodFrames }, () => heartbeat(deviceId)));
  const more = () => {
    if (!socket.destroyed) socket.write(frames, () => setImmediate(more));
  };
  more();
}

function open(request: AttackRequest, index: number): void {
  const habit = habits[request.kind];
  const { addresses, ids, host, port } = request;
  const mine = round;
  const timers: NodeJS.Timeout[] = [];
  seen.tries += 1;
  const localAddress = addresses[index % addresses.length]!;
  const socket = connect({ host, port, localAddress, noDelay: true });
  const deviceId = ids[index % ids.length]!;
  let openedAt = 0;
  let heard = false;
  sockets.add(socket);
  if (request.kind === 'deaf' || request.kind === 'deaf flood') socket.pause();
  else socket.on('data', hear);

  function hear(): void {
    if (!heard) seen.answered += 1;
    heard = true;
  }

  socket.on('connect', () => {
    openedAt = performance.now();
    seen.opened += 1;
    seen.live += 1;
    habit.connected({
      socket,
      deviceId,
      every: (ms, act) => void timers.push(setInterval(act, ms)),
      logIn() {
        socket.write(heartbeat(deviceId));
        return new Promise((resolve) => socket.once('data', () => resolve()));
      },
    });
  });
  socket.on('error', () => undefined);
  socket.on('close', () => {
    for (const timer of timers) clearInterval(timer);
    sockets.delete(socket);
    seen.ended += 1;
    if (openedAt > 0) {
      seen.live -= 1;
      seen.mostMs = Math.max(seen.mostMs, performance.now() - openedAt);
    }
    if (habit.againMs === undefined || !running || mine !== round) return;
    setTimeout(() => {
      if (running && mine === round) open(request, index);
    }, habit.againMs);
  });
}

/** Resolves when every peer has been started. */
async function start(request: AttackRequest): Promise<void> {
  running = true;
  round += 1;
  Object.assign(seen, { tries: 0, opened: 0, ended: 0, answered: 0, mostMs: 0 });
  const startedAt = performance.now();
  for (let index = 0; index < request.peers; ) {
    const due = ((performance.now() - startedAt) / 1_000) * request.perSecond + 1;
    for (; index < request.peers && index < due; index += 1) open(request, index);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function stop(): Promise<void> {
  running = false;
  for (const socket of sockets) socket.destroy();
  while (sockets.size > 0) await new Promise((resolve) => setTimeout(resolve, 5));
}

setPriority(lowest);
try {
  // Where the system schedules sessions against each other, the priority of a process counts only within its own.
  writeFileSync('/proc/self/autogroup', String(lowest));
} catch {
  // It does not.
}
serve((what, given) => {
  if (what === 'start') return start(given);
  if (what === 'stop') return stop();
  return { ...seen };
});
