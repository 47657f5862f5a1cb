import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createWaits, type Waits } from '../../src/api/waits.ts';
import { acceptedState, type CommandRecord } from '../../src/command.ts';
import { closeRedis, connectRedis, type Redis } from '../../src/connections/redis.ts';
import { eventually } from '../support/eventually.ts';
import { createMemoryLedger } from '../support/memory-stores.ts';
import { freshRedis } from '../support/stores.ts';

const NEVER_MS = 600_000;

let subscriber: Redis;
let publisher: Redis;
let channel: string;
let book: ReturnType<typeof createMemoryLedger>;
let waits: Waits;

function record(id: string, status: CommandRecord['status']): CommandRecord {
  const command = {
    id,
    deviceId: '82200520004869',
    protocol: 'bkv',
    command: 'charge.stop',
    params: {},
    priority: 9,
    acceptedAt: 0,
    notBefore: 0,
    deadline: 1,
    ackTimeoutMs: 1,
    attempts: 1,
    backoffMs: 0,
    orderKey: null,
    onAmbiguous: 'resend' as const,
    labels: {},
    apiKey: 'a',
    waiter: 'w',
    replayOf: null,
  };
  return { ...command, ...acceptedState(command, 0), status };
}

beforeEach(async () => {
  const { url, prefix } = await freshRedis();
  channel = `${prefix}:api:w`;
  subscriber = connectRedis({ url, purpose: 'subscriber', name: 'waits-test' });
  publisher = connectRedis({ url, purpose: 'commands', name: 'waits-test' });
  book = createMemoryLedger();
  waits = createWaits({
    redis: subscriber,
    channel,
    ledger: book.ledger,
    log: pino({ level: 'silent' }),
    limit: 2,
    pollMs: NEVER_MS,
  });
  await waits.start();
});
afterEach(async () => {
  await waits.close();
  await Promise.all([closeRedis(subscriber), closeRedis(publisher)]);
});

const say = (text: string) => publisher.publish(channel, text);

describe('a request that waits', () => {
  it('is woken by the word of a worker', async () => {
    const waiting = waits.forEnd('a', 10_000);
    book.rows.set('a', record('a', 'succeeded'));
    await say('{"id":"a"}');
    expect(await waiting).toMatchObject({ id: 'a', status: 'succeeded' });
  });

  it('hears of an end that came before it listened', async () => {
    book.rows.set('a', record('a', 'rejected'));
    expect(await waits.forEnd('a', 10_000)).toMatchObject({ status: 'rejected' });
  });

  it('goes on waiting when the word came but the end did not', async () => {
    book.rows.set('a', record('a', 'sent'));
    const waiting = waits.forEnd('a', 10_000);
    await say('{"id":"a"}');
    book.rows.set('a', record('a', 'unknown'));
    await eventually(() => say('{"id":"a"}').then(() => expect(waits.hasRoom()).toBe(true)));
    expect(await waiting).toMatchObject({ status: 'unknown' });
  });

  it('ends with null when the time is over, after a last look', async () => {
    expect(await waits.forEnd('a', 10)).toBeNull();
    const waiting = waits.forEnd('b', 50);
    await eventually(() => expect(waits.hasRoom()).toBe(true));
    book.rows.set('b', record('b', 'expired'));
    expect(await waiting).toMatchObject({ status: 'expired' });
  });

  it('ends when its caller has gone', async () => {
    const caller = new AbortController();
    const waiting = waits.forEnd('a', NEVER_MS, caller.signal);
    caller.abort();
    expect(await waiting).toBeNull();
  });

  it('ends when the process closes, and no more are taken', async () => {
    const waiting = waits.forEnd('a', NEVER_MS);
    await waits.close();
    expect(await waiting).toBeNull();
    expect(waits.hasRoom()).toBe(false);
  });

  it('is not taken beyond the limit, and gives its place back', async () => {
    const first = waits.forEnd('a', NEVER_MS);
    const second = waits.forEnd('a', NEVER_MS);
    expect(waits.hasRoom()).toBe(false);
    expect(await waits.forEnd('a', NEVER_MS)).toBeNull();
    book.rows.set('a', record('a', 'succeeded'));
    await say('{"id":"a"}');
    await Promise.all([first, second]);
    expect(waits.hasRoom()).toBe(true);
  });

  it('survives a ledger that is away, and whatever else is said on the channel', async () => {
    book.state.condition = 'away';
    const waiting = waits.forEnd('a', 10_000);
    for (const text of ['', 'null', '{', '{"id":7}', 'x'.repeat(10_000), '{"id":"a"}']) {
      await say(text);
    }
    book.state.condition = 'well';
    book.rows.set('a', record('a', 'succeeded'));
    await say('{"id":"a"}');
    expect(await waiting).toMatchObject({ status: 'succeeded' });
  });

  it('needs no word at all: the ledger is asked from time to time', async () => {
    const polling = createWaits({
      redis: subscriber,
      channel: `${channel}:other`,
      ledger: book.ledger,
      log: pino({ level: 'silent' }),
      pollMs: 10,
    });
    const waiting = polling.forEnd('a', 10_000);
    book.rows.set('a', record('a', 'succeeded'));
    expect(await waiting).toMatchObject({ status: 'succeeded' });
    await polling.close();
  });
});
