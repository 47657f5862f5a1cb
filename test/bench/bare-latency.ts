/**
 * The reference: when BullMQ's own worker begins each job of a queue. Prints one line of JSON once it has begun
 * so many, id → Unix milliseconds. Run as a process of its own, as our worker is.
 * Arguments: Redis URL, prefix, queue name, number of jobs.
 */
import { Worker } from 'bullmq';
import { keepCompleted, keepFailed } from '../../queues/job.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';

const [url = '', prefix = '', name = '', jobs = '0'] = process.argv.slice(2);
const connection = connectRedis({ url, purpose: 'blocking', name: 'bare-worker' });
const begun: Record<string, number> = {};
const worker = new Worker(
  name,
  async ({ id }) => {
    begun[id ?? ''] ??= Date.now();
  },
  {
    connection,
    prefix,
    concurrency: 200,
    removeOnComplete: keepCompleted,
    removeOnFail: keepFailed,
  },
);
let completed = 0;
worker.on('completed', () => {
  completed += 1;
  if (completed !== Number(jobs)) return;
  process.stdout.write(`${JSON.stringify(begun)}\n`);
  void worker.close().then(() => closeRedis(connection));
});
