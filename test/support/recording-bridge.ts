/** The gateway's end of a bridge without a Redis: remembers what it was told, answers as it is set. */
import type {
  GatewayBridge,
  GatewayHandlers,
  Login,
  Report,
} from '../../src/bridge/gateway-bridge.ts';
import type { Delivery } from '../../src/bridge/messages.ts';
import type { Outcome } from '../../src/outcome.ts';

export type RecordedReceipt =
  | { t: 'lined'; workerId: string; id: string; attempt: number }
  | { t: 'written'; workerId: string; id: string; attempt: number; at: number }
  | { t: 'ended'; workerId: string; id: string; attempt: number; outcome: Outcome };

export type RecordingBridge = GatewayBridge & {
  /** What the gateway handed over at its start. */
  handlers: GatewayHandlers;
  readonly receipts: RecordedReceipt[];
  readonly kept: { delivery: Delivery; outcome: Outcome; late: boolean }[];
  readonly reports: Report[];
  readonly logins: string[];
  readonly logouts: { deviceId: string; epoch: number }[];
  readonly rooms: string[];
  draining: boolean;
  stopped: boolean;
  leased: boolean;
  /** Every end is called settled as soon as it was told, as a worker does. */
  settles: boolean;
  answerLogin: (deviceId: string, standsHere: () => boolean) => Promise<Login>;
  /** False: strangers are not served while a login is not answered. */
  vouches: boolean;
  answerLogout: () => Promise<void>;
  answerReport: (report: Report) => Promise<void>;
  answerKeep: () => Promise<void>;
  /** The ends that were told for a command, oldest first. */
  endsOf(id: string): Outcome[];
};

/** Grants every login with the next epoch, and stores every report. */
export function createRecordingBridge(gatewayId = 'gw-test'): RecordingBridge {
  let epoch = 1_000;
  const bridge: RecordingBridge = {
    gatewayId,
    handlers: undefined as unknown as GatewayHandlers,
    receipts: [],
    kept: [],
    reports: [],
    logins: [],
    logouts: [],
    rooms: [],
    draining: false,
    stopped: false,
    leased: true,
    settles: false,
    answerLogin: async () => ({ granted: true, epoch: ++epoch, parked: 0 }),
    vouches: true,
    answerLogout: async () => {},
    answerReport: async () => {},
    answerKeep: async () => {},
    endsOf: (id) =>
      bridge.receipts.flatMap((receipt) =>
        receipt.t === 'ended' && receipt.id === id ? [receipt.outcome] : [],
      ),
    async start(handlers) {
      bridge.handlers = handlers;
    },
    drain() {
      bridge.draining = true;
    },
    async stop() {
      bridge.stopped = true;
    },
    login(deviceId, _protocol, standsHere = () => false) {
      bridge.logins.push(deviceId);
      return bridge.answerLogin(deviceId, standsHere);
    },
    vouchesFor: () => bridge.vouches,
    logout(deviceId, loggedOut) {
      bridge.logouts.push({ deviceId, epoch: loggedOut });
      return bridge.answerLogout();
    },
    holdsLease: () => bridge.leased,
    alive: () => true,
    lined(workerId, id, attempt) {
      bridge.receipts.push({ t: 'lined', workerId, id, attempt });
    },
    written(workerId, id, attempt, at) {
      bridge.receipts.push({ t: 'written', workerId, id, attempt, at });
    },
    ended({ workerId, id, attempt }, outcome) {
      bridge.receipts.push({ t: 'ended', workerId, id, attempt, outcome });
      if (bridge.settles) {
        setImmediate(() => bridge.handlers.settled({ t: 'settled', id, attempt }));
      }
    },
    answer({ workerId, id, attempt }, answer) {
      bridge.receipts.push(
        answer.kind === 'written'
          ? { t: 'written', workerId, id, attempt, at: answer.at }
          : { t: 'ended', workerId, id, attempt, outcome: answer },
      );
    },
    async keep(delivery, outcome, late) {
      await bridge.answerKeep();
      bridge.kept.push({ delivery, outcome, late });
    },
    roomFor(deviceId) {
      bridge.rooms.push(deviceId);
    },
    async report(report) {
      await bridge.answerReport(report);
      bridge.reports.push(report);
    },
  };
  return bridge;
}
