/** The Lua of presence and leases, and all scripts of the bridge as methods of a client. */
import type { Redis } from 'ioredis';
import { type MarkScripts, markScripts, type Reply } from './mark-scripts.ts';

/**
 * A grant names the gateway and the epoch that it took the device from; a refusal names its reason.
 * KEYS: presence, parked, unanswered. ARGV: gateway, protocol, window in ms, takeovers within it.
 */
const grant = `
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
    return {0, 'flapping', math.ceil((since + window - micros) / 1000)}
  end
end
local epoch = micros
if old[2] and tonumber(old[2]) >= epoch then epoch = tonumber(old[2]) + 1 end
local text = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], 'gatewayId', ARGV[1], 'epoch', text, 'protocol', ARGV[2],
  'takeovers', string.format('%.0f', takeovers), 'since', string.format('%.0f', since))
-- What an older command of its line holds back is none of the device's business.
local first = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(2000', 'WITHSCORES', 'LIMIT', 0, 1)
return {1, text, redis.call('ZCARD', KEYS[2]), old[1] or '', old[2] or '',
  redis.call('HLEN', KEYS[3]), first[2] or ''}
`;

/**
 * What may refuse a login before it changes anything. Who lives is not known here: a holder that is dead is named
 * in `replace` the next time. Without the mark of a whole copy a stranger is not told from a device not copied yet.
 * KEYS: as above, then known, known-loaded. ARGV: as above, then device, admission, takeover, replace.
 */
const guard = `
if ARGV[6] == 'known' and redis.call('SISMEMBER', KEYS[4], ARGV[5]) == 0 then
  return {0, redis.call('EXISTS', KEYS[5]) == 1 and 'not-known' or 'not-loaded'}
end
if ARGV[7] == 'deny' then
  local held = redis.call('HMGET', KEYS[1], 'gatewayId', 'epoch')
  if held[1] and held[2] ~= ARGV[8] then return {0, 'taken', held[1], held[2] or ''} end
end
`;

const registerBody = `
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) > tonumber(ARGV[3]) then return {0, 0} end
redis.call('HSET', KEYS[1], 'gatewayId', ARGV[1], 'protocol', ARGV[2], 'epoch', ARGV[3])
return {1, redis.call('ZCARD', KEYS[2])}
`;

/** KEYS: presence, parked, known, known-loaded. ARGV: gateway, protocol, epoch, device. */
const stillKnown = `
if redis.call('SISMEMBER', KEYS[3], ARGV[4]) == 0 and redis.call('EXISTS', KEYS[4]) == 1 then
  return {-1, 0}
end
`;

/** KEYS: presence, known. ARGV: device. */
const expel = `
redis.call('SREM', KEYS[2], ARGV[1])
local held = redis.call('HMGET', KEYS[1], 'gatewayId', 'epoch')
redis.call('DEL', KEYS[1])
return {held[1] or '', held[2] or ''}
`;

/** The copy is whole, unless Redis forgot its beginning meanwhile. KEYS: known-filling, known-loaded. */
const knownWhole = `
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], 1)
return 1
`;

const logout = `
local held = redis.call('HMGET', KEYS[1], 'gatewayId', 'epoch')
if held[1] == ARGV[1] and held[2] == ARGV[2] then return redis.call('DEL', KEYS[1]) end
return 0
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

/** The scripts as methods of a Redis client. */
export type BridgeScripts = MarkScripts & {
  dlLogin(
    presence: string,
    parked: string,
    unanswered: string,
    gatewayId: string,
    protocol: string,
    windowMs: number,
    maxTakeovers: number,
  ): Promise<Reply>;
  /** The same for gateways that do not let everybody in. */
  dlLoginGuarded(
    presence: string,
    parked: string,
    unanswered: string,
    known: string,
    knownLoaded: string,
    gatewayId: string,
    protocol: string,
    windowMs: number,
    maxTakeovers: number,
    deviceId: string,
    admission: 'open' | 'known',
    takeover: 'newest' | 'deny',
    replace: string,
  ): Promise<Reply>;
  dlRegister(
    presence: string,
    parked: string,
    gatewayId: string,
    protocol: string,
    epoch: string,
  ): Promise<Reply>;
  dlRegisterKnown(
    presence: string,
    parked: string,
    known: string,
    knownLoaded: string,
    gatewayId: string,
    protocol: string,
    epoch: string,
    deviceId: string,
  ): Promise<Reply>;
  dlExpel(presence: string, known: string, deviceId: string): Promise<[string, string]>;
  dlKnownWhole(filling: string, loaded: string): Promise<number>;
  dlLogout(presence: string, gatewayId: string, epoch: string): Promise<number>;
  dlHoldLease(lease: string, holder: string, ms: number): Promise<number>;
  dlGiveLease(lease: string, holder: string): Promise<number>;
};

const definitions: Record<keyof BridgeScripts, { numberOfKeys?: number; lua: string }> = {
  ...markScripts,
  dlLogin: { numberOfKeys: 3, lua: grant },
  dlLoginGuarded: { numberOfKeys: 5, lua: guard + grant },
  dlRegister: { numberOfKeys: 2, lua: registerBody },
  dlRegisterKnown: { numberOfKeys: 4, lua: stillKnown + registerBody },
  dlExpel: { numberOfKeys: 2, lua: expel },
  dlKnownWhole: { numberOfKeys: 2, lua: knownWhole },
  dlLogout: { numberOfKeys: 1, lua: logout },
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
