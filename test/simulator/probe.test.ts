/** The probes of the command tables, asked of devices that speak real bytes. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Ack } from '../../src/outcome.ts';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import type { Message, Observation } from '../../src/protocols/protocol.ts';
import { createFleet, type Fleet } from '../../src/simulator/fleet.ts';
import type { Knobs } from '../../src/simulator/knobs.ts';
import { type CodecServer, startCodecServer } from './server.ts';

const bkvId = '82200520004869';
const apId = '04ab373b';
const bound = { timeout: 5000, interval: 5 };
const minuteMs = 60_000;

let server: CodecServer;
let fleet: Fleet;

beforeEach(async () => {
  server = await startCodecServer();
});

afterEach(async () => {
  await fleet.stop();
  await server.close();
});

async function started(knobs: Partial<Knobs> = {}): Promise<void> {
  fleet = createFleet({
    host: '127.0.0.1',
    port: server.port,
    devices: [
      { deviceId: bkvId, protocol: 'bkv' },
      { deviceId: apId, protocol: 'ap3000' },
    ],
    knobs: { stateAtLogin: true, reportMs: 20, settlementMs: 20, ...knobs },
    startTimeoutMs: 5000,
  });
  await fleet.start();
}

/** What the device said by itself, newest first. */
function told(messages: readonly Message[], names: readonly string[], at: number): Observation[] {
  return messages
    .filter(({ name }) => names.includes(name))
    .map(({ name, fields }) => ({ name, at, fields }))
    .reverse();
}

const heardSomething = (name: string, from = 0) =>
  vi.waitFor(() => {
    expect(server.heard.slice(from).map((message) => message.name)).toContain(name);
  }, bound);

function judge(
  { commands }: typeof bkv,
  params: Record<string, unknown>,
  answer: Ack | null,
  writtenAfter: number,
) {
  const { probe } = commands['charge.start']!;
  const at = Date.now();
  return probe!.judge(params, {
    answer: answer!,
    writtenAt: at,
    before: told(server.heard.slice(0, writtenAfter), probe!.reports, at - minuteMs),
    since: told(server.heard.slice(writtenAfter), probe!.reports, at),
    rivals: [],
  });
}

describe('a BKV start that went unanswered', () => {
  const start = { socket: 1, port: 1, mode: 'time', minutes: 60 };
  const stop = { socket: 1, port: 1 };
  const query = { socket: 1 };

  it('is found in the charge that it began', async () => {
    await started();
    await heardSomething('status.report');
    for (const wireId of [10, 20]) {
      fleet.device(bkvId).loseAnswers();
      const written = server.heard.length;
      expect(await server.send(bkvId, 'charge.start', start, wireId, 50)).toBeNull();
      const answer = await server.send(bkvId, 'port.query', query, wireId + 1);
      const { businessNo } = fleet.device(bkvId).ports[0]!;
      expect(judge(bkv, start, answer, written)).toEqual({
        kind: 'took-effect',
        result: { businessNo, socket: 1, port: 1 },
      });
      const stopping = server.heard.length;
      await server.send(bkvId, 'charge.stop', stop, wireId + 2);
      await heardSomething('charge.end', stopping);
    }
  });

  it('is found in the report of a charge that is over already', async () => {
    await started({ chargeMs: 40 });
    await heardSomething('status.report');
    fleet.device(bkvId).loseAnswers();
    const written = server.heard.length;
    expect(await server.send(bkvId, 'charge.start', start, 10, 50)).toBeNull();
    await heardSomething('charge.end');
    const answer = await server.send(bkvId, 'port.query', query, 11);
    expect(judge(bkv, start, answer, written)).toMatchObject({ kind: 'took-effect' });
  });

  it('had no effect where it never got through', async () => {
    await started();
    await heardSomething('status.report');
    fleet.device(bkvId).silence();
    const written = server.heard.length;
    expect(await server.send(bkvId, 'charge.start', start, 10, 50)).toBeNull();
    fleet.device(bkvId).silence(false);
    const answer = await server.send(bkvId, 'port.query', query, 11);
    expect(judge(bkv, start, answer, written)).toEqual({ kind: 'no-effect' });
  });

  it('cannot be told from a charge that runs', async () => {
    await started();
    const first = await server.send(bkvId, 'charge.start', start, 10);
    expect(first).toMatchObject({ accepted: true });
    const charging = server.heard.length;
    await heardSomething('status.report', charging);
    fleet.device(bkvId).silence();
    const written = server.heard.length;
    expect(await server.send(bkvId, 'charge.start', start, 11, 50)).toBeNull();
    fleet.device(bkvId).silence(false);
    const answer = await server.send(bkvId, 'port.query', query, 12);
    expect(judge(bkv, start, answer, written)).toMatchObject({ kind: 'unclear' });
  });
});

describe('an AP3000 start that went unanswered', () => {
  const start = { port: 1, mode: 'time', seconds: 600, orderNo: 'order-1' };

  it('is simply acknowledged when it comes again', async () => {
    await started();
    fleet.device(apId).loseAnswers();
    expect(await server.send(apId, 'charge.start', start, 10, 50)).toBeNull();
    expect(await server.send(apId, 'charge.start', start, 10)).toMatchObject({ accepted: true });
  });

  it('is found in a power report where its repetition is refused', async () => {
    await started({ repeatedStart: 'same-state' });
    fleet.device(apId).loseAnswers();
    const written = server.heard.length;
    expect(await server.send(apId, 'charge.start', start, 10, 50)).toBeNull();
    await heardSomething('power');
    const answer = await server.send(apId, 'charge.start', start, 10);
    expect(answer).toMatchObject({ accepted: false, code: '2' });
    expect(judge(ap3000, start, answer, written)).toEqual({
      kind: 'took-effect',
      result: { orderNo: 'order-1', port: 1 },
    });
  });

  it('cannot be told where another order runs', async () => {
    await started();
    const other = { ...start, orderNo: 'order-2' };
    expect(await server.send(apId, 'charge.start', other, 9)).toMatchObject({ accepted: true });
    fleet.device(apId).silence();
    const written = server.heard.length;
    expect(await server.send(apId, 'charge.start', start, 10, 50)).toBeNull();
    fleet.device(apId).silence(false);
    await heardSomething('power', written);
    const answer = await server.send(apId, 'charge.start', start, 10);
    expect(judge(ap3000, start, answer, written)).toEqual({
      kind: 'unclear',
      reason: expect.stringContaining('reports order order-2 there'),
    });
  });
});
