/**
 * The Lua behind `routes.ts`. Each script touches keys of one device only, so that it runs on one slot.
 *
 * Everything that is known of a device's unfinished commands stands in one hash, its marks:
 *   <id>          `attempt|gatewayId|epoch|wireId|written`: the attempt that was published last. A mark whose
 *                 gateway is `-` rests: nothing is out, but the wire id and the count must be kept
 *   @<id>         `seq|preempts|score|due|command|covers|supersedes`: its place in its line
 *   !<id>         why it must not be written (again)
 *   <id>~         the mark of a question about it
 *   #wire #seq    the wire id and the place given last · #paused since when · #stop:<line> its last stop
 * The index of parked commands has one score for urgency (9 - priority), +1000 once woken, and +2000 while an
 * older command of the line holds it back.
 */

/** Marks outlive the longest TTL (48 h) and the late-answer window. */
export const markSeconds = 50 * 3600;
export const wokenScore = 1_000;
export const blockedScore = 2_000;
/** Fields of the marks that are no command's mark begin with one of these; no command id does. */
const notAMark = '[#@!]';

const helpers = `
local function parts(mark) return string.match(mark, '^(%d+)|([^|]*)|(%d*)|(%d+)|(%d)$') end
local function isStop(place) return string.match(place, '^%d+|(%d)') == '1' end
-- What was revoked before it was ever published is never written: nobody waits for it.
local function stands(known) return known[1] and (known[2] or not known[3]) end
local function known(marks, id) return redis.call('HMGET', marks, '@' .. id, id, '!' .. id) end
-- The oldest command ahead of this place that it must wait for; stops wait for stops only.
local function blocker(marks, line, seq, stop)
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', line, '-inf', '(' .. seq)) do
    local k = known(marks, other)
    if stands(k) and (not stop or isStop(k[1])) then return other end
  end
  return nil
end
local function block(parked, devices, id, device, score)
  redis.call('ZADD', parked, ${blockedScore} + score, id)
  redis.call('EXPIRE', parked, ${markSeconds})
  redis.call('SADD', devices, device)
end
`;

/**
 * The same work for many commands of one shard in one call: what Redis and its client spend on a call is
 * more than what they spend on such a piece of work. One that fails answers for itself alone.
 */
const forEach = (keys: number, args: number, one: string) => `${helpers}
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

/** KEYS: presence, marks, kept outcome, parked; with a line also: line, parked devices. */
const routeKeys = { plain: 4, lined: 6 } as const;
/** ARGV: id, attempt, wire seed, max wire id, max attempt, active before, probing; with a line also: score, device. */
const routeArgs = { plain: 7, lined: 9 } as const;

const route = (kind: 'plain' | 'lined') =>
  forEach(
    routeKeys[kind],
    routeArgs[kind],
    `
local id, attempt = ARGV[1], tonumber(ARGV[2])
${kind === 'lined' ? "redis.call('ZREM', KEYS[4], id)" : ''}
if ARGV[6] == '1' then
  ${kind === 'plain' ? "redis.call('ZREM', KEYS[4], id)" : ''}
  local kept = redis.call('GET', KEYS[3])
  if kept then return {'kept', kept} end
end
local held = redis.call('HMGET', KEYS[2], id, '#wire', '!' .. id, '#paused', '@' .. id)
local mark, last, wire, written, place = held[1], held[2], nil, '0', held[5]
local seq = place and string.match(place, '^%d+') or '0'
if mark then
  local a, g, e, w, x = parts(mark)
  if g ~= '-' and tonumber(a) >= attempt then return {'again', g, e, w, a, x, seq, held[3] or ''} end
  if g == '-' and tonumber(a) >= attempt then attempt = tonumber(a) + 1 end
  wire, written = w, (g == '-' and x or '1')
end
local count = string.format('%d', attempt)
if held[3] then return {'revoked', held[3], '', wire or '0', count, written} end
if attempt > tonumber(ARGV[5]) then
  return {'spent', '', '', wire or '0', string.format('%d', attempt - 1), written}
end
${
  kind === 'lined'
    ? `if not place then return {'unjoined'} end
local by = blocker(KEYS[2], KEYS[5], seq, isStop(place))
if by then
  block(KEYS[4], KEYS[6], id, ARGV[9], tonumber(ARGV[8]))
  return {'blocked', by, '', wire or '0', count, written}
end`
    : ''
}
if held[4] then return {'paused', '', '', wire or '0', count, written} end
local session = redis.call('HMGET', KEYS[1], 'gatewayId', 'epoch')
if not session[1] then return {'offline', '', '', wire or '0', count, written} end
if not wire then
  local n = tonumber(last or ARGV[3]) + 1
  if n > tonumber(ARGV[4]) then n = 1 end
  wire = string.format('%.0f', n)
  last = wire
end
if ARGV[7] == '0' then
  redis.call('HSET', KEYS[2], id, count .. '|' .. session[1] .. '|' .. session[2] .. '|' .. wire .. '|' .. written,
    '#wire', last or wire)
  redis.call('EXPIRE', KEYS[2], ${markSeconds})
end
return {'go', session[1], session[2], wire, count, written, seq}
`,
  );

/** KEYS: marks, parked, kept outcome, presence; with a line also: line, lines. */
const releaseKeys = { plain: 4, lined: 6 } as const;
/**
 * ARGV: id, mode, how many to wake, active before, attempt; with a line also: its member in `lines`. The mode
 * `undo` is a final one that takes back what its join did to others.
 */
const releaseArgs = { plain: 5, lined: 6 } as const;

const release = (kind: 'plain' | 'lined') =>
  forEach(
    releaseKeys[kind],
    releaseArgs[kind],
    `
local id = ARGV[1]
local final = ARGV[2] ~= 'rest' and ARGV[2] ~= 'unwritten'
if final then
  redis.call('HDEL', KEYS[1], id, '!' .. id, id .. '~'${kind === 'lined' ? ", '@' .. id" : ''})
else
  local mark = redis.call('HGET', KEYS[1], id)
  if mark then
    local a, g, e, w, x = parts(mark)
    if ARGV[2] == 'rest' and g == '-' and tonumber(a) < tonumber(ARGV[5]) then
      -- The attempt was a question that went unanswered: it counts.
      redis.call('HSET', KEYS[1], id, ARGV[5] .. '|-||' .. w .. '|1')
    elseif a ~= ARGV[5] then
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
if ARGV[2] ~= 'unwritten' and (ARGV[4] == '1'${kind === 'lined' ? ' or final' : ''}) then
  redis.call('ZREM', KEYS[2], id)
  redis.call('DEL', KEYS[3])
end
local n = tonumber(ARGV[3])
${kind === 'plain' ? 'if n == 0 then return {} end' : 'if n == 0 and not final then return {} end'}
${kind === 'plain' ? `local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(${wokenScore}', 'LIMIT', 0, n)\nif #ids == 0 then return {} end` : ''}
local free = redis.call('EXISTS', KEYS[4]) == 1 and redis.call('HEXISTS', KEYS[1], '#paused') == 0
local woken = {}
${
  kind === 'lined'
    ? `if final then
  redis.call('ZREM', KEYS[5], id)
  if ARGV[2] == 'undo' then
    local barrier = '#stop:' .. string.match(ARGV[6], '^[^|]*|(.*)$')
    if string.match(redis.call('HGET', KEYS[1], barrier) or '', '^%d+|([^|]*)|') == id then
      redis.call('HDEL', KEYS[1], barrier)
    end
  end
  local any, stops = false, false
  for _, other in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do
    if ARGV[2] == 'undo' and redis.call('HGET', KEYS[1], '!' .. other) == 'superseded|' .. id then
      redis.call('HDEL', KEYS[1], '!' .. other)
    end
    local k = known(KEYS[1], other)
    if k[1] then
      local stop = isStop(k[1])
      if not (stop and stops or not stop and any) then
        local score = tonumber(redis.call('ZSCORE', KEYS[2], other) or '0')
        if score >= ${blockedScore} then
          score = score - ${blockedScore}
          if free then
            score = score + ${wokenScore}
            woken[#woken + 1] = other
          end
          redis.call('ZADD', KEYS[2], score, other)
        end
      end
      if stands(k) then any, stops = true, stops or stop end
      if stops then break end
    end
  end
  if redis.call('EXISTS', KEYS[5]) == 0 then redis.call('SREM', KEYS[6], ARGV[6]) end
end
n = n - #woken
if n <= 0 or not free then return woken end
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(${wokenScore}', 'LIMIT', 0, n)`
    : 'if not free then return {} end'
}
for _, parked in ipairs(ids) do
  redis.call('ZINCRBY', KEYS[2], ${wokenScore}, parked)
  woken[#woken + 1] = parked
end
return woken
`,
  );

/** KEYS: marks, line, parked, lines, parked devices. ARGV: see `routes.ts`. */
const join = forEach(
  5,
  13,
  `
local id, device, line, command = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local stop, mode, score = ARGV[7] == '1', ARGV[12], tonumber(ARGV[9])
local function named(list, name) return string.find(list, ',' .. name .. ',', 1, true) ~= nil end
local place = redis.call('HGET', KEYS[1], '@' .. id)
if place then
  local seq = string.match(place, '^%d+')
  return {'joined', seq, blocker(KEYS[1], KEYS[2], seq, isStop(place)) or ''}
end
if mode ~= 'accept' and not stop then
  local barrier = redis.call('HGET', KEYS[1], '#stop:' .. line)
  if barrier then
    local at, by, names = string.match(barrier, '^(%d+)|([^|]*)|(.*)$')
    if tonumber(at) >= tonumber(ARGV[13]) and named(names, command) then return {'superseded', by} end
  end
end
-- Whether all that one sets is set by the other too.
local function covered(theirs, ours)
  if ours == '*' then return true end
  if theirs == '*' then return false end
  for name in string.gmatch(theirs, '[^,]+') do
    if not named(ours, name) then return false end
  end
  return true
end
local due = tonumber(ARGV[13])
local others, standing = {}, 0
for _, other in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local k = known(KEYS[1], other)
  if k[1] then
    local theirs, otherCommand, covers, names = string.match(k[1], '^%d+|%d|%d+|(%d+)|([^|]*)|([^|]*)|(.*)$')
    theirs = tonumber(theirs)
    -- One that joins late is older than what was due after it; ids are in the order of acceptance.
    local newer = mode ~= 'accept' and (theirs > due or theirs == due and other > id)
    others[#others + 1] = {other, otherCommand, covers, k[2], k[3], newer}
    -- A cancel that may come too late leaves it unfinished.
    local cancelling = k[3] and k[2] and string.sub(k[3], 1, 9) == 'cancelled'
    if not k[3] or cancelling then
      if not k[3] then standing = standing + 1 end
      if newer and not k[3] and named(names, command) and covered(ARGV[6], covers) then
        return {'superseded', other}
      end
      if named(ARGV[8], otherCommand) then return {'conflict', other} end
    end
  end
end
if mode == 'accept' and not stop then
  if standing >= tonumber(ARGV[10]) then return {'full', 'key', standing} end
  local waiting = redis.call('ZCARD', KEYS[3])
  if waiting >= tonumber(ARGV[11]) then return {'full', 'device', waiting} end
end
local reply = {'joined', '', ''}
for _, o in ipairs(others) do
  local settled = o[5] and not (stop and string.sub(o[5], 1, 9) == 'cancelled')
  if not settled and not o[6] and named(ARGV[5], o[2]) and covered(o[3], ARGV[6])
    and (stop or not o[4]) then
    redis.call('HSET', KEYS[1], '!' .. o[1], 'superseded|' .. id)
    reply[#reply + 1] = o[1]
  end
end
local time = redis.call('TIME')
local seq = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('HGET', KEYS[1], '#seq') or '0')
if last >= seq then seq = last + 1 end
local text = string.format('%.0f', seq)
redis.call('HSET', KEYS[1], '#seq', text,
  '@' .. id, text .. '|' .. ARGV[7] .. '|' .. ARGV[9] .. '|' .. ARGV[13] .. '|' .. command .. '|' .. ARGV[6] .. '|' .. ARGV[5])
if stop then
  local before = redis.call('HGET', KEYS[1], '#stop:' .. line)
  if not before or tonumber(string.match(before, '^%d+')) <= due then
    redis.call('HSET', KEYS[1], '#stop:' .. line, ARGV[13] .. '|' .. id .. '|' .. ARGV[5])
  end
end
redis.call('EXPIRE', KEYS[1], ${markSeconds})
redis.call('ZADD', KEYS[2], text, id)
redis.call('EXPIRE', KEYS[2], ${markSeconds})
redis.call('SADD', KEYS[4], device .. '|' .. line)
local by = blocker(KEYS[1], KEYS[2], text, stop)
if by then block(KEYS[3], KEYS[5], id, device, score) end
reply[2], reply[3] = text, by or ''
return reply
`,
);

/** KEYS: marks. ARGV: id, why. Nothing is changed once it was written, or when it was revoked before. */
const revoke = `
local held = redis.call('HMGET', KEYS[1], ARGV[1], '!' .. ARGV[1])
local mark = held[1] or ''
if string.sub(mark, -2) == '|1' then return {'written', mark} end
if held[2] then return {'revoked', mark, held[2]} end
redis.call('HSET', KEYS[1], '!' .. ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ${markSeconds})
return {'revoked', mark, ARGV[2]}
`;

/** KEYS: marks. ARGV: id. A command that was superseded stays so. */
const unrevoke = `
local why = redis.call('HGET', KEYS[1], '!' .. ARGV[1])
if why and string.sub(why, 1, 10) == 'cancelled|' then redis.call('HDEL', KEYS[1], '!' .. ARGV[1]) end
return 1
`;

/** KEYS: parked, parked devices. ARGV: id, score, device. */
const park = `
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], ${markSeconds})
redis.call('SADD', KEYS[2], ARGV[3])
return 1
`;

/**
 * Whether a command that just parked must wake itself: what it waits for came while it parked.
 * KEYS: presence, marks, parked. ARGV: id, the epoch it saw ('' when offline), why it parked.
 */
const look = `
local wake = 0
local score = redis.call('ZSCORE', KEYS[3], ARGV[1])
if redis.call('HEXISTS', KEYS[2], '!' .. ARGV[1]) == 1 then
  wake = 1
elseif ARGV[3] == 'key-blocked' then
  if not score or tonumber(score) < ${blockedScore} then wake = 1 end
elseif not score or tonumber(score) >= ${wokenScore} then
  wake = 1
elseif ARGV[3] == 'paused' then
  wake = 1 - redis.call('HEXISTS', KEYS[2], '#paused')
elseif ARGV[3] == 'lane-full' then
  wake = 1
  local marks = redis.call('HGETALL', KEYS[2])
  for i = 1, #marks, 2 do
    if marks[i] ~= ARGV[1] and not string.find(marks[i], '^${notAMark}') and not string.find(marks[i + 1], '|-|', 1, true) then wake = 0 end
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
 * they are routed: a waker that dies has lost nothing. KEYS: parked, presence, parked devices, marks, served.
 * ARGV: how many, 1 for woken ones too, device, how long its event counts as served (0: no event).
 */
const wakeable = `
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SREM', KEYS[3], ARGV[3])
  return {}
end
if ARGV[4] ~= '0' and not redis.call('SET', KEYS[5], '1', 'NX', 'PX', ARGV[4]) then return {} end
if redis.call('EXISTS', KEYS[2]) == 0 or redis.call('HEXISTS', KEYS[4], '#paused') == 1 then return {} end
local max = ARGV[2] == '1' and '(${blockedScore}' or '(${wokenScore}'
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', max, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ids) do
  if tonumber(redis.call('ZSCORE', KEYS[1], id)) < ${wokenScore} then
    redis.call('ZINCRBY', KEYS[1], ${wokenScore}, id)
  end
end
return ids
`;

/** Frames of one device that are waited for at most; of more, those whose time ends first are given up. */
const maxUnanswered = 64;

/** KEYS: presence, unanswered. ARGV: id, entry, milliseconds. */
const keepUnanswered = `
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
while redis.call('HLEN', KEYS[2]) > ${maxUnanswered} do
  local all, first, until_ = redis.call('HGETALL', KEYS[2]), nil, math.huge
  for i = 1, #all, 2 do
    local at = tonumber(cjson.decode(all[i + 1])['until']) or 0
    if at < until_ then first, until_ = all[i], at end
  end
  redis.call('HDEL', KEYS[2], first)
end
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
return redis.call('HGET', KEYS[1], 'gatewayId') or ''
`;

export type Reply = (string | number)[];
type Batched = (keys: number, ...keysAndArgs: (string | number)[]) => Promise<string[][]>;

/** The scripts as methods of a Redis client; batched ones take the keys of all, then the arguments of all. */
export type MarkScripts = {
  dlRoute: Batched;
  dlRouteLined: Batched;
  dlRelease: Batched;
  dlReleaseLined: Batched;
  dlJoin: Batched;
  dlRevoke(marks: string, id: string, why: string): Promise<string[]>;
  dlUnrevoke(marks: string, id: string): Promise<number>;
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
    because: string,
  ): Promise<number>;
  dlWakeable(
    parked: string,
    presence: string,
    devices: string,
    marks: string,
    served: string,
    count: number,
    wokenToo: 0 | 1,
    deviceId: string,
    servedMs: number,
  ): Promise<string[]>;
  dlKeepUnanswered(
    presence: string,
    unanswered: string,
    id: string,
    entry: string,
    ms: number,
  ): Promise<string>;
};

export const markScripts: Record<keyof MarkScripts, { numberOfKeys?: number; lua: string }> = {
  dlRoute: { lua: route('plain') },
  dlRouteLined: { lua: route('lined') },
  dlRelease: { lua: release('plain') },
  dlReleaseLined: { lua: release('lined') },
  dlJoin: { lua: join },
  dlRevoke: { numberOfKeys: 1, lua: revoke },
  dlUnrevoke: { numberOfKeys: 1, lua: unrevoke },
  dlPark: { numberOfKeys: 2, lua: park },
  dlLook: { numberOfKeys: 3, lua: look },
  dlWakeable: { numberOfKeys: 5, lua: wakeable },
  dlKeepUnanswered: { numberOfKeys: 2, lua: keepUnanswered },
};

/** The text of a mark between two attempts. */
export function restingMark({ attempt, wireId }: { attempt: number; wireId: number }): string {
  return `${attempt}|-||${wireId}|1`;
}
