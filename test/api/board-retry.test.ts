import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { toJob } from '../../queues/job.ts';
import type { CommandRecord } from '../../src/command.ts';
import { DownlinkError } from '../../src/errors.ts';
import { createLog } from '../../src/log/log.ts';
import { newRecord } from '../store/records.ts';
import { realApi } from './real-api.ts';

const query = {
  command: 'port.query',
  params: { socket: 1 },
  orderKey: null,
  onAmbiguous: 'resend' as const,
};
const start = { params: { socket: 1, port: 0, mode: 'time', minutes: 60 } };

/** A board over the real queues, and a dead command with its failed job. */
async function given(wanted: Partial<CommandRecord>, more: { ledgerAway?: boolean } = {}) {
  const lines: Record<string, unknown>[] = [];
  const destination = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  const find = async () => {
    throw new DownlinkError('LEDGER_UNAVAILABLE', 'the ledger at 10.0.0.7 is away');
  };
  const api = await realApi({
    boardLog: createLog({ level: 'info', role: 'api', destination }),
    ...(more.ledgerAway && { boardLedger: { find } }),
  });

  const record = newRecord({
    status: 'unknown',
    version: 9,
    settledAt: Date.now(),
    ...query,
    ...wanted,
  });
  await api.ledger.write(record);
  const queue = api.outbound.queues[api.keys.shardOf(record.deviceId)]!;
  await queue.add(record.command, toJob(record), { jobId: record.id, delay: 3_600_000 });
  await api.redis.zrem(queue.toKey('delayed'), record.id);
  await api.redis.zadd(queue.toKey('failed'), Date.now(), record.id);
  await api.redis.hset(queue.toKey(record.id), 'finishedOn', Date.now());
  expect(await queue.getJobState(record.id)).toBe('failed');

  const retry = () =>
    api.app.inject({
      method: 'PUT',
      url: `/admin/queues/api/queues/${queue.name}/${record.id}/retry`,
      headers: { authorization: `Basic ${Buffer.from('ada:may:act').toString('base64')}` },
    });
  return { api, record, queue, lines, retry };
}

describe('a retry from the board', () => {
  it('becomes a new command, linked to the dead one, whose job is gone', async () => {
    const { api, record, queue, lines, retry } = await given({});
    const answer = await retry();
    expect([answer.statusCode, answer.body]).toEqual([204, '']);
    expect(await queue.getJobState(record.id)).toBe('unknown');
    const { items } = await api.ledger.list({ limit: 10 });
    const made = items.find(({ replayOf }) => replayOf === record.id);
    expect(made).toMatchObject({ apiKey: 'board:ada', status: 'queued', command: 'port.query' });
    expect(await queue.getJobState(made!.id)).toBe('prioritized');
    expect(lines).toMatchObject([
      { audit: true, user: 'ada', jobId: record.id, newId: made!.id, status: 204 },
    ]);
    expect((await api.call('read', 'GET', '/v1/dead')).json.items).toEqual([]);
  });

  it.each([
    ['expired', { deadline: Date.now() - 1_000 }, `ended at 2`],
    [
      'ambiguous',
      { ...start, command: 'charge.start', onAmbiguous: 'probe' as const },
      'port.query',
    ],
    ['answered late', { status: 'succeeded' as const }, 'has succeeded'],
  ])('of a command that is %s is refused there with the reason', async (_, wanted, reason) => {
    const { api, record, queue, lines, retry } = await given(wanted);
    const answer = await retry();
    expect(answer.statusCode).toBe(409);
    expect(answer.json().message).toContain(reason);
    expect(await queue.getJobState(record.id)).toBe('failed');
    expect((await api.outbound.counts()).waiting).toBe(0);
    expect(lines).toMatchObject([{ audit: true, jobId: record.id, status: 409 }]);
  });

  it('clicked twice makes one new command', async () => {
    const { api, retry } = await given({});
    await Promise.all([retry(), retry(), retry()]);
    expect((await api.outbound.counts()).waiting).toBe(1);
  });

  it('is refused while the ledger is away, without its address', async () => {
    const { record, queue, retry } = await given({}, { ledgerAway: true });
    const answer = await retry();
    expect(answer.statusCode).toBe(503);
    expect(answer.json().error.key).toBe('ERRORS.INTERNAL_SERVER_ERROR');
    expect(answer.body).not.toContain('10.0.0.7');
    expect(await queue.getJobState(record.id)).toBe('failed');
  });
});
