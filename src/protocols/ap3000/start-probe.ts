/**
 * What a refusal means that answers the repetition of a start (82). A device that lost nothing but its
 * answer may say 0 again; or "same state", which alone does not tell whose charge is running.
 */
import type { Observation, Probe, ProbeVerdict } from '../protocol.ts';
import { orderNoFromWire, orderNoToWire } from './order-number.ts';

/** Reports of what a port does (06) and did (03, 43), each with the number of its order. */
const running = 'power';
const finished: ReadonlySet<string> = new Set(['settlement', 'cabinet.finished']);

/** Answer to 82: the port is in that state already; not executed. */
const sameState = '2';

type Start = { port: number | 'auto'; orderNo: string };

export const startProbe: Probe = {
  kind: 'repeat',
  reports: [running, ...finished],
  judge(params, { answer, before, since }) {
    if (answer.accepted) return { kind: 'took-effect', result: answer.result };
    const start = params as Start;
    const isOurs = ({ fields: { port, orderNo } }: Observation) =>
      orderNo === orderNoToWire(start.orderNo) && (start.port === 'auto' || port === start.port);
    // a device repeats settlements for weeks: one of an order that was known before tells nothing new
    const known = before.some(isOurs);
    const shows = ({ name }: Observation) => name === running || (finished.has(name) && !known);
    const proof = since.find((one) => shows(one) && isOurs(one));
    if (proof !== undefined) return tookEffect(start, proof);
    if (answer.code !== sameState) return { kind: 'no-effect' };
    return { kind: 'unclear', reason: reasonOf(start, since) };
  },
};

function tookEffect({ orderNo }: Start, { fields: { port } }: Observation): ProbeVerdict {
  return { kind: 'took-effect', result: { orderNo, port } };
}

/** Why "same state" says too little, naming the order that runs where a report tells it. */
function reasonOf({ port, orderNo }: Start, since: readonly Observation[]): string {
  const said = `the device says that the port is in that state already`;
  const other = since.find(({ name, fields }) => name === running && fields['port'] === port);
  const runs = other?.fields['orderNo'];
  return typeof runs === 'string'
    ? `${said}, and reports order ${orderNoFromWire(runs)} there, not ${orderNo}`
    : `${said}, and no power report has named order ${orderNo} since`;
}
