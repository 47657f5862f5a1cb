/** The moves on a device's unfinished commands, see `routes-contract.ts`. Any process may make them. */
import type { Redis } from 'ioredis';
import type { Log } from '../log/log.ts';
import type { Keys } from './keys.ts';
import { blockedScore, markSeconds, wokenScore } from './mark-scripts.ts';
import { parseStreamedOutcome } from './messages.ts';
import type {
  Joined,
  JoinRequest,
  Mark,
  Revocation,
  Route,
  RouteRequest,
  Routes,
  Standing,
} from './routes-contract.ts';
import { createScriptBatch } from './script-batch.ts';
import { withBridgeScripts } from './scripts.ts';

export type RoutesDeps = { redis: Redis; keys: Keys; log: Log };

const mostUrgent = 9;
/** Longer than one worker may be behind another. */
const servedMs = 10_000;

/** Where a device's counter starts: anywhere, so that a lost counter does not repeat the ids just used. */
const randomWireId = (max: number) => Math.floor(Math.random() * Math.min(max, 0x7fffffff));

export function createRoutes(deps: RoutesDeps): Routes {
  const { keys, log } = deps;
  const redis = withBridgeScripts(deps.redis);
  const routes = createScriptBatch(redis.dlRoute.bind(redis));
  const linedRoutes = createScriptBatch(redis.dlRouteLined.bind(redis));
  const releases = createScriptBatch(redis.dlRelease.bind(redis));
  const linedReleases = createScriptBatch(redis.dlReleaseLined.bind(redis));
  const joins = createScriptBatch(redis.dlJoin.bind(redis));
  const devicesOf = (deviceId: string) => keys.parkedDevices(keys.shardOf(deviceId));

  async function route(request: RouteRequest): Promise<Route> {
    const { id, deviceId, line, attempt, maxAttempt, maxWireId, again, probing } = request;
    const shard = keys.shardOf(deviceId);
    const ask = [
      keys.presence(deviceId),
      keys.marks(deviceId),
      keys.keptOutcome(deviceId, id),
      keys.parked(deviceId),
    ];
    const seed = randomWireId(maxWireId);
    const args = [id, attempt, seed, maxWireId, maxAttempt, flag(again), flag(probing)];
    const reply =
      line === null
        ? await routes(shard, { keys: ask, args })
        : await linedRoutes(shard, {
            keys: [...ask, keys.line(deviceId, line), devicesOf(deviceId)],
            args: [...args, mostUrgent - request.priority, deviceId],
          });
    if (reply[0] !== 'kept') return readRoute(reply);
    const streamed = parseStreamedOutcome(reply[1] ?? '');
    // What an older attempt came to without an answer has been judged before.
    const stale = streamed && streamed.attempt < attempt && streamed.outcome.kind === 'ambiguous';
    if (streamed && !stale) return { kind: 'kept', streamed };
    log.warn({ commandId: id, stale }, 'kept outcome dropped');
    await redis.del(keys.keptOutcome(deviceId, id));
    return route(request);
  }

  async function join(request: JoinRequest): Promise<Joined> {
    const { id, deviceId, line, mode, maxPerKey, maxPerDevice } = request;
    if (line === null) {
      if (mode === 'accept' && !request.preempts) {
        const waiting = await redis.zcard(keys.parked(deviceId));
        if (waiting >= maxPerDevice) return { kind: 'full', of: 'device', waiting };
      }
      return { kind: 'joined', seq: 0, blockedBy: null, superseded: [] };
    }
    const shard = keys.shardOf(deviceId);
    const reply = await joins(shard, {
      keys: [
        keys.marks(deviceId),
        keys.line(deviceId, line),
        keys.parked(deviceId),
        keys.lines(shard),
        devicesOf(deviceId),
      ],
      args: [
        id,
        deviceId,
        line,
        request.command,
        listed(request.supersedes),
        request.covers === null ? '*' : listed(request.covers),
        flag(request.preempts),
        listed(request.excludes),
        mostUrgent - request.priority,
        maxPerKey,
        maxPerDevice,
        mode,
        request.dueAt,
      ],
    });
    return readJoined(reply);
  }

  function release({
    deviceId,
    id,
    line,
    mode,
    wake,
    again,
    attempt,
  }: Parameters<Routes['release']>[0]): Promise<string[]> {
    const shard = keys.shardOf(deviceId);
    const held = [
      keys.marks(deviceId),
      keys.parked(deviceId),
      keys.keptOutcome(deviceId, id),
      keys.presence(deviceId),
    ];
    const args = [id, mode, wake, flag(again), attempt];
    if (line === null) return releases(shard, { keys: held, args });
    return linedReleases(shard, {
      keys: [...held, keys.line(deviceId, line), keys.lines(shard)],
      args: [...args, `${deviceId}|${line}`],
    });
  }

  return {
    route,
    join,
    release,
    undoJoin: (deviceId, id, line) =>
      release({ deviceId, id, line, mode: 'undo', wake: 0, again: true, attempt: 0 }),
    leave: (deviceId, id, line) =>
      release({ deviceId, id, line, mode: 'final', wake: 0, again: true, attempt: 0 }),
    async revoke(deviceId, id, { kind, by }) {
      const [answer, mark, why] = await redis.dlRevoke(keys.marks(deviceId), id, `${kind}|${by}`);
      if (answer === 'written') return { kind: 'written', mark: readMark(mark)! };
      return {
        kind: 'revoked',
        revocation: readRevocation(why) ?? { kind, by },
        mark: readMark(mark),
      };
    },
    async unrevoke(deviceId, id) {
      await redis.dlUnrevoke(keys.marks(deviceId), id);
    },
    async revocation(deviceId, id) {
      return readRevocation(await redis.hget(keys.marks(deviceId), `!${id}`));
    },
    async mark(deviceId, id) {
      return readMark(await redis.hget(keys.marks(deviceId), id));
    },
    async park(deviceId, id, priority, blocked) {
      const score = mostUrgent - priority + (blocked ? blockedScore : 0);
      await redis.dlPark(keys.parked(deviceId), devicesOf(deviceId), id, score, deviceId);
    },
    async cameMeanwhile({ deviceId, id, epoch, because }) {
      const wake = await redis.dlLook(
        keys.presence(deviceId),
        keys.marks(deviceId),
        keys.parked(deviceId),
        id,
        epoch,
        because,
      );
      return Number(wake) === 1;
    },
    wakeable: (deviceId, count, { wokenToo, event }) =>
      redis.dlWakeable(
        keys.parked(deviceId),
        keys.presence(deviceId),
        devicesOf(deviceId),
        keys.marks(deviceId),
        keys.served(deviceId, event ?? ''),
        count,
        wokenToo ? 1 : 0,
        deviceId,
        event === null ? 0 : servedMs,
      ),
    async setPaused(deviceId, pausedAt) {
      const marks = keys.marks(deviceId);
      const devices = keys.pausedDevices(keys.shardOf(deviceId));
      const moves = redis.multi();
      if (pausedAt === null) moves.hdel(marks, '#paused').srem(devices, deviceId);
      else {
        moves.hset(marks, '#paused', String(pausedAt)).expire(marks, markSeconds);
        moves.sadd(devices, deviceId);
      }
      await moves.exec();
    },
    async pausedDevices() {
      const shards = Array.from({ length: keys.shards }, (_, shard) => keys.pausedDevices(shard));
      return (await Promise.all(shards.map((key) => redis.smembers(key)))).flat();
    },
    async keepUnanswered(unanswered, now) {
      const { deviceId, id } = unanswered.delivery;
      const gatewayId = await redis.dlKeepUnanswered(
        keys.presence(deviceId),
        keys.unanswered(deviceId),
        id,
        JSON.stringify(unanswered),
        Math.max(1, unanswered.until - now),
      );
      return gatewayId === '' ? null : gatewayId;
    },
    async forgetUnanswered(deviceId, id) {
      await redis.hdel(keys.unanswered(deviceId), id);
    },
    async inspect(deviceId, id, line) {
      const [presence, marks, ahead, score] = await Promise.all([
        redis.hmget(keys.presence(deviceId), 'gatewayId', 'epoch'),
        redis.hgetall(keys.marks(deviceId)),
        line === null ? [] : redis.zrange(keys.line(deviceId, line), '0', '-1'),
        redis.zscore(keys.parked(deviceId), id),
      ]);
      return readStanding(id, { presence, marks, ahead, score });
    },
  };
}

function flag(value: boolean): 0 | 1 {
  return value ? 1 : 0;
}

/** As the scripts search it: every name between commas. */
function listed(names: readonly string[]): string {
  return `,${names.join(',')},`;
}

function readRoute(reply: readonly string[]): Route {
  const [kind, gatewayId = '', epoch, wireId, attempt, written, seq, revoked] = reply;
  const found = { attempt: Number(attempt), writtenBefore: written === '1' };
  switch (kind) {
    case 'unjoined':
      return { kind };
    case 'offline':
    case 'paused':
      return { kind, ...found };
    case 'blocked':
      return { kind, by: gatewayId, ...found };
    case 'revoked':
      return { kind, revocation: readRevocation(gatewayId)!, ...found };
    case 'spent':
      return { kind, attempt: found.attempt };
    default:
      return {
        kind: 'go',
        again: kind === 'again',
        gatewayId,
        epoch: Number(epoch),
        wireId: Number(wireId),
        seq: Number(seq),
        revocation: readRevocation(revoked),
        ...found,
      };
  }
}

function readJoined([kind, first = '', second = '', ...rest]: readonly string[]): Joined {
  switch (kind) {
    case 'conflict':
      return { kind, with: first };
    case 'superseded':
      return { kind, by: first };
    case 'full':
      return { kind, of: first === 'key' ? 'key' : 'device', waiting: Number(second) };
    default:
      return { kind: 'joined', seq: Number(first), blockedBy: second || null, superseded: rest };
  }
}

function readMark(text: string | null | undefined): Mark | null {
  if (!text) return null;
  const [attempt, gatewayId, epoch, wireId, written] = text.split('|');
  return {
    attempt: Number(attempt),
    gatewayId: gatewayId === '-' ? null : (gatewayId ?? null),
    epoch: Number(epoch ?? 0),
    wireId: Number(wireId ?? 0),
    written: written === '1',
  };
}

function readRevocation(text: string | null | undefined): Revocation | null {
  if (!text) return null;
  const at = text.indexOf('|');
  return {
    kind: text.slice(0, at) === 'superseded' ? 'superseded' : 'cancelled',
    by: text.slice(at + 1),
  };
}

type Found = {
  presence: (string | null)[];
  marks: Record<string, string>;
  ahead: readonly string[];
  score: string | null;
};

function readStanding(id: string, { presence, marks, ahead, score }: Found): Standing {
  const [gatewayId, epoch] = presence;
  const at = ahead.indexOf(id);
  const place = marks[`@${id}`];
  const pausedAt = marks['#paused'];
  return {
    presence: gatewayId ? { gatewayId, epoch: Number(epoch) } : null,
    mark: readMark(marks[id]),
    revocation: readRevocation(marks[`!${id}`]),
    pausedAt: pausedAt === undefined ? null : Number(pausedAt),
    seq: place === undefined ? null : Number(place.split('|', 1)[0]),
    ahead: at < 0 ? [] : ahead.slice(0, at),
    parked: score === null ? null : parkedAs(Number(score)),
    underWay: Object.entries(marks).flatMap(([field, text]) => {
      const mark = /^[#@!]/.test(field) ? null : readMark(text);
      return mark?.gatewayId ? [{ id: field, mark }] : [];
    }),
  };
}

function parkedAs(score: number): 'blocked' | 'waiting' | 'woken' {
  if (score >= blockedScore) return 'blocked';
  return score >= wokenScore ? 'woken' : 'waiting';
}
