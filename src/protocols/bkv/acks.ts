/** How devices answer commands: what counts as an answer, and what its result byte means. */
import type { Ack } from '../../outcome.ts';
import type { Message } from '../protocol.ts';
import { holeState, known, numberOfHex, reportedHoles } from './hole-state.ts';
import { kvValue } from './kv.ts';
import { elementsOf, protocolName } from './message-codec.ts';

type Result = Record<string, unknown>;

/** The vendor knows two, everywhere. */
export const resultCodes: Readonly<Record<number, { accepted: boolean; says: string }>> = {
  0: { accepted: false, says: 'the device answered that it failed' },
  1: { accepted: true, says: 'the device answered that it is done' },
};

/** True for an uplink message of one of these names that echoes the command's wire id. */
export function isReply(message: Message, wireId: number, ...names: string[]): boolean {
  return isUplink(message) && message.msgId === wireId && names.includes(message.name);
}

/** The ack of a result code. */
export function ackOfCode(code: number, result: Result): Ack {
  const known = resultCodes[code];
  if (known?.accepted) return { accepted: true, result };
  const reason = known?.says ?? `the device answered ${code}, which its vendor does not explain`;
  return { accepted: false, code: String(code), reason, result };
}

/**
 * The ack in a message that carries a result byte or an ack element; null when it carries
 * neither.
 */
export function ackOf(message: Message): Ack | null {
  const elements = elementsOf(message);
  const code = message.fields['result'] ?? kvValue(elements, 'ack');
  if (typeof code !== 'number') return null;
  const { socketNo, holeNo, businessNo } = message.fields;
  return ackOfCode(
    code,
    known({
      businessNo: numberOfHex(businessNo ?? kvValue(elements, 'businessNo')),
      socket: socketNo ?? kvValue(elements, 'socketNo'),
      port: holeNo ?? kvValue(elements, 'holeNo'),
    }),
  );
}

/** The ack of a start or stop, whichever of the three forms the reply has. */
export function startAck(wireId: number, message: Message): Ack | null {
  if (!isReply(message, wireId, 'control.reply', 'tiers.start.reply', 'fee.start.reply'))
    return null;
  // The vendor does not print the reply to a start by tiers: of another size, its first byte may
  // be anything.
  if (message.name === 'tiers.start.reply' && message.fault !== undefined) return null;
  return ackOf(message);
}

/**
 * The state of a socket, from the answer to a query or from a status report of that socket: devices
 * were seen to answer the query with such a report alone.
 */
export function socketState(socket: number, wireId: number, message: Message): Ack | null {
  if (isReply(message, wireId, 'port.query.reply')) {
    const holes = message.fields['holes'];
    if (!Array.isArray(holes)) return null;
    return {
      accepted: true,
      result: { socket: message.fields['socketNo'], holes: holes.map(holeState) },
    };
  }
  if (!isUplink(message) || message.name !== 'status.report') return null;
  const holes = reportedHoles(socket, message.fields);
  if (holes === null) return null;
  return { accepted: true, result: { socket, holes } };
}

function isUplink(message: Message): boolean {
  return message.protocol === protocolName && message.direction === 'up';
}
