/** All sessions of this gateway: who speaks on which connection, and who holds a device's presence. */
import type { Denial, GatewayBridge, Holder } from '../bridge/gateway-bridge.ts';
import type { Evict } from '../bridge/messages.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Fields, Message, ReportWeight } from '../protocols/protocol.ts';
import type { Clock } from './clock.ts';
import type { Connection } from './connection.ts';
import type { CloseReason, Counts } from './counts.ts';
import { createDepartures } from './departures.ts';
import type { LaneHost } from './lane.ts';
import { createCalls } from './login-calls.ts';
import type { GatewayOptions } from './options.ts';
import { Session, type SessionHost } from './session.ts';
import { createThrottle } from './throttle.ts';
import type { TimerWheel } from './timer-wheel.ts';
import type { Uplink } from './uplink.ts';

export type Sessions = {
  /** Gives the message to its device's session on that connection, which it may open. */
  receive(connection: Connection, message: Message): void;
  /** The session that holds the device's presence here. */
  find(deviceId: string): Session | undefined;
  standing(): Iterable<Session>;
  count(): number;
  evict(evict: Evict): void;
  /** Closes the connection of a device's session for a newer one, if it carries only that; tells whether it did. */
  evictFor(deviceId: string): boolean;
  /** Closes the sessions of the connection that have gone silent. */
  check(connection: Connection): void;
  /** The connection is gone, and all its sessions with it. */
  closeAll(connection: Connection, reason: CloseReason): void;
  /** Tries again to remove presences that Redis did not take. */
  retryDepartures(): void;
  departing(): number;
};

export type SessionsDeps = {
  bridge: GatewayBridge;
  lanes: LaneHost;
  uplink: Uplink;
  options: GatewayOptions;
  clock: Clock;
  wheel: TimerWheel;
  counts: Counts;
  log: Log;
};

/**
 * Behind a host each device has its own silence: longer than the connection's, since hosts
 * themselves speak only every 30 minutes (AP3000 host protocol V2.9, command 11).
 */
const SILENT_SESSION_FACTOR = 4;
/** Newer ones that were never heard of again. */
const MAX_MADE_ROOM = 1_000;
/** Denials that are told as events; all of them are counted. */
const EVENTS_PER_SECOND = 20;
const EVENTS_AT_ONCE = 100;

export function createSessions(deps: SessionsDeps): Sessions {
  const { bridge, lanes, uplink, options, clock, wheel, counts, log } = deps;
  const byDevice = new Map<string, Session>();
  const departures = createDepartures({ bridge });
  const onLoginFailure = createThrottle(clock);
  const onFactoryDefault = createThrottle(clock);
  const onTakeover = createThrottle(clock);
  const onDenial = createThrottle(clock);
  const onUnvouched = createThrottle(clock);
  const calls = createCalls({
    bridge,
    clock,
    standsHere: ({ deviceId }) => byDevice.has(deviceId),
    unanswered(session, error) {
      host.loginFailed(session, error);
    },
    takenFrom: (session, holder) => takenOver(session, holder),
  });
  /** Epochs of sessions that were closed for a newer one of their device, which has yet to log in. */
  const madeRoom = new Map<string, number>();
  let eventsLeft = EVENTS_AT_ONCE;
  let eventsAt = clock.ticks();

  const host: SessionHost = {
    logIn: calls.login,
    vouchesFor: ({ deviceId }) => bridge.vouchesFor(deviceId),
    options,
    clock,
    wheel,
    counts,
    lanes,
    uplink(session, message) {
      if (session.state === 'unregistered' && !bridge.vouchesFor(session.deviceId))
        unvouched(session);
      else uplink.handle(session, message);
    },
    stood,
    denied,
    loginFailed({ deviceId }, error) {
      counts.logins.failed += 1;
      onLoginFailure((times) => {
        log.warn({ deviceId, times, error: messageOf(error) }, 'login not registered, will retry');
      });
    },
    stoodTooLate: ({ deviceId, epoch }) => departures.leave(deviceId, epoch),
  };

  function stood(session: Session): void {
    const { deviceId, epoch, connection } = session;
    counts.logins.granted += 1;
    const other = byDevice.get(deviceId);
    if (other && other.epoch > epoch) {
      // Answered in the wrong order: it had been taken over before it stood.
      close(session, 'taken-over');
      takenOver(other, { gatewayId: bridge.gatewayId, epoch });
      return;
    }
    const replaced = other && other !== session ? other : null;
    if (replaced) close(replaced, 'taken-over');
    byDevice.set(deviceId, session);
    announce(session, 'session.opened', 'state', { gatewayId: bridge.gatewayId, epoch });
    const fromEpoch = replaced?.epoch ?? madeRoom.get(deviceId);
    madeRoom.delete(deviceId);
    if (fromEpoch !== undefined) {
      takenOver(session, { gatewayId: bridge.gatewayId, epoch: fromEpoch });
    }
    // Plain text names no device: what the modem said is a fact of all that speak through it.
    if (connection.modem) announce(session, 'modem', 'heartbeat', connection.modem);
  }

  /** Told by the winner alone, so once for each, whichever gateway the older session was on. */
  function takenOver(session: Session, from: Holder): void {
    const { deviceId, epoch, connection } = session;
    const { remote } = connection;
    counts.takeovers += 1;
    announce(session, 'session.takenOver', 'state', {
      fromGatewayId: from.gatewayId,
      fromEpoch: from.epoch,
      gatewayId: bridge.gatewayId,
      epoch,
      remote,
    });
    onTakeover((times) => {
      log.info({ deviceId, fromGatewayId: from.gatewayId, remote, times }, 'session taken over');
    });
  }

  function denied(session: Session, denial: Denial): void {
    const { deviceId, connection } = session;
    const { remote } = connection;
    const { reason, retryAfterMs } = denial;
    const holder = denial.reason === 'taken' ? { holderGatewayId: denial.holder.gatewayId } : {};
    counts.logins.denied += 1;
    counts.loginFailures[reason] += 1;
    onDenial((times) => {
      log.warn({ deviceId, remote, reason, ...holder, retryAfterMs, times }, 'login denied');
    });
    if (mayTell()) announce(session, 'session.denied', 'state', { reason, ...holder, remote });
    // Others that stand on it are not to blame; what this one says is dropped meanwhile.
    if (connection.sessions.every(({ state }) => state === 'denied')) connection.close(reason);
  }

  /** Nobody could say whether the device is known: it is neither served nor told no, and may come again. */
  function unvouched(session: Session): void {
    const { deviceId, connection } = session;
    const { remote } = connection;
    onUnvouched((times) => {
      log.warn(
        { deviceId, remote, times },
        'device not served: whether it is known cannot be told',
      );
    });
    close(session, 'not-vouched');
  }

  /** Peers that make up ids must not fill the store with their refusals. */
  function mayTell(): boolean {
    const ticks = clock.ticks();
    eventsLeft = Math.min(
      EVENTS_AT_ONCE,
      eventsLeft + ((ticks - eventsAt) / 1_000) * EVENTS_PER_SECOND,
    );
    eventsAt = ticks;
    if (eventsLeft < 1) return false;
    eventsLeft -= 1;
    return true;
  }

  function announce(session: Session, name: string, weight: ReportWeight, fields: Fields): void {
    const { deviceId, protocol } = session;
    uplink.report({
      deviceId,
      protocol: protocol.name,
      name,
      weight,
      at: clock.now(),
      msgId: 0,
      fields,
      frame: '',
    });
  }

  function open(connection: Connection, message: Message): Session | null {
    const { protocol } = connection;
    const { deviceId } = message;
    if (!protocol) return null;
    if (protocol.isFactoryDefault(deviceId)) {
      counts.factoryDefaults += 1;
      onFactoryDefault((times) => {
        log.warn({ deviceId, remote: connection.remote, times }, 'factory default id denied');
      });
      return null;
    }
    if (connection.sessions.length >= options.maxSessions) {
      counts.droppedMessages += 1;
      return null;
    }
    const session = new Session(host, connection, protocol, deviceId);
    connection.sessions = [...connection.sessions, session];
    session.logIn();
    return session;
  }

  function close(session: Session, reason: CloseReason): void {
    const { deviceId, epoch, connection, state } = session;
    if (state === 'closed') return;
    session.end();
    connection.sessions = connection.sessions.filter((each) => each !== session);
    if (byDevice.get(deviceId) === session) byDevice.delete(deviceId);
    session.lane?.close(
      reason === 'taken-over' ? 'stale-epoch' : 'socket-closed',
      reason === 'write-error' ? 'write-error' : 'connection-lost',
    );
    if (state === 'standing') {
      // Of a device that was removed nothing more is told: it would be known again by that.
      if (reason !== 'not-known') {
        const { gatewayId } = bridge;
        announce(session, 'session.closed', 'state', { gatewayId, epoch, reason });
      }
      // The presence of whoever took over is not ours to remove.
      if (reason !== 'taken-over') departures.leave(deviceId, epoch);
    }
    if (connection.sessions.length === 0) connection.close(reason);
  }

  return {
    receive(connection, message) {
      const { sessions } = connection;
      let session: Session | null = null;
      for (let i = 0; i < sessions.length && !session; i += 1) {
        if (sessions[i]!.deviceId === message.deviceId) session = sessions[i]!;
      }
      session ??= open(connection, message);
      session?.receive(message);
    },
    find: (deviceId) => byDevice.get(deviceId),
    standing: () => byDevice.values(),
    count: () => byDevice.size,
    evict({ deviceId, epoch, removed }) {
      const session = byDevice.get(deviceId);
      if (!session || session.epoch >= epoch) return;
      close(session, removed ? 'not-known' : 'taken-over');
    },
    evictFor(deviceId) {
      const session = byDevice.get(deviceId);
      if (!session || options.takeover === 'deny' || session.connection.sessions.length > 1) {
        return false;
      }
      close(session, 'taken-over');
      // Nobody has the device now; a newer session of it has a newer epoch.
      departures.leave(deviceId, session.epoch);
      const [oldest] = madeRoom.keys();
      if (madeRoom.size >= MAX_MADE_ROOM && oldest !== undefined) madeRoom.delete(oldest);
      madeRoom.set(deviceId, session.epoch);
      return true;
    },
    check(connection) {
      const silentSince = clock.ticks() - connection.idleMs * SILENT_SESSION_FACTOR;
      for (const session of connection.sessions) {
        if (session.heardAt < silentSince) close(session, 'idle');
      }
    },
    closeAll(connection, reason) {
      for (const session of connection.sessions) close(session, reason);
    },
    retryDepartures: () => departures.retry(),
    departing: () => departures.underWay(),
  };
}
