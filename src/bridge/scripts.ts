/**
 * The Lua of the bridge. Each script touches keys of one device only, so that it runs on one slot.
 * A mark is the text `attempt|gatewayId|epoch|wireId|written`: the attempt that was published last. A mark
 * whose gateway is `-` rests: nothing is out, but the wire id (and the attempt count) must be kept.
 */
import type { Redis } from 'ioredis';

/** Above every score of a command that waits; added to those that were woken. */
const wokenScore = 1_000;

/** Marks outlive the longest TTL (48 h) and the late-answer window. */
const markSeconds = 50 * 3600;
/** The field of a device's marks that holds the wire id given last; no command has such an id. */
const wireField = '#wire';

const login = `
local now = redis.call('TIME')
local micros = now[1] * 1000000 + now[2]
local old = redis.call('HMGET', KEYS[1], 'gatewayId', 'epoch', 'takeovers', 'since')
local window = tonumber(ARGV[3]) * 1000
local takeovers, since = 0, micros
if old[1] then
  takeovers = tonumber(old[3] or '0') + 1
  since = tonumber(old[4] or '0')
  if micros - since > window then takeovers, since = 1, micros end
  if takeovers > tonumber(ARGV[4]) then
    return {0, math.ceil((since + window - micros) / 1000)}
  end
end
local epoch = micros
if old[2] and tonumber(old[2]) >= epoch then epoch = tonumber(old[2]) + 1 end
local text = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], 'gatewayId', ARGV[1], 'epoch', text, 'protocol', ARGV[2],
  'takeovers', string.format('%.0f', takeovers), 'since', string.format('%.0f', since))
return {1, text, redis.call('ZCARD', KEYS[2]), old[1] or '', old[2] or ''}
`;

const register = `
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) > tonumber(ARGV[3]) then return {0, 0} end
redis.call('HSET', KEYS[1], 'gatewayId', ARGV[1], 'protocol', ARGV[2], 'epoch', ARGV[3])
return {1, redis.call('ZCARD', KEYS[2])}
`;

const logout = `
local held = redis.call('HMGET', KEYS[1], 'gatewayId', 'epoch')
if held[1] == ARGV[1] and held[2] == ARGV[2] then return redis.call('DEL', KEYS[1]) end
return 0
`;

/** The mark of a command between two attempts. */
export function restingMark({ attempt, wireId }: { attempt: number; wireId: number }): string {
  return `${attempt}|-||${wireId}|1`;
}

/**
 * The same work for many commands of one shard in one call: what Redis and its client spend on a call is
 * more than what they spend on such a piece of work. One that fails answers for itself alone.
 */
const forEach = (keys: number, args: number, one: string) => `
local function one(KEYS, ARGV)
${one}
end
local replies = {}
for i = 1, #KEYS / ${keys} do
  local k, a = {}, {}
  for j = 1, ${keys} do k[j] = KEYS[(i - 1) * ${keys} + j] end
  for j = 1, ${args} do a[j] = ARGV[(i - 1) * ${args} + j] end
  local ok, reply = pcall(one, k, a)
  replies[i] = ok and reply or {'error', type(reply) == 'table' and reply.err or tostring(reply)}
end
return replies
`;

/** ARGV: id, attempt, wire seed, max wire id, max attempt, 1 when the job was active before. */
const route = forEach(
  4,
  6,
  `
local id, attempt = ARGV[1], tonumber(ARGV[2])
if ARGV[6] == '1' then
  redis.call('ZREM', KEYS[4], id)
  local kept = redis.call('GET', KEYS[3])
  if kept then return {'kept', kept} end
end
local known = redis.call('HMGET', KEYS[2], id, '${wireField}')
local mark, last, wire, written = known[1], known[2], nil, '0'
if mark then
  local a, g, e, w, x = string.match(mark, '^(%d+)|([^|]*)|(%d*)|(%d+)|(%d)$')
  if g ~= '-' and tonumber(a) >= attempt then return {'again', g, e, w, a, x} end
  if g == '-' and tonumber(a) >= attempt then attempt = tonumber(a) + 1 end
  wire, written = w, (g == '-' and x or '1')
end
if attempt > tonumber(ARGV[5]) then
  return {'spent', '', '', wire or '0', string.format('%d', attempt - 1), written}
end
local held = redis.call('HMGET', KEYS[1], 'gatewayId', 'epoch')
if not held[1] then return {'offline', '', '', wire or '0', string.format('%d', attempt), written} end
if not wire then
  local n = tonumber(last or ARGV[3]) + 1
  if n > tonumber(ARGV[4]) then n = 1 end
  wire = string.format('%.0f', n)
  last = wire
end
redis.call('HSET', KEYS[2], id,
  string.format('%d', attempt) .. '|' .. held[1] .. '|' .. held[2] .. '|' .. wire .. '|' .. written,
  '${wireField}', last or wire)
redis.call('EXPIRE', KEYS[2], ${markSeconds})
return {'go', held[1], held[2], wire, string.format('%d', attempt), written}
`,
);

/**
 * ARGV: id, mode (final | rest | unwritten), how many to wake, 1 when the job was active before, the attempt
 * that ended: the mark of another one is not touched.
 */
const release = forEach(
  4,
  5,
  `
local id = ARGV[1]
if ARGV[2] == 'final' then
  redis.call('HDEL', KEYS[1], id)
else
  local mark = redis.call('HGET', KEYS[1], id)
  if mark then
    local a, g, e, w, x = string.match(mark, '^(%d+)|([^|]*)|(%d*)|(%d+)|(%d)$')
    if a ~= ARGV[5] then
      x = nil
    elseif ARGV[2] == 'rest' then
      redis.call('HSET', KEYS[1], id, a .. '|-||' .. w .. '|1')
    elseif g ~= '-' then
      if x == '1' then
        redis.call('HSET', KEYS[1], id, string.format('%d', tonumber(a) - 1) .. '|-||' .. w .. '|1')
      else
        redis.call('HDEL', KEYS[1], id)
      end
    end
  end
end
if ARGV[2] ~= 'unwritten' and ARGV[4] == '1' then
  redis.call('ZREM', KEYS[2], id)
  redis.call('DEL', KEYS[3])
end
local n = tonumber(ARGV[3])
if n == 0 then return {} end
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(${wokenScore}', 'LIMIT', 0, n)
if #ids == 0 or redis.call('EXISTS', KEYS[4]) == 0 then return {} end
for _, parked in ipairs(ids) do redis.call('ZINCRBY', KEYS[2], ${wokenScore}, parked) end
return ids
`,
);

/** ARGV: id, score, device. */
const park = `
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], ${markSeconds})
redis.call('SADD', KEYS[2], ARGV[3])
return 1
`;

/**
 * Whether a command that just parked must wake itself: the event it waits for came while it parked.
 * ARGV: id, the epoch it saw ('' when offline), why it parked.
 */
const look = `
local wake = 0
local score = redis.call('ZSCORE', KEYS[3], ARGV[1])
if not score or tonumber(score) >= ${wokenScore} then
  wake = 1
elseif ARGV[3] == 'lane-full' then
  wake = 1
  local marks = redis.call('HGETALL', KEYS[2])
  for i = 1, #marks, 2 do
    if marks[i] ~= ARGV[1] and marks[i] ~= '${wireField}' and not string.find(marks[i + 1], '|-|', 1, true) then wake = 0 end
  end
else
  local epoch = redis.call('HGET', KEYS[1], 'epoch')
  if epoch and epoch ~= ARGV[2] then wake = 1 end
end
if wake == 1 then redis.call('ZREM', KEYS[3], ARGV[1]) end
return wake
`;

/**
 * The parked commands of a connected device that may go now. They stay in the index, marked as woken, until
 * they are routed: a waker that dies has lost nothing. ARGV: how many, 1 for woken ones too, device.
 */
const wakeable = `
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SREM', KEYS[3], ARGV[3]) end
if redis.call('EXISTS', KEYS[2]) == 0 then return {} end
local max = ARGV[2] == '1' and '+inf' or '(${wokenScore}'
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', max, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ids) do
  if tonumber(redis.call('ZSCORE', KEYS[1], id)) < ${wokenScore} then
    redis.call('ZINCRBY', KEYS[1], ${wokenScore}, id)
  end
end
return ids
`;

/** A lease under a name: taken when free, kept when held. */
const holdLease = `
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`;

const giveLease = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
`;

type Reply = (string | number)[];

/** The scripts as methods of a Redis client. */
export type BridgeScripts = {
  dlLogin(
    presence: string,
    parked: string,
    gatewayId: string,
    protocol: string,
    windowMs: number,
    maxTakeovers: number,
  ): Promise<Reply>;
  dlRegister(
    presence: string,
    parked: string,
    gatewayId: string,
    protocol: string,
    epoch: string,
  ): Promise<Reply>;
  dlLogout(presence: string, gatewayId: string, epoch: string): Promise<number>;
  /** Four keys a command: presence, marks, kept outcome, parked; arguments as the script says. */
  dlRoute(keys: number, ...keysAndArgs: (string | number)[]): Promise<string[][]>;
  /** Four keys a command: marks, parked, kept outcome, presence; arguments as the script says. */
  dlRelease(keys: number, ...keysAndArgs: (string | number)[]): Promise<string[][]>;
  dlPark(
    parked: string,
    devices: string,
    id: string,
    score: number,
    deviceId: string,
  ): Promise<number>;
  dlLook(
    presence: string,
    marks: string,
    parked: string,
    id: string,
    epoch: string,
    reason: string,
  ): Promise<number>;
  dlWakeable(
    parked: string,
    presence: string,
    devices: string,
    count: number,
    wokenToo: 0 | 1,
    deviceId: string,
  ): Promise<string[]>;
  dlHoldLease(lease: string, holder: string, ms: number): Promise<number>;
  dlGiveLease(lease: string, holder: string): Promise<number>;
};

const definitions: Record<keyof BridgeScripts, { numberOfKeys?: number; lua: string }> = {
  dlLogin: { numberOfKeys: 2, lua: login },
  dlRegister: { numberOfKeys: 2, lua: register },
  dlLogout: { numberOfKeys: 1, lua: logout },
  dlRoute: { lua: route },
  dlRelease: { lua: release },
  dlPark: { numberOfKeys: 2, lua: park },
  dlLook: { numberOfKeys: 3, lua: look },
  dlWakeable: { numberOfKeys: 3, lua: wakeable },
  dlHoldLease: { numberOfKeys: 1, lua: holdLease },
  dlGiveLease: { numberOfKeys: 1, lua: giveLease },
};

/** The client with the bridge's scripts as methods. Defining them twice on one client is harmless. */
export function withBridgeScripts(redis: Redis): Redis & BridgeScripts {
  for (const [name, definition] of Object.entries(definitions)) {
    redis.defineCommand(name, definition);
  }
  return redis as Redis & BridgeScripts;
}
