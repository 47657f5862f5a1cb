/** Gathers calls of one script within a turn of the event loop and makes them one call per shard. */

export type BatchedCall = { keys: readonly string[]; args: readonly (string | number)[] };

export type ScriptBatch = (shard: number, call: BatchedCall) => Promise<string[]>;

/** Redis does nothing else meanwhile, so a call stays short. */
const maxCalls = 50;

type Waiting = {
  call: BatchedCall;
  resolve(reply: string[]): void;
  reject(error: unknown): void;
};

/** As the client would have thrown it, so that an OOM or a read-only replica is known for what it is. */
function replyError(message: string): Error {
  return Object.assign(new Error(message), { name: 'ReplyError' });
}

export function createScriptBatch(
  script: (keys: number, ...keysAndArgs: (string | number)[]) => Promise<string[][]>,
): ScriptBatch {
  let shards = new Map<number, Waiting[]>();

  async function run(group: readonly Waiting[]): Promise<void> {
    const keys = group.flatMap(({ call }) => call.keys);
    const args = group.flatMap(({ call }) => call.args);
    try {
      const replies = await script(keys.length, ...keys, ...args);
      for (const [index, { resolve, reject }] of group.entries()) {
        const reply = replies[index] ?? [];
        if (reply[0] === 'error') reject(replyError(reply[1] ?? ''));
        else resolve(reply);
      }
    } catch (error) {
      for (const { reject } of group) reject(error);
    }
  }

  function flush(): void {
    const turn = shards;
    shards = new Map();
    for (const waiting of turn.values()) {
      for (let i = 0; i < waiting.length; i += maxCalls) void run(waiting.slice(i, i + maxCalls));
    }
  }

  return (shard, call) =>
    new Promise((resolve, reject) => {
      // After all promises that this turn has settled: they ask for the same.
      if (shards.size === 0) process.nextTick(flush);
      const waiting = shards.get(shard);
      if (waiting) waiting.push({ call, resolve, reject });
      else shards.set(shard, [{ call, resolve, reject }]);
    });
}
