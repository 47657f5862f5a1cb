/** All sessions of this gateway: who speaks on which connection, and who holds a device's presence. */
import type { GatewayBridge } from '../bridge/gateway-bridge.ts';
import type { Evict } from '../bridge/messages.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { Fields, Message, ReportWeight } from '../protocols/protocol.ts';
import type { Clock } from './clock.ts';
import type { Connection } from './connection.ts';
import type { CloseReason, Counts } from './counts.ts';
import { createDepartures } from './departures.ts';
import type { LaneHost } from './lane.ts';
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

export function createSessions(deps: SessionsDeps): Sessions {
  const { bridge, lanes, uplink, options, clock, wheel, counts, log } = deps;
  const byDevice = new Map<string, Session>();
  const departures = createDepartures({ bridge });
  const onLoginFailure = createThrottle(clock);
  const onFactoryDefault = createThrottle(clock);

  const host: SessionHost = {
    bridge,
    options,
    clock,
    wheel,
    counts,
    lanes,
    uplink: (session, message) => uplink.handle(session, message),
    stood,
    denied(session, retryAfterMs) {
      const { deviceId, connection } = session;
      counts.logins.denied += 1;
      log.warn({ deviceId, remote: connection.remote, retryAfterMs }, 'flapping device denied');
      if (connection.sessions.every(({ state }) => state === 'denied'))
        connection.close('flapping');
    },
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
    if (other && other !== session) {
      counts.takeovers += 1;
      if (other.epoch > epoch) {
        close(session, 'taken-over');
        return;
      }
      close(other, 'taken-over');
    }
    byDevice.set(deviceId, session);
    announce(session, 'session.opened', 'state', { gatewayId: bridge.gatewayId, epoch });
    // Plain text names no device: what the modem said is a fact of all that speak through it.
    if (connection.modem) announce(session, 'modem', 'heartbeat', connection.modem);
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
      announce(session, 'session.closed', 'state', { gatewayId: bridge.gatewayId, epoch, reason });
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
    evict({ deviceId, epoch }) {
      const session = byDevice.get(deviceId);
      if (!session || session.epoch >= epoch) return;
      counts.takeovers += 1;
      close(session, 'taken-over');
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
