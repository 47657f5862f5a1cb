/** What a device says: answered, reported, and offered to whatever waits for an answer of that device. */
import type { GatewayBridge, Report } from '../bridge/gateway-bridge.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log/log.ts';
import { toHex } from '../protocols/bytes.ts';
import type { Message, Protocol, ReportWeight } from '../protocols/protocol.ts';
import type { Clock } from './clock.ts';
import type { Counts } from './counts.ts';
import type { Deliveries } from './deliveries.ts';
import type { GatewayOptions } from './options.ts';
import type { Carrier, Session } from './session.ts';
import { createThrottle } from './throttle.ts';

export type Uplink = {
  handle(session: Session, message: Message): void;
  /** A report of the gateway's own. Nobody waits for it. */
  report(report: Report): void;
};

export type UplinkDeps = {
  bridge: GatewayBridge;
  deliveries: Deliveries;
  options: GatewayOptions;
  clock: Clock;
  counts: Counts;
  log: Log;
};

export function createUplink(deps: UplinkDeps): Uplink {
  const { bridge, deliveries, options, clock, counts, log } = deps;
  const onFailure = createThrottle(clock);
  const onOverload = createThrottle(clock);
  /** By protocol and message: what our answer to it is called. */
  const answerNames = new Map<Protocol, Map<string, string>>();
  let pending = 0;

  function handle(session: Session, message: Message): void {
    const { protocol, connection } = session;
    if (log.isLevelEnabled('debug')) trace(message);
    const answer = protocol.answer(message, clock.now());
    // Lanes are not asked: what we owe a device goes at once.
    const answerName = answer ? nameOfAnswer(protocol, message.name, answer.frame) : '';
    if (answer?.after === 'receipt') connection.write(answer.frame, answerName);
    const matched = deliveries.acknowledge(session, message);
    const weight = protocol.weight(message);
    if (answer?.after === 'storage') {
      store(connection, reportOf(message, weight), answer.frame, answerName);
    } else if (matched && weight !== 'money') {
      // Its command's outcome tells it, frame and fields; a second record would only cost.
      return;
    } else if (weight !== 'heartbeat') {
      store(connection, reportOf(message, weight), null);
    } else if (session.heartbeatReportDue(message.name)) {
      report(reportOf(message, weight));
    }
  }

  /** The device erases the report on our answer and repeats it without one: so answer only what is stored. */
  function store(
    connection: Carrier,
    given: Report,
    answer: Uint8Array | null,
    answerName?: string,
  ): void {
    if (
      connection.pendingReports >= options.connectionReports ||
      pending >= options.pendingReports
    ) {
      counts.reports.dropped += 1;
      onOverload((times) => log.warn({ pending, times }, 'report dropped, too many are pending'));
      return;
    }
    pending += 1;
    connection.pendingReports += 1;
    bridge
      .report(given)
      .then(
        () => {
          pending -= 1;
          connection.pendingReports -= 1;
          counts.reports.stored[given.weight] += 1;
          if (answer) connection.write(answer, answerName);
        },
        (error) => {
          pending -= 1;
          connection.pendingReports -= 1;
          lost(given, error);
        },
      )
      .catch((error) => connection.broke(error));
  }

  function report(given: Report): void {
    if (pending >= options.pendingReports) {
      counts.reports.dropped += 1;
      return;
    }
    pending += 1;
    bridge.report(given).then(
      () => {
        pending -= 1;
        counts.reports.stored[given.weight] += 1;
      },
      (error) => {
        pending -= 1;
        lost(given, error);
      },
    );
  }

  function lost({ deviceId, name, weight }: Report, error: unknown): void {
    counts.reports.failed += 1;
    onFailure((times) => {
      log.warn({ deviceId, name, weight, times, error: messageOf(error) }, 'report not stored');
    });
  }

  /** A protocol's answer to one message has one name: it is read out of the first such answer. */
  function nameOfAnswer(protocol: Protocol, name: string, frame: Uint8Array): string {
    let names = answerNames.get(protocol);
    if (!names) {
      names = new Map();
      answerNames.set(protocol, names);
    }
    let known = names.get(name);
    if (known === undefined) {
      const [answer] = protocol.decoder('down').push(frame);
      known = answer?.kind === 'message' ? answer.message.name : 'unknown';
      names.set(name, known);
    }
    return known;
  }

  function reportOf(message: Message, weight: ReportWeight): Report {
    return {
      deviceId: message.deviceId,
      protocol: message.protocol,
      name: message.name,
      weight,
      at: clock.now(),
      msgId: message.msgId,
      fields: message.fields,
      frame: toHex(message.frame),
    };
  }

  function trace({ deviceId, name, msgId, frame, fault }: Message): void {
    log.debug({ deviceId, name, msgId, frame: toHex(frame.subarray(0, 256)), fault }, 'frame in');
  }

  return { handle, report };
}
