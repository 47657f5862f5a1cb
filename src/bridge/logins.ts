/** Who may hold a device's presence: newest or first, anybody or only known devices. */
import type { Redis } from 'ioredis';
import { DownlinkError } from '../errors.ts';
import type { Denial, Holder } from './gateway-bridge.ts';
import type { Keys } from './keys.ts';
import { createDirectory } from './presence.ts';
import type { BridgeScripts } from './scripts.ts';

export type Takeover = 'newest' | 'deny';
export type AdmissionRule = 'open' | 'known';

/** What the login script says of a session that it let in. */
export type Grant = {
  granted: true;
  epoch: number;
  parked: number;
  /** Frames that earlier sessions left unanswered. */
  unanswered: number;
  /** Score of the most urgent parked command; null where none may go. */
  urgency: number | null;
  /** The presence that stood there before, whether or not its session lives. */
  old: Holder | null;
};

export type Logins = {
  /** Rejects when Redis is away, or cannot tell yet whether the device is known. */
  logIn(deviceId: string, protocol: string, standsHere: () => boolean): Promise<Grant | Denial>;
  /** Registers a standing session again; tells what became of it. */
  register(session: {
    deviceId: string;
    protocol: string;
    epoch: number;
  }): Promise<{ verdict: 'registered' | 'superseded' | 'removed'; parked: number }>;
  /** Whether it may be served while nobody can be asked: anybody, or whom this process has let in before. */
  vouchesFor(deviceId: string): boolean;
  /** The device was removed: nobody vouches for it any more. */
  forget(deviceId: string): void;
  isLive(gatewayId: string): Promise<boolean>;
};

export type LoginsDeps = {
  gatewayId: string;
  redis: Redis & BridgeScripts;
  keys: Keys;
  takeover: Takeover;
  admission: AdmissionRule;
};

/** Takeovers of one id within the window before it counts as flapping. */
const flapWindowMs = 60_000;
const maxTakeovers = 30;
/** Holders may change while they are looked at; who has not won by then asks again later. */
const maxTries = 3;
/** Long enough that a refused id behind a host costs next to nothing, short enough to follow a holder that left. */
const takenRetryMs = 10_000;
const notKnownRetryMs = 60_000;
/** More devices than a gateway holds. */
const maxVouched = 100_000;

export function createLogins(deps: LoginsDeps): Logins {
  const { gatewayId, redis, keys, takeover, admission } = deps;
  const directory = createDirectory({ redis, keys });
  const isGuarded = takeover === 'deny' || admission === 'known';
  /** Whom this process has let in, the latest last; empty where anybody may come in. */
  const vouched = new Set<string>();

  function ask(deviceId: string, protocol: string, replace: string) {
    const presence = keys.presence(deviceId);
    const parked = keys.parked(deviceId);
    const unanswered = keys.unanswered(deviceId);
    const given = [gatewayId, protocol, flapWindowMs, maxTakeovers] as const;
    if (!isGuarded) return redis.dlLogin(presence, parked, unanswered, ...given);
    const shard = keys.shardOf(deviceId);
    return redis.dlLoginGuarded(
      presence,
      parked,
      unanswered,
      keys.knownDevices(shard),
      keys.knownLoaded(shard),
      ...given,
      deviceId,
      admission,
      takeover,
      replace,
    );
  }

  async function logIn(
    deviceId: string,
    protocol: string,
    standsHere: () => boolean,
  ): Promise<Grant | Denial> {
    let replace = '';
    for (let tries = 1; ; tries += 1) {
      const reply = await ask(deviceId, protocol, replace);
      if (Number(reply[0]) === 1) return granted(deviceId, reply);
      const [, reason, first, second] = reply;
      if (reason === 'flapping') {
        return { granted: false, reason, retryAfterMs: Number(first) };
      }
      if (reason === 'not-known') {
        vouched.delete(deviceId);
        return { granted: false, reason, retryAfterMs: notKnownRetryMs };
      }
      if (reason === 'not-loaded') {
        throw new DownlinkError(
          'STORE_UNAVAILABLE',
          `whether device ${deviceId} is known cannot be told: Redis has no whole copy of the known devices yet`,
        );
      }
      const holder = { gatewayId: String(first), epoch: Number(second) };
      if (tries === maxTries || (await lives(holder, standsHere))) {
        return { granted: false, reason: 'taken', holder, retryAfterMs: takenRetryMs };
      }
      replace = String(second);
    }
  }

  async function lives(holder: Holder, standsHere: () => boolean): Promise<boolean> {
    if (holder.gatewayId !== gatewayId) return directory.isLive(holder.gatewayId);
    // A grant that came with the same bytes from Redis is told to its session first.
    await new Promise((resolve) => setImmediate(resolve));
    return standsHere();
  }

  function granted(deviceId: string, reply: readonly unknown[]): Grant {
    if (admission === 'known') vouch(deviceId);
    const [, epoch, parked, oldGateway, oldEpoch, unanswered, urgency] = reply;
    return {
      granted: true,
      epoch: Number(epoch),
      parked: Number(parked),
      unanswered: Number(unanswered),
      urgency: urgency === '' ? null : Number(urgency),
      old: oldGateway ? { gatewayId: String(oldGateway), epoch: Number(oldEpoch) } : null,
    };
  }

  function vouch(deviceId: string): void {
    vouched.delete(deviceId);
    vouched.add(deviceId);
    if (vouched.size <= maxVouched) return;
    const [oldest] = vouched;
    if (oldest !== undefined) vouched.delete(oldest);
  }

  return {
    logIn,
    async register({ deviceId, protocol, epoch }) {
      const names = [keys.presence(deviceId), keys.parked(deviceId)] as const;
      const session = [gatewayId, protocol, String(epoch)] as const;
      const shard = keys.shardOf(deviceId);
      const copy = [keys.knownDevices(shard), keys.knownLoaded(shard)] as const;
      const [verdict, parked] = await (admission === 'known'
        ? redis.dlRegisterKnown(...names, ...copy, ...session, deviceId)
        : redis.dlRegister(...names, ...session));
      if (Number(verdict) === 1) return { verdict: 'registered', parked: Number(parked) };
      return { verdict: Number(verdict) === 0 ? 'superseded' : 'removed', parked: 0 };
    },
    vouchesFor: (deviceId) => admission === 'open' || vouched.has(deviceId),
    forget: (deviceId) => void vouched.delete(deviceId),
    isLive: (id) => directory.isLive(id),
  };
}
