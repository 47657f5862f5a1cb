import { pino } from 'pino';
import { v7 as uuidV7 } from 'uuid';
import { beforeEach, describe, expect, it } from 'vitest';
import { createAccept } from '../../queues/accept.ts';
import { DownlinkError } from '../../src/errors.ts';
import { protocols } from '../../src/protocols/index.ts';
import { eventually } from '../support/eventually.ts';
import { createMemoryRoutes, createMemoryWithdrawals } from '../support/memory-routes.ts';
import {
  createMemoryDevices,
  createMemoryLedger,
  createMemoryOutbound,
} from '../support/memory-stores.ts';

const bkvId = '82200520004869';
const ap3000Id = '04ab373b';
const start = { socket: 1, port: 0, mode: 'time', minutes: 60 };
const acceptedAt = Date.parse('2026-01-31T08:00:00Z');

let memory: ReturnType<typeof setUp>;
let accept: ReturnType<typeof createAccept>;

function setUp() {
  return {
    ...createMemoryDevices(),
    book: createMemoryLedger(),
    queue: createMemoryOutbound(),
    places: createMemoryRoutes(),
    gateways: createMemoryWithdrawals(),
  };
}

beforeEach(async () => {
  memory = setUp();
  await memory.devices.register(bkvId, 'bkv');
  await memory.devices.register(ap3000Id, 'ap3000');
  accept = createAccept({
    ledger: memory.book.ledger,
    outbound: memory.queue.outbound,
    routes: memory.places.routes,
    withdrawals: memory.gateways.withdrawals,
    caps: { maxPerKey: 3, maxPerDevice: 500 },
    devices: memory.devices,
    presence: memory.presence,
    protocols,
    log: pino({ level: 'silent' }),
    now: () => acceptedAt,
    newId: () => uuidV7(),
    graceMs: 30,
    storeTimeoutMs: 150,
    joinTimeoutMs: 50,
    lookupTimeoutMs: 50,
  });
});

const ask = (body: unknown, idempotencyKey: string | null = null) =>
  accept({ body, apiKey: 'app', idempotencyKey });

const startBody = (more: object = {}) => ({
  deviceId: bkvId,
  command: 'charge.start',
  params: start,
  ...more,
});

async function refusalOf(body: unknown, key: string | null = null): Promise<DownlinkError> {
  const error = await ask(body, key).then(
    () => new Error('it was accepted'),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(DownlinkError);
  return error as DownlinkError;
}

function expectNothingStored() {
  expect(memory.book.rows.size).toBe(0);
  expect(memory.queue.jobs.size).toBe(0);
}

describe('a sound command', () => {
  it('takes what it does not say from the command table and the protocol', async () => {
    const { record, durability } = await ask(startBody());
    const spec = protocols[0]!.commands['charge.start']!;
    expect(durability).toBe('both');
    expect(record).toMatchObject({
      deviceId: bkvId,
      protocol: 'bkv',
      command: 'charge.start',
      params: start,
      priority: 7,
      acceptedAt,
      notBefore: acceptedAt,
      deadline: acceptedAt + 60_000,
      ackTimeoutMs: 10_000,
      attempts: 4,
      backoffMs: 3_000,
      onAmbiguous: 'probe',
      orderKey: spec.orderKey(start),
      labels: {},
      apiKey: 'app',
      waiter: null,
      replayOf: null,
      status: 'queued',
      version: 1,
    });
    expect(memory.book.rows.get(record.id)).toEqual(record);
    const { status, version, reason, code, result, late, inferred, settledAt, trail, ...command } =
      record;
    expect(memory.queue.jobs.get(record.id)?.command).toEqual(command);
  });

  it('has the defaults of its own protocol', async () => {
    const { record } = await ask({ deviceId: '04AB373B', cmd: '81', payload: '' });
    expect(record).toMatchObject({
      deviceId: ap3000Id,
      protocol: 'ap3000',
      command: 'raw',
      params: { cmd: '81', payload: '' },
      ackTimeoutMs: 15_000,
      attempts: 2,
    });
  });

  it('keeps what the caller says', async () => {
    const own = {
      priority: 0,
      ttlMs: 5_000,
      ackTimeoutMs: 100,
      attempts: 1,
      backoffMs: 0,
      orderKey: 'mine',
      onAmbiguous: 'stop',
      labels: { order: 'A-1' },
    };
    const body = { deviceId: bkvId, command: 'port.query', params: { socket: 1 } };
    const { record } = await ask({ ...body, ...own, delayMs: 10_000 });
    const { ttlMs, ...kept } = own;
    expect(record).toMatchObject({
      ...kept,
      notBefore: acceptedAt + 10_000,
      deadline: acceptedAt + 10_000 + ttlMs,
      status: 'scheduled',
    });
  });

  it('may name its moment, and one that has passed means now', async () => {
    const later = await ask(startBody({ notBefore: '2026-01-31T10:00:00+01:00' }));
    expect(later.record.notBefore).toBe(Date.parse('2026-01-31T09:00:00Z'));
    const past = await ask(startBody({ notBefore: '2020-01-01T00:00:00Z' }));
    expect(past.record).toMatchObject({ notBefore: acceptedAt, status: 'queued' });
  });

  it.each([
    ['charge.start', 7, 60_000],
    ['charge.stop', 9, 60_000],
  ])('%s has its own urgency and time to live', async (command, priority, ttlMs) => {
    const params = command === 'charge.start' ? start : { socket: 1, port: 0 };
    const { record } = await ask({ deviceId: bkvId, command, params });
    expect(record.priority).toBe(priority);
    expect(record.deadline - record.notBefore).toBe(ttlMs);
  });
});

describe('an unsound command is refused, and nothing is stored', () => {
  const tooManyLabels = Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`l${i}`, 'x']));

  it.each([
    ['no object', [], 'BAD_REQUEST', ''],
    ['null', null, 'BAD_REQUEST', ''],
    ['no device', { command: 'charge.stop' }, 'BAD_REQUEST', 'deviceId'],
    ['no command', { deviceId: bkvId }, 'BAD_REQUEST', 'command'],
    ['both forms at once', startBody({ cmd: '0007', payload: '' }), 'BAD_REQUEST', 'cmd'],
    ['a payload without its cmd', { deviceId: bkvId, payload: '00' }, 'BAD_REQUEST', 'cmd'],
    ['BullMQ options', startBody({ opts: { priority: 1 } }), 'BAD_REQUEST', 'opts'],
    ['a job id', startBody({ jobId: 'a:b' }), 'BAD_REQUEST', 'jobId'],
    ['a retention', startBody({ removeOnComplete: false }), 'BAD_REQUEST', 'removeOnComplete'],
    ['a delay of BullMQ', startBody({ delay: 1e12 }), 'BAD_REQUEST', 'delay'],
    ['a priority over 9', startBody({ priority: 10 }), 'BAD_REQUEST', 'priority'],
    ['a priority below 0', startBody({ priority: -1 }), 'BAD_REQUEST', 'priority'],
    ['a broken priority', startBody({ priority: 1.5 }), 'BAD_REQUEST', 'priority'],
    ['a TTL under 1 s', startBody({ ttlMs: 999 }), 'BAD_REQUEST', 'ttlMs'],
    ['a TTL over 48 h', startBody({ ttlMs: 172_800_001 }), 'BAD_REQUEST', 'ttlMs'],
    ['a hasty ack timeout', startBody({ ackTimeoutMs: 99 }), 'BAD_REQUEST', 'ackTimeoutMs'],
    ['a slow ack timeout', startBody({ ackTimeoutMs: 120_001 }), 'BAD_REQUEST', 'ackTimeoutMs'],
    ['no attempt', startBody({ attempts: 0 }), 'BAD_REQUEST', 'attempts'],
    ['a million attempts', startBody({ attempts: 1e6 }), 'BAD_REQUEST', 'attempts'],
    ['a long backoff', startBody({ backoffMs: 600_001 }), 'BAD_REQUEST', 'backoffMs'],
    ['a long delay', startBody({ delayMs: 2_592_000_001 }), 'BAD_REQUEST', 'delayMs'],
    ['a far moment', startBody({ notBefore: '2027-01-31T08:00:00Z' }), 'BAD_REQUEST', 'notBefore'],
    ['a vague moment', startBody({ notBefore: 'tomorrow' }), 'BAD_REQUEST', 'notBefore'],
    [
      'two moments',
      startBody({ notBefore: '2026-02-01T08:00:00Z', delayMs: 1 }),
      'BAD_REQUEST',
      'notBefore',
    ],
    ['an unknown policy', startBody({ onAmbiguous: 'hope' }), 'BAD_REQUEST', 'onAmbiguous'],
    ['an empty order key', startBody({ orderKey: '' }), 'BAD_REQUEST', 'orderKey'],
    ['many labels', startBody({ labels: tooManyLabels }), 'BAD_REQUEST', 'labels'],
    ['a long label', startBody({ labels: { a: 'x'.repeat(129) } }), 'BAD_REQUEST', 'labels.a'],
    ['an odd label', startBody({ labels: { 'a b': 'x' } }), 'BAD_REQUEST', 'labels.a b'],
    ['a number as label', startBody({ labels: { a: 1 } }), 'BAD_REQUEST', 'labels.a'],
    ['params that are a list', startBody({ params: [] }), 'BAD_REQUEST', 'params'],
    [
      'a wrong param',
      startBody({ params: { ...start, port: 'A' } }),
      'INVALID_PARAMS',
      'params.port',
    ],
    ['an unknown param', startBody({ params: { ...start, x: 1 } }), 'INVALID_PARAMS', 'params.x'],
    ['no params', startBody({ params: {} }), 'INVALID_PARAMS', 'params.socket'],
    [
      'params that contradict each other',
      startBody({ params: { socket: 1, port: 0, mode: 'energy', tiers: [] } }),
      'INVALID_PARAMS',
      'params.tiers',
    ],
    [
      'a mode without its limit',
      startBody({ params: { socket: 1, port: 0, mode: 'time' } }),
      'INVALID_PARAMS',
      'params',
    ],
    [
      'a payload that is not hex',
      { deviceId: bkvId, cmd: '0007', payload: '0g' },
      'INVALID_PAYLOAD',
      'payload',
    ],
    ['half a byte', { deviceId: bkvId, cmd: '0007', payload: '0' }, 'INVALID_PAYLOAD', 'payload'],
    [
      'half a byte in params',
      { deviceId: bkvId, command: 'raw', params: { cmd: '0007', payload: '0' } },
      'INVALID_PAYLOAD',
      'params.payload',
    ],
    ['a cmd that is not hex', { deviceId: bkvId, cmd: 'xx', payload: '' }, 'INVALID_PARAMS', 'cmd'],
    [
      'a payload no frame can hold',
      { deviceId: ap3000Id, cmd: '81', payload: '00'.repeat(2_000) },
      'INVALID_PARAMS',
      'payload',
    ],
  ] as const)('%s', async (_name, body, code, path) => {
    const error = await refusalOf(body);
    expect(error).toMatchObject({ code });
    const faults = error.details['errors'] as { path: string; message: string }[];
    expect(faults.map((fault) => fault.path)).toContain(path);
    for (const { message } of faults) expect(message.length).toBeGreaterThan(10);
    expectNothingStored();
  });

  it.each([
    '',
    'x',
    '8220052000486',
    '822005200048690',
    '82200520004g69',
    '../../etc',
    'ffffffffffffff',
  ])('device id %j', async (deviceId) => {
    const { code } = await refusalOf({ ...startBody(), deviceId });
    expect(code).toBe(deviceId === '' ? 'BAD_REQUEST' : 'INVALID_DEVICE_ID');
    expectNothingStored();
  });

  it.each(['charge.begin', '__proto__', 'constructor', 'toString'])(
    'command %j, and the names that exist are told',
    async (command) => {
      const error = await refusalOf({ deviceId: bkvId, command });
      expect(error.code).toBe('COMMAND_UNKNOWN');
      expect(error.message).toContain('charge.start');
      expectNothingStored();
    },
  );

  it('tells every fault at once', async () => {
    const error = await refusalOf(
      startBody({ priority: 11, ttlMs: 0, opts: {}, attempts: 'x', labels: { a: 1, '?': '' } }),
    );
    const paths = (error.details['errors'] as { path: string }[]).map(({ path }) => path);
    expect(paths.sort()).toEqual(['attempts', 'labels.?', 'labels.a', 'opts', 'priority', 'ttlMs']);
  });

  it('says what a value must be without repeating it', async () => {
    const error = await refusalOf(startBody({ params: { ...start, minutes: 'sesame' } }));
    expect(error.message).toContain('params.minutes must be a whole number');
    expect(error.message).not.toContain('sesame');
  });

  it('survives a body nested thousands of levels deep', async () => {
    const deep = JSON.parse(`${'['.repeat(10_000)}${']'.repeat(10_000)}`);
    expect((await refusalOf(startBody({ params: { deep } }))).code).toBe('INVALID_PARAMS');
    expect((await refusalOf(startBody({ labels: deep }), 'k')).code).toBe('BAD_REQUEST');
    expectNothingStored();
  });
});

describe('a device', () => {
  const stranger = '82200520009999';

  it('that is connected is known before the ledger has seen it', async () => {
    memory.present.set(stranger, { gatewayId: 'g', epoch: 1, protocol: 'bkv' });
    expect((await ask(startBody({ deviceId: stranger }))).record.protocol).toBe('bkv');
  });

  it('that nobody knows is refused with the way to make it known', async () => {
    const error = await refusalOf(startBody({ deviceId: stranger }));
    expect(error.code).toBe('DEVICE_UNKNOWN');
    expect(error.message).toContain(`PUT /v1/devices/${stranger}`);
    expectNothingStored();
  });

  it.each([
    ['ledger', 'away'],
    ['ledger', 'hangs'],
    ['redis', 'away'],
  ] as const)('is never called unknown while the %s %s', async (store, condition) => {
    memory.state[store] = condition;
    expect((await refusalOf(startBody({ deviceId: stranger }))).code).toBe('STORE_UNAVAILABLE');
    expectNothingStored();
  });

  it('that is connected can be commanded while the ledger is away', async () => {
    memory.state.ledger = 'away';
    memory.book.state.condition = 'away';
    memory.present.set(stranger, { gatewayId: 'g', epoch: 1, protocol: 'bkv' });
    expect((await ask(startBody({ deviceId: stranger }))).durability).toBe('queue');
  });
});

describe('durability', () => {
  it('is the queue alone while the ledger is away', async () => {
    memory.book.state.condition = 'away';
    const { record, durability } = await ask(startBody());
    expect(durability).toBe('queue');
    expect(memory.queue.jobs.has(record.id)).toBe(true);
    expect(memory.book.rows.size).toBe(0);
  });

  it.each(['away', 'hangs'] as const)(
    'is the ledger alone while the queue %s, and the row is marked for the reaper',
    async (condition) => {
      memory.queue.state.condition = condition;
      const { record, durability } = await ask(startBody());
      expect(durability).toBe('ledger');
      expect(memory.book.rows.has(record.id)).toBe(true);
      await eventually(() => expect(memory.book.ledgerOnly).toContain(record.id));
    },
  );

  it('does not wait for a ledger that hangs longer than its grace', async () => {
    memory.book.state.condition = 'hangs';
    expect((await ask(startBody())).durability).toBe('queue');
  });

  it('is both when the slower store comes within the grace', async () => {
    memory.book.state.condition = new Promise((resolve) => setTimeout(resolve, 5));
    expect((await ask(startBody())).durability).toBe('both');
    expect(memory.book.ledgerOnly.size).toBe(0);
  });

  it.each(['away', 'hangs'] as const)('is refused when both stores are %s', async (condition) => {
    memory.book.state.condition = condition;
    memory.queue.state.condition = condition;
    const error = await refusalOf(startBody());
    expect(error.code).toBe('STORE_UNAVAILABLE');
    expect(error.message).toContain(String(error.details['id']));
    expectNothingStored();
  });

  it('of a claimed command is the ledger while the queue is away', async () => {
    memory.queue.state.condition = 'away';
    const { record, durability } = await ask(startBody(), 'k1');
    expect(durability).toBe('ledger');
    await eventually(() => expect(memory.book.ledgerOnly).toContain(record.id));
  });
});

describe('an Idempotency-Key', () => {
  it('answers the same body with the same command, in whatever order its members come', async () => {
    const first = await ask(startBody({ priority: 3 }), 'k1');
    const { deviceId, command, params } = startBody();
    const priority = 3;
    const again = await ask({ priority, params, command, deviceId }, 'k1');
    expect(first.replayed).toBe(false);
    expect(again).toMatchObject({
      replayed: true,
      durability: 'both',
      record: { id: first.record.id },
    });
    expect(memory.queue.jobs.size).toBe(1);
    expect(memory.book.state.writes).toBe(0);
  });

  it('refuses another body', async () => {
    const first = await ask(startBody(), 'k1');
    const error = await refusalOf(startBody({ priority: 1 }), 'k1');
    expect(error).toMatchObject({ code: 'IDEMPOTENCY_CONFLICT', details: { id: first.record.id } });
    expect(memory.queue.jobs.size).toBe(1);
  });

  it('belongs to the API key that used it', async () => {
    const body = { deviceId: bkvId, command: 'port.query', params: { socket: 1 } };
    await ask(body, 'k1');
    const other = await accept({ body, apiKey: 'other', idempotencyKey: 'k1' });
    expect(other.replayed).toBe(false);
  });

  it.each(['away', 'hangs'] as const)(
    'cannot be honoured while the ledger %s',
    async (condition) => {
      memory.book.state.condition = condition;
      expect((await refusalOf(startBody(), 'k1')).code).toBe('LEDGER_UNAVAILABLE');
      expectNothingStored();
    },
  );

  it.each(['', 'x'.repeat(129), 'tab\t', 'ü'])('%j is none', async (key) => {
    expect((await refusalOf(startBody(), key)).code).toBe('BAD_REQUEST');
    expectNothingStored();
  });

  it('claims a row that carries the order key', async () => {
    const { record } = await ask(startBody(), 'k1');
    expect(memory.book.rows.get(record.id)?.orderKey).toBe(record.orderKey);
    expect(record.orderKey).not.toBeNull();
  });
});
