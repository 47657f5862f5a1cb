/**
 * How long a command takes at a steady rate: the POST itself, from accept to the frame on the socket, and from the
 * device's answer to the end that the API shows. The reference is BullMQ's own add to its own worker at that rate.
 */

import { Queue } from 'bullmq';
import { percentile } from '../support/percentile.ts';
import { type Caller, createCaller } from './caller.ts';
import { atRate } from './pace.ts';
import { runScript } from './processes.ts';
import type { Report } from './report.ts';
import { deviceIds, openSite, queryFor, type Site, until } from './site.ts';

export type LatencyOptions = {
  devices: number;
  commands: number;
  /** Commands a second. */
  rate: number;
  say(line: string): void;
};

/** Every so manieth call waits for the end, and tells when it was to be seen. */
const waitEvery = 20;
const waitMs = 20_000;
/** Caches, pools and the compiler are warm before anything is measured. */
const warmUpShare = 0.1;

type Shown = { id: string; status: string; attempts: { writtenAt: string | null; ms: number }[] };

export async function benchLatency(options: LatencyOptions): Promise<Report> {
  const { devices, commands, rate, say } = options;
  const site = await openSite();
  try {
    say(`reference: ${commands} jobs of BullMQ alone at ${rate}/s`);
    const bare = await benchBare(site, commands, rate);
    const gateway = await site.start('gateway');
    await site.start('worker');
    const api = await site.start('api');
    const ids = deviceIds(1, devices);
    await site.connect(gateway, ids);
    await until('the uplink stream is empty', async () => {
      return (await site.redis.xlen(site.keys.uplink())) === 0;
    });
    const caller = createCaller(api.ready.http!);
    const warmUp = Math.ceil(commands * warmUpShare);
    await send(caller, ids, warmUp, rate);

    say(`${commands} commands to ${devices} devices at ${rate}/s`);
    const startedAt = Date.now();
    const { posts, seen, ended } = await send(caller, ids, commands, rate);
    const perSecond = commands / ((ended - startedAt) / 1000);
    const delays = await delaysSince(site, startedAt, commands);
    caller.close();
    return {
      name: 'latency',
      figures: {
        rate_per_s: perSecond,
        written_p50_ms: percentile(delays, 0.5),
        written_p99_ms: percentile(delays, 0.99),
        acked_p50_ms: percentile(seen, 0.5),
        acked_p99_ms: percentile(seen, 0.99),
        post_p50_ms: percentile(posts, 0.5),
        post_p99_ms: percentile(posts, 0.99),
        bare_add_p50_ms: percentile(bare, 0.5),
        bare_add_p99_ms: percentile(bare, 0.99),
      },
      versions: await site.versions(),
      notes: [
        'written: from accept to the frame on the socket · acked: from the device’s answer to its end in an answer of the API',
        'post: POST /v1/commands without ?wait=, as its caller sees it',
        'bare_add: BullMQ alone, from add to its processor',
      ],
    };
  } finally {
    await site.close();
  }
}

async function benchBare(
  { redis, redisUrl, keys }: Site,
  jobs: number,
  rate: number,
): Promise<number[]> {
  const queue = new Queue('bare', { connection: redis, prefix: keys.prefix });
  const script = runScript<Record<string, number>>('bare-latency.ts', [
    redisUrl,
    keys.prefix,
    'bare',
    String(jobs),
  ]);
  await until('the bare worker', async () => (await queue.getWorkersCount()) > 0);
  const addedAt = new Map<string, number>();
  const [device = ''] = deviceIds(1, 1);
  await atRate(rate, Array.from({ length: jobs }), async () => {
    const { id, command, ...data } = queryFor(device);
    addedAt.set(id, Date.now());
    await queue.add(command, data, { jobId: id, priority: 5 });
  });
  const begun = await script;
  await queue.obliterate({ force: true });
  await queue.close();
  return [...addedAt].map(([id, at]) => begun[id]! - at);
}

async function send(caller: Caller, ids: readonly string[], commands: number, rate: number) {
  const posts: number[] = [];
  const seen: number[] = [];
  let ended = 0;
  const numbers = Array.from({ length: commands }, (_, n) => n);
  await atRate(rate, numbers, async (n) => {
    const waits = n % waitEvery === 0;
    const body = { deviceId: ids[n % ids.length], command: 'port.query', params: { socket: 1 } };
    const answer = await caller.post(`/v1/commands${waits ? `?wait=${waitMs}` : ''}`, body);
    if (answer.status >= 300) throw new Error(`POST answered ${answer.status}: ${answer.text}`);
    if (waits) seen.push(Date.now() - answeredAt(JSON.parse(answer.text) as Shown));
    else posts.push(answer.ms);
    ended = Date.now();
  });
  return { posts, seen, ended };
}

/** When the gateway had the device's answer. */
function answeredAt({ id, status, attempts }: Shown): number {
  const last = attempts.at(-1);
  if (status !== 'succeeded' || !last?.writtenAt) throw new Error(`command ${id} is ${status}`);
  return Date.parse(last.writtenAt) + last.ms;
}

/** From accept to the frame on the socket, of every command since then. */
async function delaysSince({ pool }: Site, since: number, count: number): Promise<number[]> {
  const read = async () => {
    const { rows } = await pool.query<{ ms: string }>(
      `SELECT (trail->'1'->>'writtenAt')::bigint - accepted_at AS ms FROM commands
       WHERE accepted_at >= $1 AND status = 'succeeded'`,
      [since],
    );
    return rows.map(({ ms }) => Number(ms));
  };
  await until('all succeed', async () => (await read()).length >= count);
  return read();
}
