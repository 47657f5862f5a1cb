/** What a command is when its caller says little, and what no caller may say. */
import { expect, test } from 'vitest';
import { protocols } from '../../src/protocols/index.ts';
import { freshWorld, queryBody } from '../queues/accept-fixture.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;

/** Priority and time to live of a command, in every protocol that has it. */
function defaultsOf(command: string): [priority: number, ttlMs: number][] {
  return protocols.flatMap(({ commands }) => {
    const spec = commands[command];
    return spec ? [[spec.priority, spec.ttlMs] as [number, number]] : [];
  });
}

test('the command table gives the urgency: stop 9, start 7, query 5, parameters 3, firmware 1', () => {
  const priorities = (command: string) => defaultsOf(command).map(([priority]) => priority);
  expect(priorities('charge.stop')).toEqual([9, 9]);
  expect(priorities('charge.start')).toEqual([7, 7]);
  expect(priorities('port.query')).toEqual([5, 5]);
  expect(priorities('params.set')[0]).toBe(3);
  expect(priorities('ota.start')[0]).toBe(1);
});

test('a start or stop lives for a minute, everything else for an hour', () => {
  const times = (command: string) => defaultsOf(command).map(([, ttlMs]) => ttlMs);
  expect(times('charge.start')).toEqual([minuteMs, minuteMs]);
  expect(times('charge.stop')).toEqual([minuteMs, minuteMs]);
  expect(times('port.query')).toEqual([hourMs, hourMs]);
  expect(times('params.set')[0]).toBe(hourMs);
  expect(times('ota.start')[0]).toBe(hourMs);
});

test('clients never pass an option of BullMQ through', async () => {
  const { accept, jobOf } = await freshWorld();
  const options = {
    jobId: 'mine',
    lifo: true,
    removeOnComplete: true,
    opts: {},
    repeat: {},
    delay: 1,
  };
  for (const [name, value] of Object.entries(options)) {
    const asked = accept({ body: queryBody({ [name]: value }), apiKey: 'app' });
    await expect(asked, name).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  }
  const { record } = await accept({ body: queryBody(), apiKey: 'app' });
  const job = await jobOf(record.deviceId, record.id);
  expect(Object.keys(job?.opts ?? {}).sort()).toEqual(['attempts', 'backoff', 'jobId', 'priority']);
  expect(job?.opts.jobId).toBe(record.id);
});
