import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createKeys, type Keys } from '../../src/bridge/keys.ts';
import type { Delivery } from '../../src/bridge/messages.ts';
import { createRoutes } from '../../src/bridge/routes.ts';
import type { JoinRequest, RouteRequest, Routes } from '../../src/bridge/routes-contract.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { createLog } from '../../src/log/log.ts';
import { freshRedis } from '../support/stores.ts';

const log = createLog({ level: 'silent', role: 'test' });
const device = '82200520004869';
const line = 't:port:1:0';

let redis: Redis;
let keys: Keys;
let routes: Routes;

beforeEach(async () => {
  const { url, prefix } = await freshRedis();
  keys = createKeys(prefix, 4);
  redis = connectRedis({ url, purpose: 'commands', name: 'test' });
  routes = createRoutes({ redis, keys, log });
});

afterEach(() => closeRedis(redis));

async function online(gatewayId = 'g1', epoch = '100'): Promise<void> {
  await redis.hset(keys.presence(device), { gatewayId, epoch, protocol: 'bkv' });
}

function route(id: string, given: Partial<RouteRequest> = {}) {
  return routes.route({
    id,
    deviceId: device,
    line: null,
    priority: 5,
    attempt: 1,
    maxAttempt: 4,
    maxWireId: 0xffff,
    again: false,
    probing: false,
    ...given,
  });
}

async function routed(id: string, given: Partial<RouteRequest> = {}) {
  const found = await route(id, given);
  if (found.kind !== 'go') throw new Error(`routed as ${found.kind}`);
  return found;
}

function join(id: string, given: Partial<JoinRequest> = {}) {
  return routes.join({
    id,
    deviceId: device,
    line,
    command: 'charge.start',
    priority: 7,
    supersedes: [],
    covers: null,
    preempts: false,
    excludes: ['charge.start'],
    dueAt: 1_000,
    mode: 'accept',
    maxPerKey: 50,
    maxPerDevice: 500,
    ...given,
  });
}

const stop = {
  command: 'charge.stop',
  priority: 9,
  supersedes: ['charge.start', 'charge.modify'],
  preempts: true,
  excludes: [],
} satisfies Partial<JoinRequest>;
const modify = { command: 'charge.modify', excludes: [] } satisfies Partial<JoinRequest>;

const release = (id: string, mode: 'final' | 'rest' | 'unwritten', wake = 1, attempt = 1) =>
  routes.release({ deviceId: device, id, line, mode, wake, again: true, attempt });

const parkedAs = async (id: string) => (await routes.inspect(device, id, line)).parked;

describe('a route', () => {
  it('is offline without a presence and leaves no mark', async () => {
    expect(await route('c1')).toMatchObject({ kind: 'offline' });
    expect(await redis.hlen(keys.marks(device))).toBe(0);
  });

  it('gives each command its own wire id and keeps it for all attempts', async () => {
    await online();
    const [first, second] = [await routed('c1'), await routed('c2')];
    expect(second.wireId).not.toBe(first.wireId);
    expect(await routed('c1', { attempt: 2, again: true })).toMatchObject({
      wireId: first.wireId,
      attempt: 2,
      again: false,
      writtenBefore: true,
    });
  });

  it('never gives wire id 0 and wraps within the protocol', async () => {
    await online();
    await redis.hset(keys.marks(device), '#wire', String(0xffff - 1));
    expect((await routed('c1')).wireId).toBe(0xffff);
    expect((await routed('c2')).wireId).toBe(1);
  });

  it('of a restarted job names the same gateway and says again', async () => {
    await online();
    const first = await routed('c1');
    await online('g2', '200');
    expect(await routed('c1', { again: true })).toEqual({ ...first, again: true });
  });

  it('is spent when the mark knows that all attempts were used', async () => {
    await online();
    await redis.hset(keys.marks(device), 'c1', '4|-||7|1');
    expect(await route('c1', { attempt: 4 })).toMatchObject({ kind: 'spent', attempt: 4 });
  });

  it('marks nothing while it only probes', async () => {
    await online();
    await redis.hset(keys.marks(device), 'c1', '1|-||7|1');
    expect(await route('c1', { attempt: 2, probing: true })).toMatchObject({
      kind: 'go',
      attempt: 2,
      wireId: 7,
    });
    expect(await routes.mark(device, 'c1')).toMatchObject({ attempt: 1, gatewayId: null });
  });

  it('counts an attempt that was only a question', async () => {
    await online();
    await redis.hset(keys.marks(device), 'c1', '1|-||7|1');
    await route('c1', { attempt: 1, probing: true });
    await routes.release({
      deviceId: device,
      id: 'c1',
      line: null,
      mode: 'rest',
      wake: 0,
      again: true,
      attempt: 2,
    });
    expect(await route('c1', { attempt: 1, probing: true })).toMatchObject({ attempt: 3 });
  });

  it('is paused while its device is, and goes on when it is not', async () => {
    await online();
    await routes.setPaused(device, 123);
    expect(await route('c1')).toMatchObject({ kind: 'paused' });
    await routes.setPaused(device, null);
    expect(await route('c1')).toMatchObject({ kind: 'go' });
  });

  it('of a command without its place in the line is unjoined', async () => {
    await online();
    expect(await route('c1', { line })).toEqual({ kind: 'unjoined' });
  });
});

describe('joining', () => {
  it('gives rising places and names the one ahead', async () => {
    await online();
    const first = await join('c1', modify);
    const second = await join('c2', modify);
    if (first.kind !== 'joined' || second.kind !== 'joined') throw new Error('not joined');
    expect(first.blockedBy).toBeNull();
    expect(second.blockedBy).toBe('c1');
    expect(second.seq).toBeGreaterThan(first.seq);
    expect(await routed('c1', { line })).toMatchObject({ seq: first.seq });
    expect(await route('c2', { line })).toMatchObject({ kind: 'blocked', by: 'c1' });
    expect(await parkedAs('c2')).toBe('blocked');
  });

  it('twice is harmless', async () => {
    const first = await join('c1', modify);
    expect(await join('c1', modify)).toEqual(first);
    expect(await redis.zcard(keys.line(device, line))).toBe(1);
  });

  it('refuses what an unfinished one excludes, and changes nothing', async () => {
    await join('c1');
    expect(await join('c2')).toEqual({ kind: 'conflict', with: 'c1' });
    expect(await redis.zcard(keys.line(device, line))).toBe(1);
    await release('c1', 'final');
    expect(await join('c2')).toMatchObject({ kind: 'joined' });
  });

  it('of a stop waits for no start, and revokes it', async () => {
    await online();
    await join('c1');
    expect(await join('s1', stop)).toMatchObject({ blockedBy: null, superseded: ['c1'] });
    expect(await route('c1', { line })).toMatchObject({
      kind: 'revoked',
      revocation: { kind: 'superseded', by: 's1' },
      writtenBefore: false,
    });
    expect(await route('s1', { line })).toMatchObject({ kind: 'go' });
  });

  it('of a stop waits for an older stop', async () => {
    await join('s1', stop);
    expect(await join('s2', stop)).toMatchObject({ blockedBy: 's1' });
  });

  it('of a stop revokes a written start too, which still holds up what is newer', async () => {
    await online();
    await join('c1');
    await routed('c1', { line });
    expect(await join('s1', stop)).toMatchObject({ blockedBy: null, superseded: ['c1'] });
    await release('s1', 'final');
    // A new start is no conflict with one that was superseded, but it waits until that one has ended.
    expect(await join('c2')).toMatchObject({ kind: 'joined', blockedBy: 'c1' });
    expect(await release('c1', 'final')).toEqual(['c2']);
  });

  it('supersedes an unwritten set whose fields it covers, and no other', async () => {
    await online();
    const set = (...covers: string[]) => ({
      command: 'params.set',
      supersedes: ['params.set'],
      covers,
      excludes: [],
    });
    await join('p1', set('a', 'b'));
    expect(await join('p2', set('a'))).toMatchObject({ superseded: [], blockedBy: 'p1' });
    expect(await join('p3', set('a', 'b', 'c'))).toMatchObject({
      superseded: ['p1', 'p2'],
      blockedBy: null,
    });
    await routed('p3', { line });
    expect(await join('p4', set('a', 'b', 'c'))).toMatchObject({
      superseded: [],
      blockedBy: 'p3',
    });
  });

  it('late leaves what joined since it was due, and is superseded if that covers it', async () => {
    const set = (...covers: string[]) => ({
      command: 'params.set',
      supersedes: ['params.set'],
      covers,
      excludes: [],
    });
    const past = { mode: 'activation', dueAt: 4_000 } as const;
    await join('p1', { ...set('a'), dueAt: 5_000 });
    expect(await join('late1', { ...set('a'), ...past })).toEqual({
      kind: 'superseded',
      by: 'p1',
    });
    expect(await join('late2', { ...set('a', 'b'), ...past })).toMatchObject({
      superseded: [],
      blockedBy: 'p1',
    });
  });

  it('again in the order of acceptance, after a loss, replaces as it did before', async () => {
    const set = { command: 'params.set', supersedes: ['params.set'], covers: ['a'], excludes: [] };
    const refill = { mode: 'refill' } as const;
    await join('p1', { ...set, ...refill, dueAt: 1_000 });
    expect(await join('p2', { ...set, ...refill, dueAt: 2_000 })).toMatchObject({
      superseded: ['p1'],
    });
    const other = { line: 't:port:2:0' };
    await join('s1', { ...stop, ...refill, ...other, dueAt: 1_000 });
    expect(await join('c1', { ...refill, ...other, dueAt: 2_000 })).toMatchObject({
      kind: 'joined',
      blockedBy: 's1',
    });
    const third = { line: 't:port:3:0' };
    await join('c2', { ...refill, ...third, dueAt: 1_000 });
    expect(await join('s2', { ...stop, ...refill, ...third, dueAt: 2_000 })).toMatchObject({
      superseded: ['c2'],
    });
  });

  it('excludes a start whose cancel may come too late', async () => {
    await online();
    await join('c1');
    await routed('c1', { line });
    await routes.revoke(device, 'c1', { kind: 'cancelled', by: 'ops' });
    expect(await join('c2')).toEqual({ kind: 'conflict', with: 'c1' });
  });

  it('of an older stop keeps the word of a newer one', async () => {
    await join('s1', { ...stop, dueAt: 3_000 });
    await join('s2', { ...stop, mode: 'activation', dueAt: 1_000 });
    expect(await join('c1', { mode: 'activation', dueAt: 2_000 })).toEqual({
      kind: 'superseded',
      by: 's1',
    });
  });

  it('is refused by the cap of its key and by the cap of its device, a stop by neither', async () => {
    const caps = { ...modify, maxPerKey: 2, maxPerDevice: 1 };
    await join('c1', caps);
    await join('c2', caps);
    expect(await join('c3', caps)).toEqual({ kind: 'full', of: 'key', waiting: 2 });
    expect(await join('c3', { ...caps, maxPerKey: 9 })).toEqual({
      kind: 'full',
      of: 'device',
      waiting: 1,
    });
    expect(await join('q1', { ...caps, line: null })).toEqual({
      kind: 'full',
      of: 'device',
      waiting: 1,
    });
    expect(await join('s1', { ...caps, ...stop })).toMatchObject({ kind: 'joined' });
  });

  it('late, after a stop that came when it was due already, is superseded', async () => {
    await join('s1', { ...stop, dueAt: 2_000 });
    await release('s1', 'final');
    expect(await join('c1', { mode: 'refill', dueAt: 1_000 })).toEqual({
      kind: 'superseded',
      by: 's1',
    });
    expect(await join('c1', { mode: 'activation', dueAt: 3_000 })).toMatchObject({
      kind: 'joined',
    });
  });
});

describe('a release', () => {
  it('lets the next of the line go, once it is connected', async () => {
    await join('c1', modify);
    await join('c2', modify);
    await join('c3', modify);
    expect(await release('c1', 'final')).toEqual([]);
    expect([await parkedAs('c2'), await parkedAs('c3')]).toEqual(['waiting', 'blocked']);
    await online();
    expect(await release('c2', 'final')).toEqual(['c3']);
    expect(await routes.wakeable(device, 5, { wokenToo: true, event: null })).toEqual(['c3']);
  });

  it('of an attempt keeps the place', async () => {
    await online();
    await join('c1', modify);
    await join('c2', modify);
    await routed('c1', { line });
    expect(await release('c1', 'rest')).toEqual([]);
    expect(await route('c2', { line })).toMatchObject({ kind: 'blocked', by: 'c1' });
  });

  it('wakes others of its device in its place, but not while the device is paused', async () => {
    await online();
    await join('c1', modify);
    await routes.park(device, 'q1', 5, false);
    await routes.setPaused(device, 1);
    expect(await release('c1', 'final')).toEqual([]);
    await routes.setPaused(device, null);
    await join('c2', modify);
    expect(await release('c2', 'final')).toEqual(['q1']);
  });

  it('leaves nothing behind', async () => {
    await online();
    await join('c1', modify);
    await routed('c1', { line });
    await routes.revoke(device, 'c1', { kind: 'cancelled', by: 'me' });
    await release('c1', 'final');
    const marks = await redis.hkeys(keys.marks(device));
    expect(marks.filter((field) => field.includes('c1'))).toEqual([]);
    expect(await redis.exists(keys.line(device, line))).toBe(0);
    expect(await redis.scard(keys.lines(keys.shardOf(device)))).toBe(0);
  });
});

describe('a revocation', () => {
  it('stops the next route and says who asked', async () => {
    await online();
    const cancelled = { kind: 'cancelled', by: 'ops' } as const;
    expect(await routes.revoke(device, 'c1', cancelled)).toMatchObject({
      kind: 'revoked',
      mark: null,
    });
    expect(await route('c1')).toMatchObject({ kind: 'revoked', revocation: cancelled });
  });

  it('names the gateway that holds what was published, and comes too late once it was written', async () => {
    await online();
    await routed('c1');
    const why = { kind: 'cancelled', by: 'ops' } as const;
    expect(await routes.revoke(device, 'c1', why)).toMatchObject({
      kind: 'revoked',
      mark: { gatewayId: 'g1', attempt: 1 },
    });
    await routes.unrevoke(device, 'c1');
    await release('c1', 'rest');
    expect(await routes.revoke(device, 'c1', why)).toMatchObject({ kind: 'written' });
    expect(await routes.revocation(device, 'c1')).toBeNull();
  });

  it('by a stop cannot be taken back by a cancel that came too late', async () => {
    await join('c1');
    await routes.revoke(device, 'c1', { kind: 'cancelled', by: 'ops' });
    await join('s1', stop);
    await routes.unrevoke(device, 'c1');
    expect(await routes.revocation(device, 'c1')).toEqual({ kind: 'superseded', by: 's1' });
  });

  it('while it parks is noticed', async () => {
    await routes.park(device, 'c1', 5, false);
    const query = { deviceId: device, id: 'c1', epoch: '', because: 'offline' };
    expect(await routes.cameMeanwhile(query)).toBe(false);
    await routes.revoke(device, 'c1', { kind: 'cancelled', by: 'ops' });
    expect(await routes.cameMeanwhile(query)).toBe(true);
  });
});

describe('what a parked command waits for', () => {
  it('is noticed when it came between the refusal and the parking', async () => {
    const came = (id: string, because: string) =>
      routes.cameMeanwhile({ deviceId: device, id, epoch: '', because });
    await join('c1', modify);
    await join('c2', modify);
    expect(await came('c2', 'key-blocked')).toBe(false);
    await release('c1', 'final');
    expect(await came('c2', 'key-blocked')).toBe(true);
    await routes.setPaused(device, 1);
    await routes.park(device, 'q1', 5, false);
    expect(await came('q1', 'paused')).toBe(false);
    await routes.setPaused(device, null);
    expect(await came('q1', 'paused')).toBe(true);
    await routes.park(device, 'q2', 5, false);
    expect(await came('q2', 'offline')).toBe(false);
    await online();
    expect(await came('q2', 'offline')).toBe(true);
  });

  it('that is nothing but an idle lane lets it go at once', async () => {
    await online();
    const look = () =>
      routes.cameMeanwhile({ deviceId: device, id: 'q1', epoch: '100', because: 'lane-full' });
    await join('c1', modify);
    await routed('c1', { line });
    await routes.park(device, 'q1', 5, false);
    expect(await look()).toBe(false);
    await release('c1', 'final', 0);
    await routes.park(device, 'q1', 5, false);
    expect(await look()).toBe(true);
  });
});

describe('unanswered frames', () => {
  it('are kept for the sessions to come, a bounded number of them, the latest', async () => {
    await online();
    const delivery = { t: 'deliver', deviceId: device } as unknown as Delivery;
    for (let n = 0; n < 70; n += 1) {
      const unanswered = {
        delivery: { ...delivery, id: `c${n}` },
        writtenAt: 1_000 + n,
        until: 600_000 + n,
      };
      expect(await routes.keepUnanswered(unanswered, 1_000)).toBe('g1');
    }
    const kept = await redis.hkeys(keys.unanswered(device));
    expect(kept).toHaveLength(64);
    expect(kept).toContain('c69');
    expect(kept).not.toContain('c0');
    await routes.forgetUnanswered(device, 'c69');
    expect(await redis.hexists(keys.unanswered(device), 'c69')).toBe(0);
  });
});

describe('a wake event', () => {
  it('is served once, however many workers heard it', async () => {
    await online();
    for (let n = 0; n < 6; n += 1) await routes.park(device, `q${n}`, 5, false);
    const hear = (event: string) => routes.wakeable(device, 2, { wokenToo: false, event });
    expect(await hear('g1-1')).toHaveLength(2);
    expect(await hear('g1-1')).toEqual([]);
    expect(await hear('g1-2')).toHaveLength(2);
  });
});

describe('paused devices', () => {
  it('are listed as long as they are paused', async () => {
    await routes.setPaused(device, 1);
    expect(await routes.pausedDevices()).toEqual([device]);
    await routes.setPaused(device, null);
    expect(await routes.pausedDevices()).toEqual([]);
  });
});

describe('a join that is taken back', () => {
  it('leaves what it had replaced as it was', async () => {
    await join('c1');
    await join('s1', stop);
    await routes.undoJoin(device, 's1', line);
    expect(await routes.revocation(device, 'c1')).toBeNull();
    await release('c1', 'final');
    // Its word is gone too: what was due before it is not held back by it.
    expect(await join('c2', { mode: 'refill', dueAt: 1 })).toMatchObject({ kind: 'joined' });
  });

  it('is not what a command does that has ended', async () => {
    await join('c1');
    await join('s1', stop);
    await routes.leave(device, 's1', line);
    expect(await routes.revocation(device, 'c1')).toEqual({ kind: 'superseded', by: 's1' });
  });
});
