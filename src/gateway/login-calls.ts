/**
 * The logins of sessions, as the bridge answers them: waits where a device that nobody vouches for gets no answer,
 * and tells of sessions on other gateways that were taken over.
 */
import type { GatewayBridge, Holder, Login } from '../bridge/gateway-bridge.ts';
import type { Clock } from './clock.ts';
import type { Session } from './session.ts';

export type Calls = {
  /** The bridge's login, for that session. */
  login(session: Session): Promise<Login>;
};

export type CallsDeps = {
  bridge: Pick<GatewayBridge, 'login' | 'vouchesFor'>;
  clock: Clock;
  /** Whether a session of that device stands on this gateway. */
  standsHere(session: Session): boolean;
  /** It could not be answered, and is asked again. */
  unanswered(session: Session, error: unknown): void;
  /** It took the device from a session that lived on another gateway. */
  takenFrom(session: Session, holder: Holder): void;
};

const ASK_AGAIN_MS = 500;

export function createCalls(deps: CallsDeps): Calls {
  const { bridge, clock } = deps;

  async function login(session: Session): Promise<Login> {
    const { deviceId, protocol } = session;
    for (;;) {
      try {
        const answer = await bridge.login(deviceId, protocol.name, () => deps.standsHere(session));
        if (answer.granted) tellTaken(session, answer.takenFrom);
        return answer;
      } catch (error) {
        // Rejecting would have it served. Its own timer ends the waiting, and closes it.
        if (bridge.vouchesFor(deviceId) || session.state !== 'logging-in') throw error;
        deps.unanswered(session, error);
      }
      await new Promise<void>((resolve) => void clock.after(ASK_AGAIN_MS, resolve));
      if (session.state !== 'logging-in') throw new Error('the session is over');
    }
  }

  function tellTaken(session: Session, takenFrom: Promise<Holder | null> | undefined): void {
    void takenFrom?.then((holder) => {
      // One that was closed meanwhile has taken it all the same.
      if (holder) deps.takenFrom(session, holder);
    });
  }

  return { login };
}
