/** What still stands in Redis of commands when all of them have ended. */
import { closeRedis, connectRedis } from '../../src/connections/redis.ts';
import type { Stack } from '../support/stack.ts';

export async function leftovers({ redisUrl, prefix }: Stack): Promise<string[]> {
  const client = connectRedis({ url: redisUrl, purpose: 'blocking', name: 'leftovers' });
  try {
    const left: string[] = [];
    for (const key of await client.keys(`{${prefix}-*}:*`)) {
      const kind = key.split(':')[1] ?? '';
      const name = key.split(':').at(-1) ?? '';
      // Outcomes that nobody came for go by themselves within the hour.
      if (['parked', 'line', 'lines'].includes(kind)) left.push(key);
      if (kind === 'marks') {
        // Beside the marks stand a device's counters and its last stops.
        const fields = (await client.hkeys(key)).filter((field) => !field.startsWith('#'));
        if (fields.length > 0) left.push(`${key} ${fields.join(' ')}`);
      }
      if (!kind.startsWith('outbound-')) continue;
      if (['active', 'wait', 'paused'].includes(name)) {
        left.push(...(await client.lrange(key, 0, -1)).map((id) => `${key} ${id}`));
      } else if (['delayed', 'prioritized'].includes(name)) {
        left.push(...(await client.zrange(key, '0', '-1')).map((id) => `${key} ${id}`));
      }
    }
    for (const stream of ['outcomes', 'settlements']) {
      const entries = await client.xlen(`${prefix}:${stream}`);
      if (entries > 0) left.push(`${entries} entries in the stream ${stream}`);
    }
    return left;
  } finally {
    await closeRedis(client);
  }
}
