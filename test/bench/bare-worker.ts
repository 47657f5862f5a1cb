/**
 * The reference: BullMQ alone. Drains the queue of its arguments with a no-op processor and prints
 * one line of JSON. Run as a process of its own, as our worker is.
 * Arguments: Redis URL, prefix, queue name, concurrency, number of jobs.
 */
import { Worker } from 'bullmq';
import { keepCompleted, keepFailed } from '../../queues/job.ts';
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';

const [url = '', prefix = '', name = '', concurrency = '1', jobs = '0'] = process.argv.slice(2);
const connection = connectRedis({ url, purpose: 'blocking', name: 'bare-worker' });
let done = 0;
let startedAt = 0;
const worker = new Worker(
  name,
  async () => {
    if (startedAt === 0) startedAt = performance.now();
  },
  {
    connection,
    prefix,
    concurrency: Number(concurrency),
    removeOnComplete: keepCompleted,
    removeOnFail: keepFailed,
  },
);
worker.on('completed', () => {
  done += 1;
  if (done < Number(jobs)) return;
  const seconds = (performance.now() - startedAt) / 1000;
  process.stdout.write(`${JSON.stringify({ perSecond: done / seconds })}\n`);
  void worker.close().then(() => closeRedis(connection));
});
