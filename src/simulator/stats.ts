/** What a fleet counts. */
export type FleetStats = {
  devices: number;
  /** Open connections. */
  connected: number;
  connects: number;
  disconnects: number;
  loggedIn: number;
  socketErrors: number;
  /** Command frames. */
  received: number;
  duplicates: number;
  acks: number;
  nacks: number;
  /** Frames that got no answer, for whatever reason. */
  unanswered: number;
  heartbeats: number;
  reports: number;
  settlements: number;
  settlementsAcked: number;
  /** The server's answers to what devices said by themselves. */
  answers: number;
  /** Bytes from the server that were no frame. */
  garbageBytes: number;
};

export function createStats(): FleetStats {
  return {
    devices: 0,
    connected: 0,
    connects: 0,
    disconnects: 0,
    loggedIn: 0,
    socketErrors: 0,
    received: 0,
    duplicates: 0,
    acks: 0,
    nacks: 0,
    unanswered: 0,
    heartbeats: 0,
    reports: 0,
    settlements: 0,
    settlementsAcked: 0,
    answers: 0,
    garbageBytes: 0,
  };
}
