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
  {
    name: 'no mark is written',
    file: 'src/bridge/mark-scripts.ts',
    find: "if ARGV[7] == '0' then",
    replace: "if ARGV[7] == '2' then",
    test: {
      file: 'test/promises/marks.test.ts',
      name: 'one route script per delivery reads the presence, gives the wire id and writes the mark',
    },
  },
  {
    name: 'marks not removed by surely unwritten answers',
    file: 'src/bridge/mark-scripts.ts',
    find: "redis.call('HDEL', KEYS[1], id)",
    replace: "redis.call('HLEN', KEYS[1])",
    test: {
      file: 'test/promises/marks.test.ts',
      name: 'a surely unwritten answer or the settlement removes the mark',
    },
  },
  {
    name: 'a mark of a dead worker is overlooked',
    file: 'src/bridge/mark-scripts.ts',
    find: "if g ~= '-' and tonumber(a) >= attempt then return {'again'",
    replace: "if false then return {'again'",
    test: {
      file: 'test/promises/marks.test.ts',
      name: 'a job that finds its mark publishes the same attempt to that gateway again',
    },
  },
  {
    name: '0 receivers always unwritten',
    file: 'src/bridge/worker-bridge.ts',
    find: 'if (again) end(',
    replace: 'if (again && this === null) end(',
    test: {
      file: 'test/promises/marks.test.ts',
      name: 'no receivers means unwritten only on the first publish under a mark',
    },
  },
  {
    name: 'every publish counts as the first',
    file: 'src/bridge/worker-bridge.ts',
    find: 'pending.again = true;',
    replace: '',
    test: {
      file: 'test/promises/marks.test.ts',
      name: 'no receivers means unwritten only on the first publish under a mark',
    },
  },
  {
    name: 'no backstop behind the ack timeout',
    file: 'src/bridge/worker-bridge.ts',
    find: 'const backstopMs = 2_000;',
    replace: 'const backstopMs = 0;',
    test: {
      file: 'test/promises/deliveries.test.ts',
      name: 'the worker keeps a backstop 2 s longer than the ack timeout',
    },
  },
  {
    name: 'an outcome is told once',
    file: 'src/bridge/ends.ts',
    find: 'if (!isRefusal(outcome)) unsettled.set(keyOf(delivery), entry);',
    replace: '',
    test: {
      file: 'test/promises/deliveries.test.ts',
      name: 'the gateway keeps an outcome until the worker says settled',
    },
  },
  {
    name: 'an outcome that nobody hears is lost',
    file: 'src/bridge/ends.ts',
    find: "if ('receivers' in sent && sent.receivers === 0) keepQuietly(entry);",
    replace: '',
    test: {
      file: 'test/promises/deliveries.test.ts',
      name: 'an outcome that nobody listens for goes to a stream that any worker consumes',
    },
  },
  {
    name: 'a job sends without a look for its outcome',
    file: 'src/bridge/mark-scripts.ts',
    find: "if kept then return {'kept', kept} end",
    replace: '',
    test: {
      file: 'test/promises/deliveries.test.ts',
      name: 'a job that is started again looks for its outcome before it sends',
    },
  },
  {
    name: 'presence removed without compare',
    file: 'src/bridge/scripts.ts',
    find: 'if held[1] == ARGV[1] and held[2] == ARGV[2] then',
    replace: 'if held[1] then',
    test: { file: 'test/bridge/bridge.test.ts', name: 'is removed only by the login that made it' },
  },
  {
    name: 'an epoch that falls',
    file: 'src/bridge/scripts.ts',
    find: 'if old[2] and tonumber(old[2]) >= epoch then epoch = tonumber(old[2]) + 1 end',
    replace: '',
    test: {
      file: 'test/promises/presence.test.ts',
      name: 'the epoch is the time of Redis in microseconds, or one more than the old epoch',
    },
  },
  {
    name: 'an epoch as Lua prints it',
    file: 'src/bridge/scripts.ts',
    find: "local text = string.format('%.0f', epoch)",
    replace: 'local text = tostring(epoch)',
    test: {
      file: 'test/promises/presence.test.ts',
      name: 'the epoch is the time of Redis in microseconds, or one more than the old epoch',
    },
  },
  {
    name: 'a lease without an end',
    file: 'src/bridge/redis-gateway-bridge.ts',
    find: 'holdsLease: () => clock() < leaseUntil,',
    replace: 'holdsLease: () => leaseUntil > 0,',
    test: {
      file: 'test/promises/presence.test.ts',
      name: 'a gateway holds one lease of about 10 s, and renews it',
    },
  },
  {
    name: 'a flush goes unnoticed by gateways',
    file: 'src/bridge/redis-gateway-bridge.ts',
    find: 'if (added === 1 && leaseUntil !== 0) mustRegister = true;',
    replace: '',
    test: {
      file: 'test/promises/presence.test.ts',
      name: 'after a flush gateways register their sessions again with their original epochs',
    },
  },
  {
    name: 'a deaf end stays deaf',
    file: 'src/bridge/redis-gateway-bridge.ts',
    find: "if (subscriber.status === 'ready' && !alive()) subscriber.disconnect(true);",
    replace: '',
    test: {
      file: 'test/promises/silence.test.ts',
      name: 'both ends heartbeat over the channel, and subscribe again by themselves',
    },
  },
  {
    name: 'a silent bridge looks well',
    file: 'src/gateway/gateway.ts',
    find: 'accept.isListening() && bridge.alive()',
    replace: 'accept.isListening()',
    test: {
      file: 'test/promises/silence.test.ts',
      name: 'a silent bridge shows in the health of a gateway',
    },
  },
  {
    name: 'every counter of wire ids starts at 1',
    file: 'src/bridge/routes.ts',
    find: 'Math.floor(Math.random() * Math.min(max, 0x7fffffff))',
    replace: 'max * 0',
    test: {
      file: 'test/promises/wire-ids.test.ts',
      name: 'the counter of a device starts anywhere',
    },
  },
  {
    name: 'a wire id is forgotten with its command',
    file: 'src/bridge/mark-scripts.ts',
    find: "redis.call('HDEL', KEYS[1], id, '!' .. id,",
    replace: "redis.call('HDEL', KEYS[1], '#wire', id, '!' .. id,",
    test: {
      file: 'test/promises/wire-ids.test.ts',
      name: 'a wire id is not given again within the late-answer window',
    },
  },
  {
    name: 'late answers match by device alone',
    file: 'src/gateway/late-window.ts',
    find: 'if (delivery.wireId !== message.msgId || until <= clock.ticks()) continue;',
    replace: 'if (until <= clock.ticks()) continue;',
    test: {
      file: 'test/promises/wire-ids.test.ts',
      name: 'late answers match by device, command and wire id',
    },
  },
  {
    name: 'all parked commands wake at once',
    file: 'src/bridge/messages.ts',
    find: 'export const wholeLane = 5;',
    replace: 'export const wholeLane = 50;',
    test: { file: 'test/promises/parking.test.ts', name: 'only what the lane can take is woken' },
  },
  {
    name: 'a settle wakes nobody',
    file: 'workers/settle.ts',
    find: 'for (const next of woken) parking.wake(deviceId, next);',
    replace: '',
    test: {
      file: 'test/promises/parking.test.ts',
      name: 'the next parked command is woken at each settle',
    },
  },
  {
    name: 'wake without look-again',
    file: 'workers/parking.ts',
    find: 'if (pauseMs === 0) setImmediate(lookAgain, run, reason);',
    replace: 'if (pauseMs === 0) setImmediate(() => undefined);',
    test: {
      file: 'test/promises/parking.test.ts',
      name: 'a command that has parked looks at the presence again, and wakes itself if that has changed',
    },
  },
  {
    name: 'a parked job outlives its deadline',
    file: 'workers/parking.ts',
    find: 'const until = Math.min(now() + backstop, deadline);',
    replace: 'const until = now() + backstop;',
    test: {
      file: 'test/promises/parking.test.ts',
      name: 'the delay of a parked job is 1, 2, 4 and up to 15 min, and at most its deadline',
    },
  },
  {
    name: 'a device key without its tag',
    file: 'src/bridge/keys.ts',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the text of a source line
    find: '`${tagOf(deviceId)}:unanswered:',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the text of a source line
    replace: '`${prefix}:unanswered:',
    test: {
      file: 'test/promises/keys.test.ts',
      name: "every device and command key carries its shard's hash tag",
    },
  },
  {
    name: 'a delivery of every session',
    file: 'workers/send.ts',
    find: 'epoch: route.epoch,\n      protocol',
    replace: 'epoch: 1,\n      protocol',
    test: {
      file: 'test/promises/presence.test.ts',
      name: 'every delivery carries the epoch of the session that it is meant for',
    },
  },
  {
    name: 'each message is a publish of its own',
    file: 'src/bridge/messages.ts',
    find: 'export const maxBatchMessages = 500;',
    replace: 'export const maxBatchMessages = 1;',
    test: {
      file: 'test/promises/channels.test.ts',
      name: 'messages are batched per turn of the event loop',
    },
  },
  {
    name: 'outcomes go to all workers',
    file: 'src/bridge/ends.ts',
    find: 'outbox.send(keys.workerChannel(delivery.workerId), message',
    replace: 'outbox.send(keys.eventsChannel(), message',
    test: {
      file: 'test/promises/channels.test.ts',
      name: 'each gateway has a channel, each worker has one, and events have one',
    },
  },
];
