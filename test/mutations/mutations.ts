/** One-line breaks of promises, each with the test that must turn red. */
export type Mutation = {
  /** What is broken, in a few words. */
  name: string;
  file: string;
  /** Stands exactly once in the file. */
  find: string;
  replace: string;
  test: { file: string; name: string };
};

export const mutations: readonly Mutation[] = [
  {
    name: 'no time to live in the gateway',
    file: 'src/gateway/lane.ts',
    find: 'if (now >= delivery.deadline) return expired(entry, now);',
    replace: '',
    test: {
      file: 'test/promises/lane.test.ts',
      name: 'the time to live is checked again at the moment of writing',
    },
  },
  {
    name: 'no epoch check in the lane',
    file: 'src/gateway/lane.ts',
    find: "if (delivery.epoch !== this.#outlet.epoch) return { kind: 'unwritten', reason: 'stale-epoch' };",
    replace: '',
    test: { file: 'test/gateway/lane.test.ts', name: 'a delivery of another epoch is not written' },
  },
  {
    name: 'no gap between frames',
    file: 'src/gateway/lane.ts',
    find: 'if (waitMs > 0) {',
    replace: 'if (waitMs > 1e9) {',
    test: {
      file: 'test/promises/lane.test.ts',
      name: 'a BKV session leaves 10 ms between two frames, an AP3000 session 500 ms',
    },
  },
  {
    name: 'a stop waits for a start',
    file: 'src/bridge/mark-scripts.ts',
    find: 'if stands(k) and (not stop or isStop(k[1])) then return other end',
    replace: 'if stands(k) then return other end',
    test: { file: 'test/promises/order.test.ts', name: 'a stop waits for no start of its port' },
  },
  {
    name: 'supersede without withdraw',
    file: 'queues/accept.ts',
    find: 'const withdrawn = supersede.withdraw(command.deviceId, place.superseded);',
    replace: 'const withdrawn = Promise.resolve();',
    test: {
      file: 'test/promises/order.test.ts',
      name: 'an unwritten start has been taken back from its gateway when the stop is accepted',
    },
  },
  {
    name: 'a start beside an unfinished start',
    file: 'src/bridge/mark-scripts.ts',
    find: "if named(ARGV[8], otherCommand) then return {'conflict', other} end",
    replace: '',
    test: {
      file: 'test/promises/order.test.ts',
      name: 'a start while a start is unfinished is refused with 409',
    },
  },
  {
    name: 'a newer command passes an older one of its key',
    file: 'src/bridge/mark-scripts.ts',
    find: "ipairs(redis.call('ZRANGEBYSCORE', line, '-inf', '(' .. seq))",
    replace: 'ipairs({})',
    test: {
      file: 'test/promises/order.test.ts',
      name: 'a newer command waits for an unfinished older one of its key',
    },
  },
  {
    name: 'a stop stops nothing',
    file: 'src/bridge/mark-scripts.ts',
    find: "redis.call('HSET', KEYS[1], '!' .. o[1], 'superseded|' .. id)",
    replace: '',
    test: {
      file: 'test/promises/order.test.ts',
      name: 'a written start that a stop replaced gets no further attempt or probe and ends as unknown',
    },
  },
  {
    name: 'settle without version',
    file: 'src/store/ledger-writer.ts',
    find: 'AND (excluded.version > held.version',
    replace: 'AND (true',
    test: { file: 'test/store/ledger-write.test.ts', name: 'refuses an older version' },
  },
  {
    name: 'backoff past the deadline',
    file: 'workers/settle.ts',
    find: 'if (now + delayMs >= command.deadline) {',
    replace: 'if (now < 0) {',
    test: {
      file: 'test/workers/settle.test.ts',
      name: 'is unknown when the backoff would pass the deadline',
    },
  },
  {
    name: 'join after enqueue',
    file: 'queues/accept.ts',
    find: 'const place = await join(candidate);\n    const queued = outbound.enqueue(entryOf(candidate, place));',
    replace:
      'const queued = outbound.enqueue({ command: candidate.command });\n    const place = await join(candidate);',
    test: {
      file: 'test/promises/durability.test.ts',
      name: 'accept is validate, claim, join, and only then ledger and queue',
    },
  },
  {
    name: 'late answers dropped',
    file: 'src/gateway/late-window.ts',
    find: 'if (!entries) return null;',
    replace: 'if (!entries || entries.length > 0) return null;',
    test: {
      file: 'test/promises/statuses.test.ts',
      name: 'a late answer turns unknown into succeeded',
    },
  },
  {
    name: 'retry with another wire id',
    file: 'src/bridge/mark-scripts.ts',
    find: "wire, written = w, (g == '-' and x or '1')",
    replace: "written = (g == '-' and x or '1')",
    test: { file: 'test/promises/attempts.test.ts', name: 'a retry reuses the wire message id' },
  },
  {
    name: 'a job ends before its settlement is stored',
    file: 'workers/settle.ts',
    find: 'await recordEnd(run, verdict);',
    replace: 'void recordEnd(run, verdict);',
    test: {
      file: 'test/promises/ledger.test.ts',
      name: 'a job ends only after its settlement is in the ledger',
    },
  },
  {
    name: 'nothing stands in for the ledger',
    file: 'workers/recorder.ts',
    find: "await redis.xadd(keys.settlements(), '*', 's', JSON.stringify(settlement));",
    replace: '',
    test: {
      file: 'test/promises/ledger.test.ts',
      name: 'while the ledger is away a stream stands in for it, and the row follows',
    },
  },
  {
    name: 'an unwritten attempt is spent',
    file: 'workers/settle.ts',
    find: "await releaseAndWake(run, 'unwritten');",
    replace: "await releaseAndWake(run, 'rest');",
    test: {
      file: 'test/promises/attempts.test.ts',
      name: 'what is surely unwritten parks and spends no attempt',
    },
  },
  {
    name: 'jobs of a restarted Redis go unchecked',
    file: 'workers/guard.ts',
    find: 'if (putBack || job.stalledCounter > 0 || job.timestamp < (await redisStartedAt())) {',
    replace: 'if (putBack || job.stalledCounter > 0) {',
    test: {
      file: 'test/promises/ledger.test.ts',
      name: 'a job older than the last start of Redis is checked against the ledger before it sends',
    },
  },
  {
    name: 'a refill sends a written command again',
    file: 'workers/reaper.ts',
    find: 'if (attempt > 0) {',
    replace: 'if (attempt < 0) {',
    test: {
      file: 'test/promises/ledger.test.ts',
      name: 'a lost command that was written goes through the ambiguity rule',
    },
  },
  {
    name: 'every end is dead',
    file: 'workers/settle.ts',
    find: "if (status !== 'failed' && status !== 'unknown') return { status };",
    replace: '',
    test: {
      file: 'test/promises/statuses.test.ts',
      name: 'only what ended as failed or unknown is dead',
    },
  },
  {
    name: 'the start of an attempt is not told',
    file: 'workers/send.ts',
    find: 'if (run.spec!.repeatable) noteProgress(run);\n    else tellProgress(run);',
    replace: '',
    test: {
      file: 'test/promises/attempts.test.ts',
      name: 'a published delivery without a receipt appears as possibly written',
    },
  },
  {
    name: 'the time to live counts from accept',
    file: 'queues/accept-check.ts',
    find: 'deadline: notBefore + (',
    replace: 'deadline: acceptedAt + (',
    test: {
      file: 'test/promises/time.test.ts',
      name: 'the time to live counts from the moment at which the command may be sent',
    },
  },
];
