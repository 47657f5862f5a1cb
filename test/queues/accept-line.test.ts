import { describe, expect, it } from 'vitest';
import { DownlinkError } from '../../src/errors.ts';
import { eventually } from '../support/eventually.ts';
import {
  ap3000Id,
  bkvId,
  freshWorld,
  queryBody,
  startBody,
  stopBody,
  type World,
} from './accept-fixture.ts';

const ask = (world: World, body: unknown, key: string | null = null) =>
  world.accept({ body, apiKey: 'app', idempotencyKey: key });

async function refusalOf(asking: Promise<unknown>): Promise<DownlinkError> {
  const error = await asking.then(
    () => new Error('it was accepted'),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(DownlinkError);
  return error as DownlinkError;
}

const setBody = (params: object, more: object = {}) => ({
  deviceId: bkvId,
  command: 'params.set',
  params: { socket: 1, ...params },
  ...more,
});
const own = (more: object = {}) => queryBody({ orderKey: 'mine', ...more });

describe('a command with an order key', () => {
  it('behind an unfinished one is parked, and says behind which', async () => {
    const world = await freshWorld();
    const first = await ask(world, own());
    const second = await ask(world, own());
    expect(first.record.status).toBe('queued');
    expect(second.record).toMatchObject({ status: 'parked', version: 1 });
    expect(second.record.reason).toContain(first.record.id);
    expect((await world.ledger.find(second.record.id))?.status).toBe('parked');
    const job = await world.jobOf(bkvId, second.record.id);
    expect(await job?.getState()).toBe('delayed');
    const { parked } = await world.routes.inspect(bkvId, second.record.id, 'o:mine');
    expect(parked).toBe('blocked');
  });

  it('that was claimed shows as parked too', async () => {
    const world = await freshWorld();
    await ask(world, own());
    const { record, durability } = await ask(world, own({ priority: 1 }), 'k1');
    expect(durability).toBe('both');
    expect(record.status).toBe('parked');
    expect(await world.ledger.find(record.id)).toMatchObject({ status: 'parked', version: 2 });
  });

  it('goes as soon as the one ahead has ended, even while it was being enqueued', async () => {
    const world = await freshWorld();
    await world.connectDevice('gw-1');
    const first = await ask(world, own());
    const { enqueue } = world.outbound;
    world.outbound.enqueue = async (entry) => {
      // The end of the first falls between the join and the add.
      const { id, deviceId } = first.record;
      const release = { line: 'o:mine', mode: 'final', wake: 1, again: true, attempt: 1 } as const;
      await world.routes.release({ deviceId, id, ...release });
      return enqueue(entry);
    };
    const second = await ask(world, own());
    await eventually(async () => {
      const job = await world.jobOf(bkvId, second.record.id);
      expect(await job?.getState()).toBe('prioritized');
    });
  });

  it('that is due in the future stands in no line yet, and blocks nobody', async () => {
    const world = await freshWorld();
    const later = await ask(world, startBody({ delayMs: 60_000 }));
    expect(later.record.status).toBe('scheduled');
    const now = await ask(world, startBody());
    expect(now.record.status).toBe('queued');
    const standing = await world.routes.inspect(bkvId, later.record.id, 't:port:1:0');
    expect(standing.seq).toBeNull();
  });

  it.each([
    ['a stop', stopBody],
    ['a start', startBody()],
    ['a set', setBody({ maxMinutes: 1 })],
    [
      'added time',
      { deviceId: ap3000Id, command: 'charge.modify', params: { port: 0, orderNo: '1' } },
    ],
  ])('of the caller’s own is refused for %s, which would evade its line', async (_name, body) => {
    const world = await freshWorld();
    const error = await refusalOf(ask(world, { ...body, orderKey: 'mine' }));
    expect(error.code).toBe('INVALID_PARAMS');
  });

  it('may name the line that it has anyway', async () => {
    const world = await freshWorld();
    const { record } = await ask(world, startBody({ orderKey: 'port:1:0' }));
    expect(record.orderKey).toBe('port:1:0');
  });
});

describe('a start', () => {
  it('while a start is unfinished is refused with CONFLICT, and leaves no trace', async () => {
    const world = await freshWorld();
    const first = await ask(world, startBody());
    const error = await refusalOf(ask(world, startBody()));
    expect(error).toMatchObject({ code: 'CONFLICT', details: { id: first.record.id } });
    expect((await world.ledger.list({ limit: 10 })).items).toHaveLength(1);
    expect(await world.outbound.counts()).toMatchObject({ waiting: 1 });
  });

  it('that was refused gives its Idempotency-Key back', async () => {
    const world = await freshWorld();
    const first = await ask(world, startBody());
    expect((await refusalOf(ask(world, startBody(), 'k1'))).code).toBe('CONFLICT');
    await world.takeBack(first.record, () => ({ status: 'expired', reason: null, code: null }));
    const again = await ask(world, startBody(), 'k1');
    expect(again).toMatchObject({ replayed: false, durability: 'both' });
  });

  it('whose key cannot be given back is answered with 503', async () => {
    const world = await freshWorld();
    await ask(world, startBody());
    world.ledger.unclaim = async () => {
      throw new DownlinkError('LEDGER_UNAVAILABLE', 'the ledger is away');
    };
    expect((await refusalOf(ask(world, startBody(), 'k1'))).code).toBe('LEDGER_UNAVAILABLE');
  });

  it('of another port is free to go', async () => {
    const world = await freshWorld();
    await ask(world, startBody());
    const other = startBody({ params: { socket: 1, port: 1, mode: 'time', minutes: 60 } });
    expect((await ask(world, other)).record.status).toBe('queued');
  });
});

describe('a stop', () => {
  it('replaces the unwritten start, and is held back by nothing', async () => {
    const world = await freshWorld();
    const start = await ask(world, startBody());
    const stop = await ask(world, stopBody);
    expect(stop.record.status).toBe('queued');
    expect(await world.routes.revocation(bkvId, start.record.id)).toEqual({
      kind: 'superseded',
      by: stop.record.id,
    });
    expect((await world.route(start.record)).kind).toBe('revoked');
  });

  it('has taken the start back from its gateway by the time it is accepted', async () => {
    const world = await freshWorld();
    await world.connectDevice('gw-1');
    const asked = await world.gateway('gw-1', 'withdrawn');
    const start = await ask(world, startBody());
    expect((await world.route(start.record)).kind).toBe('go');
    const events: string[] = [];
    const { withdraw } = world.withdrawals;
    world.withdrawals.withdraw = async (target) => {
      const withdrawal = await withdraw(target);
      // Slower than both stores.
      await new Promise((resolve) => setTimeout(resolve, 150));
      events.push(withdrawal);
      return withdrawal;
    };
    await ask(world, stopBody);
    events.push('accepted');
    expect(asked).toEqual([start.record.id]);
    expect(events).toEqual(['withdrawn', 'accepted']);
  });

  it('is accepted in bounded time when the gateway of the start says nothing', async () => {
    const world = await freshWorld();
    await world.connectDevice('gw-1');
    await world.gateway('gw-1', null);
    const start = await ask(world, startBody());
    await world.route(start.record);
    const stop = await ask(world, stopBody);
    expect(stop.durability).toBe('both');
  });

  it('lets a worker end the start before all others', async () => {
    const world = await freshWorld();
    const start = await ask(world, startBody({ priority: 0 }));
    await ask(world, stopBody);
    await eventually(async () => {
      const job = await world.jobOf(bkvId, start.record.id);
      expect(job?.priority).toBe(1);
    });
  });

  it('is never refused for the number of those that wait', async () => {
    const world = await freshWorld({ accept: { caps: { maxPerKey: 1, maxPerDevice: 1 } } });
    await ask(world, startBody());
    await ask(world, stopBody);
    expect((await ask(world, stopBody)).record.status).toBe('parked');
  });
});

describe('a set', () => {
  it('replaces an unwritten one whose fields it covers, and waits for another', async () => {
    const world = await freshWorld();
    const covered = await ask(world, setBody({ maxMinutes: 1 }));
    const wider = await ask(world, setBody({ maxMinutes: 2, highTemperatureC: 60 }));
    expect(await world.routes.revocation(bkvId, covered.record.id)).toMatchObject({
      by: wider.record.id,
    });
    const other = await ask(world, setBody({ noLoadDelayS: 5 }));
    expect(other.record.reason).toContain(wider.record.id);
    expect(await world.routes.revocation(bkvId, wider.record.id)).toBeNull();
  });
});

describe('one more than may wait', () => {
  it('of an order key is refused with the key, the number and a time to come back', async () => {
    const world = await freshWorld({ accept: { caps: { maxPerKey: 2, maxPerDevice: 500 } } });
    await ask(world, own());
    await ask(world, own());
    const error = await refusalOf(ask(world, own()));
    expect(error.code).toBe('TOO_MANY_WAITING');
    expect(error.message).toContain('order key mine');
    expect(error.message).toContain('at most 2');
    expect(error.details['retryAfterS']).toBeGreaterThan(0);
    expect((await world.ledger.list({ limit: 10 })).items).toHaveLength(2);
  });

  it('of a device is refused as well', async () => {
    const world = await freshWorld({ accept: { caps: { maxPerKey: 50, maxPerDevice: 1 } } });
    await ask(world, own());
    await ask(world, own());
    const error = await refusalOf(ask(world, queryBody()));
    expect(error.code).toBe('TOO_MANY_WAITING');
    expect(error.message).toContain(`device ${bkvId}`);
  });
});

describe('while the queue store is away', () => {
  it('a command is accepted without its place and left to the reaper', async () => {
    const world = await freshWorld({ redis: 'away' });
    const first = await ask(world, startBody());
    const second = await ask(world, startBody());
    expect([first.durability, second.durability]).toEqual(['ledger', 'ledger']);
    await eventually(async () => {
      const rows = await world.ledger.unfinished({
        afterId: null,
        acceptedBefore: Date.now() + 1_000,
        limit: 10,
        ledgerOnly: true,
      });
      expect(rows.map(({ id }) => id)).toEqual([first.record.id, second.record.id]);
    });
  });

  it('an Idempotency-Key is honoured', async () => {
    const world = await freshWorld({ redis: 'away' });
    const first = await ask(world, startBody(), 'k1');
    const again = await ask(world, startBody(), 'k1');
    expect(first).toMatchObject({ durability: 'ledger', replayed: false });
    expect(again).toMatchObject({ replayed: true, record: { id: first.record.id } });
    expect((await refusalOf(ask(world, stopBody, 'k1'))).code).toBe('IDEMPOTENCY_CONFLICT');
  });
});

describe('while the ledger is away', () => {
  it('an Idempotency-Key is refused, and nothing has joined or been enqueued', async () => {
    const world = await freshWorld({ postgres: 'away' });
    expect((await refusalOf(ask(world, startBody(), 'k1'))).code).toBe('LEDGER_UNAVAILABLE');
    expect(await world.outbound.counts()).toMatchObject({ waiting: 0 });
    expect(await world.redis.exists(world.keys.line(bkvId, 't:port:1:0'))).toBe(0);
  });

  it('a command without one takes its place and is kept by the queue', async () => {
    const world = await freshWorld({ postgres: 'away' });
    expect((await ask(world, startBody())).durability).toBe('queue');
    expect((await refusalOf(ask(world, startBody()))).code).toBe('CONFLICT');
  });
});

describe('an Idempotency-Key', () => {
  it('names its command long after its job is gone', async () => {
    const world = await freshWorld();
    const first = await ask(world, startBody(), 'k1');
    await world.takeBack(first.record, () => ({ status: 'expired', reason: null, code: 'X' }));
    expect(await world.jobOf(bkvId, first.record.id)).toBeUndefined();
    const again = await ask(world, startBody(), 'k1');
    expect(again).toMatchObject({
      replayed: true,
      record: { id: first.record.id, status: 'expired' },
    });
  });

  it('used by several at once gives one command', async () => {
    const world = await freshWorld();
    const all = await Promise.all(Array.from({ length: 8 }, () => ask(world, startBody(), 'k1')));
    expect(new Set(all.map(({ record }) => record.id)).size).toBe(1);
    expect(all.filter(({ replayed }) => !replayed)).toHaveLength(1);
    expect(await world.outbound.counts()).toMatchObject({ waiting: 1 });
  });

  it('is not answered with a command that was refused a moment later', async () => {
    const world = await freshWorld();
    await ask(world, startBody());
    const { join } = world.routes;
    world.routes.join = async (request) => {
      // The second call meets the claim of the first before that is given back.
      await new Promise((resolve) => setTimeout(resolve, 60));
      return join(request);
    };
    const both = await Promise.allSettled([
      ask(world, startBody(), 'k1'),
      ask(world, startBody(), 'k1'),
    ]);
    expect(both.map((end) => (end.status === 'rejected' ? end.reason.code : 'accepted'))).toEqual([
      'CONFLICT',
      'CONFLICT',
    ]);
  });
});

describe('a probe', () => {
  it('is refused for a command that has none', async () => {
    const world = await freshWorld();
    const error = await refusalOf(ask(world, queryBody({ onAmbiguous: 'probe' })));
    expect(error.code).toBe('INVALID_PARAMS');
    expect(error.message).toContain('onAmbiguous');
    expect((await ask(world, startBody({ onAmbiguous: 'probe' }))).record.onAmbiguous).toBe(
      'probe',
    );
  });
});

describe('a repetition', () => {
  it('is linked to the command that it repeats', async () => {
    const world = await freshWorld();
    const first = await ask(world, queryBody());
    const { record } = await world.accept({
      body: queryBody(),
      apiKey: 'app',
      replayOf: first.record.id,
    });
    expect(record.replayOf).toBe(first.record.id);
    expect((await world.ledger.find(record.id))?.replayOf).toBe(first.record.id);
    expect((await world.outbound.find(bkvId, record.id))?.command.replayOf).toBe(first.record.id);
  });
});
