import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createFleet, type Fleet } from '../../src/simulator/fleet.ts';
import { createRoundTrips, mergeRoundTrips, roundTripAt } from '../../src/simulator/round-trips.ts';
import { type CodecServer, startCodecServer } from './server.ts';

const bound = { timeout: 5000, interval: 5 };

describe('a record of round trips', () => {
  it('tells shares to one bucket, never below what was measured, and never above the longest', () => {
    const record = createRoundTrips();
    for (let ms = 1; ms <= 1000; ms += 1) record.add(ms);
    const trips = record.read([]);
    for (const share of [0.01, 0.5, 0.9, 0.99]) {
      const told = roundTripAt(trips, share);
      expect(told).toBeGreaterThanOrEqual(share * 1000);
      expect(told).toBeLessThanOrEqual(share * 1000 * 1.05);
    }
    expect(roundTripAt(trips, 1)).toBe(1000);
    expect(trips).toMatchObject({ count: 1000, maxMs: 1000 });
  });

  it('takes what is longer or shorter than any bucket, and stays as large as it is', () => {
    const record = createRoundTrips();
    const empty = record.read([]).counts.length;
    for (const ms of [0, 0.001, 1e9]) record.add(ms);
    const trips = record.read([]);
    expect(trips.counts).toHaveLength(empty);
    expect(trips.count).toBe(3);
    expect(roundTripAt(trips, 0.5)).toBeLessThanOrEqual(0.01);
  });

  it('has no share to tell before the first answer, nor after it was cleared', () => {
    const record = createRoundTrips();
    expect(roundTripAt(record.read([]), 0.99)).toBeNaN();
    record.add(5);
    record.lose();
    record.clear();
    expect(record.read([])).toMatchObject({ count: 0, maxMs: 0, lost: 0 });
    expect(roundTripAt(record.read([]), 0.99)).toBeNaN();
  });

  it('is one with others, as if all had been recorded together', () => {
    const one = createRoundTrips();
    const other = createRoundTrips();
    const both = createRoundTrips();
    for (let ms = 1; ms <= 100; ms += 1) {
      (ms % 3 ? one : other).add(ms);
      both.add(ms);
    }
    other.lose();
    both.lose();
    expect(mergeRoundTrips([one.read([7]), other.read([30, 2])])).toEqual(both.read([7, 30, 2]));
  });
});

describe('a fleet', () => {
  let server: CodecServer;
  let fleet: Fleet;

  beforeEach(async () => {
    server = await startCodecServer();
    fleet = createFleet({
      host: '127.0.0.1',
      port: server.port,
      devices: 4,
      knobs: { heartbeatMs: 40, reconnectMs: 600_000 },
      startTimeoutMs: 5000,
    });
    await fleet.start();
  });

  afterEach(async () => {
    await fleet.stop();
    await server.close();
  });

  it('measures the answers to the heartbeats of both protocols', async () => {
    await vi.waitFor(() => {
      const { count, maxMs } = fleet.roundTrips();
      expect(count).toBeGreaterThan(12);
      expect(maxMs).toBeGreaterThan(0);
    }, bound);
    const before = fleet.roundTrips(true).count;
    expect(fleet.roundTrips().count).toBeLessThan(before);
  });

  it('counts the time of the oldest heartbeat without an answer, and those whose connection ended', async () => {
    server.ignore('heartbeat');
    await vi.waitFor(() => expect(fleet.roundTrips().waiting).toBe(4), bound);
    const { oldestMs } = fleet.roundTrips();
    await vi.waitFor(() => {
      // several heartbeats later it is still the first that counts
      expect(fleet.roundTrips().oldestMs).toBeGreaterThan(oldestMs + 100);
    }, bound);
    for (const socket of server.sockets) socket.destroy();
    await vi.waitFor(
      () => expect(fleet.roundTrips()).toMatchObject({ waiting: 0, lost: 4 }),
      bound,
    );
  });
});
