import { expect, test } from 'vitest';
import type { Attempt, CommandRecord } from '../../src/command.ts';
import { createLog } from '../../src/log/log.ts';
import type { Evidence, Probe } from '../../src/protocols/protocol.ts';
import { createProber } from '../../workers/probe.ts';
import type { Run } from '../../workers/run.ts';

const orderKey = 'port:1:0';

function row(id: string, change: Partial<CommandRecord>): CommandRecord {
  const trail = { 1: { attempt: 1, at: 5, writtenAt: 7 } as Attempt };
  return { id, orderKey, trail, inferred: false, ...change } as CommandRecord;
}

test('rivals are unanswered and inferred commands of the line that would have had the same effect', async () => {
  const rows = [
    row('silent', { status: 'unknown' }),
    row('inferred', { status: 'succeeded', inferred: true }),
    row('answered', { status: 'succeeded' }),
    row('elsewhere', { status: 'unknown', orderKey: 'port:2:0' }),
    row('ours', { status: 'unknown' }),
  ];
  const asked: (string | undefined)[] = [];
  let seen: Evidence | null = null;
  const prober = createProber({
    routes: {} as never,
    bridge: {} as never,
    recorder: {} as never,
    ledger: {
      find: async () => row('ours', { status: 'queued' }),
      list: async ({ command }) => {
        asked.push(command);
        return { items: command === 'charge.start' ? rows : [], nextCursor: null };
      },
    },
    reports: { recent: async () => [] },
    log: createLog({ level: 'silent', role: 'test' }),
    now: () => 100,
  });
  const probe: Probe = {
    kind: 'repeat',
    reports: [],
    judge(_params, evidence) {
      seen = evidence;
      return { kind: 'no-effect' };
    },
  };
  const command = { id: 'ours', deviceId: 'd', command: 'charge.start', orderKey, params: {} };
  const run = { command, spec: { excludes: ['charge.start', 'card.order'] } } as unknown as Run;
  expect(await prober.ask(run, probe)).toBeNull();
  expect(seen).toMatchObject({ writtenAt: 7, rivals: [7, 7] });
  expect(asked.toSorted()).toEqual(['card.order', 'charge.start']);
});
