/**
 * Rows per second of the ledger's write(): accept, attempt and settlement of many commands.
 * Run: node test/bench/ledger-rows.ts DATABASE_URL [commands] [callers]
 */
import { v7 as uuidV7 } from 'uuid';
import { type Attempt, acceptedState, type CommandRecord } from '../../src/command.ts';
import { connectPostgres } from '../../src/connections/postgres.ts';
import { createLog } from '../../src/log/log.ts';
import { createLedger } from '../../src/store/ledger.ts';
import { migrate } from '../../src/store/migrate.ts';

const [url, commandsText = '20000', callersText = '2000'] = process.argv.slice(2);
if (!url) {
  process.stderr.write('usage: node test/bench/ledger-rows.ts DATABASE_URL [commands] [callers]\n');
  process.exit(2);
}
const commands = Number(commandsText);
const callers = Number(callersText);

await migrate({ url });
const pool = connectPostgres({ url, applicationName: 'downlink-bench', max: 4 });
const ledger = createLedger({ pool, log: createLog({ level: 'warn', role: 'bench' }) });

const accepted = Array.from({ length: commands }, (_, index) => acceptedRecord(index));
await measure('accept', accepted);
await measure('attempt', accepted.map(sent));
await measure('settle', accepted.map(succeeded));

await pool.query('DELETE FROM commands WHERE id = ANY($1)', [accepted.map(({ id }) => id)]);
await ledger.close();
await pool.end();

/** Writes all records, `callers` of them at a time. */
async function measure(phase: string, records: readonly CommandRecord[]): Promise<void> {
  const startedAt = performance.now();
  let next = 0;
  const latencies: number[] = [];
  await Promise.all(
    Array.from({ length: callers }, async () => {
      for (let record = records[next++]; record; record = records[next++]) {
        const calledAt = performance.now();
        await ledger.write(record);
        latencies.push(performance.now() - calledAt);
      }
    }),
  );
  const seconds = (performance.now() - startedAt) / 1000;
  latencies.sort((a, b) => a - b);
  const rank = (share: number) => Math.round(latencies[Math.floor(records.length * share)] ?? 0);
  process.stdout.write(
    `${JSON.stringify({
      phase,
      rows_per_s: Math.round(records.length / seconds),
      p50_ms: rank(0.5),
      p99_ms: rank(0.99),
    })}\n`,
  );
}

function acceptedRecord(index: number): CommandRecord {
  const now = Date.now();
  const command = {
    id: uuidV7(),
    deviceId: `8220052${String(index % 10_000).padStart(7, '0')}`,
    protocol: 'bkv',
    command: 'charge.start',
    params: { socket: 1, port: 0, mode: 'time', minutes: 120, orderNo: index },
    priority: 7,
    acceptedAt: now,
    notBefore: now,
    deadline: now + 60_000,
    ackTimeoutMs: 10_000,
    attempts: 4,
    backoffMs: 3_000,
    orderKey: 'port:1:0',
    onAmbiguous: 'probe' as const,
    labels: { site: 'north' },
    apiKey: 'bench',
    waiter: null,
    replayOf: null,
  };
  return { ...command, ...acceptedState(command, now) };
}

function attemptOf(record: CommandRecord): Attempt {
  return {
    attempt: 1,
    at: record.acceptedAt,
    gatewayId: 'gateway-1',
    epoch: record.acceptedAt * 1000,
    wireId: 77,
    frameOut: 'fcff001a'.repeat(8),
    writtenAt: null,
    frameIn: null,
    ms: null,
    outcome: null,
  };
}

function sent(record: CommandRecord): CommandRecord {
  return { ...record, status: 'sent', version: 2, trail: { 1: attemptOf(record) } };
}

function succeeded(record: CommandRecord): CommandRecord {
  const frameIn = 'fcff0015'.repeat(6);
  const answer = { writtenAt: record.acceptedAt, frameIn, ms: 12, outcome: 'acked' };
  return {
    ...record,
    status: 'succeeded',
    version: 3,
    settledAt: Date.now(),
    result: { port: 0, businessNo: 7 },
    trail: { 1: { ...attemptOf(record), ...answer } },
  };
}
