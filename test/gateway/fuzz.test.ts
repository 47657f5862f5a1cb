/** Broken streams into whole connections: nothing is thrown, and no buffer passes its cap. */
import fc from 'fast-check';
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest';
import { framesOf, mutated, mutations, sealed } from '../protocols/mutated-frames.ts';
import { createConnectionRig, PeerSocket, turn } from './connection-rig.ts';

const runs = 3_000;
const deviceRate = 20;
const deviceBurst = 20;
const unsentBytes = 400;
/** A chunk that is being read when a connection is paused, and one more that was on its way. */
const chunkBytes = 6_000;

let cases = 0;
let pauses = 0;
const thrown: unknown[] = [];
const note = (error: unknown) => void thrown.push(error);

beforeEach(() => {
  process.on('uncaughtException', note);
  process.on('unhandledRejection', note);
});

afterEach(() => {
  process.off('uncaughtException', note);
  process.off('unhandledRejection', note);
});

afterAll(() => {
  expect(cases).toBeGreaterThanOrEqual(runs);
  expect(pauses).toBeGreaterThan(runs / 100);
});

const vendorFrames = [
  ...framesOf('bkv', 'up').map((frame) => ({ protocol: 'bkv', frame })),
  ...framesOf('ap3000', 'up').map((frame) => ({ protocol: 'ap3000', frame })),
];

const chunk = fc
  .record({
    frame: fc.nat(),
    other: fc.nat(),
    seal: fc.boolean(),
    times: fc.oneof({ weight: 5, arbitrary: fc.constant(1) }, fc.integer({ min: 1, max: 40 })),
    mutations: fc.array(
      fc.tuple(fc.constantFrom(...mutations), fc.nat(), fc.integer({ min: 0, max: 255 })),
      { maxLength: 2 },
    ),
    noise: fc.uint8Array({ maxLength: 32 }),
  })
  .map((given) => {
    const { protocol, frame } = vendorFrames[given.frame % vendorFrames.length]!;
    const other = vendorFrames[given.other % vendorFrames.length]!.frame;
    let bytes = frame;
    for (const [mutation, at, value] of given.mutations) {
      bytes = mutated(bytes, other, mutation, at, value);
    }
    if (given.seal) bytes = sealed(protocol, 'up', bytes);
    const repeated = Array.from({ length: given.times }, () => bytes);
    return Buffer.concat([...repeated, given.noise]).subarray(0, chunkBytes);
  });

const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: chunk },
    { weight: 2, arbitrary: fc.integer({ min: 1, max: 3_000 }) },
    { weight: 1, arbitrary: fc.constantFrom('stops taking', 'takes all') },
  ),
  { minLength: 1, maxLength: 8 },
);

test(`${runs} connections survive broken streams`, { timeout: 120_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (given) => {
      cases += 1;
      const rig = createConnectionRig({ options: { deviceRate, deviceBurst, unsentBytes } });
      rig.onMessage = (connection, message) => {
        connection.served();
        const answer = connection.protocol?.answer(message, rig.clock.now());
        if (answer) connection.write(answer.frame, 'answer');
      };
      const peer = new PeerSocket();
      const connection = rig.open(peer.socket);
      let sent = 0;
      for (const step of given) {
        if (connection.isClosed) break;
        if (step === 'stops taking') peer.stopTaking();
        else if (step === 'takes all') peer.takeAll();
        else if (typeof step === 'number') rig.clock.pass(step);
        else if (!peer.isPaused()) {
          // A paused socket is not read from, so nothing arrives on it either.
          sent += step.length;
          peer.arrives(step);
        }
        await turn();
        if (peer.readableLength > chunkBytes) throw new Error(`${peer.readableLength} B unread`);
        if (peer.writableLength > unsentBytes) throw new Error(`${peer.writableLength} B unsent`);
      }
      if (!connection.isClosed && rig.counts.bytesIn !== sent) {
        throw new Error(`${sent} bytes came, ${rig.counts.bytesIn} were counted`);
      }
      if (rig.told.includes('broke')) throw new Error('our own code threw');
      pauses += rig.counts.throttled;
      connection.close('peer-closed');
      await turn();
      if (rig.told.filter((what) => what === 'released').length !== 1) {
        throw new Error(`not released once: ${rig.told.join(', ')}`);
      }
    }),
    { numRuns: runs },
  );
  expect(thrown).toEqual([]);
});
