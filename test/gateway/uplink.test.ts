import { afterEach, beforeEach, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { connectedDtu, type Device, frames, type Rig, startRig } from './rig.ts';

let rig: Rig;
let device: Device;

beforeEach(async () => {
  rig = await startRig({ options: { connectionReports: 2 } });
  device = await connectedDtu(rig);
});

afterEach(() => rig.close());

const reported = (name: string) => rig.bridge.reports.filter((report) => report.name === name);

/** A heartbeat's answer shows that everything before it was handled. */
async function handled(count: number): Promise<void> {
  device.send(frames.heartbeat());
  await device.hears('heartbeat.reply', count);
}

test('a report of money is acknowledged only after it is stored', async () => {
  const stored = Promise.withResolvers<void>();
  rig.bridge.answerReport = () => stored.promise;
  device.send(frames.chargeEnd());
  await handled(2);
  expect(device.heard.map(({ name }) => name)).not.toContain('charge.end.ack');
  stored.resolve();
  await device.hears('charge.end.ack');
  expect(reported('charge.end')).toMatchObject([
    { weight: 'money', protocol: 'bkv', fields: { energyWh: 80, chargedMin: 45 } },
  ]);
});

test('a report that could not be stored is not acknowledged, so that the device repeats it', async () => {
  rig.bridge.answerReport = async () => {
    throw new Error('redis is away');
  };
  device.send(frames.chargeEnd());
  await handled(2);
  rig.bridge.answerReport = async () => {};
  expect(device.heard.map(({ name }) => name)).not.toContain('charge.end.ack');
  expect(device.isClosed()).toBe(false);
  device.send(frames.chargeEnd());
  await device.hears('charge.end.ack');
  expect(rig.gateway.counts.reports.failed).toBe(1);
});

test('reports that are being stored are bounded; what is over the bound is not acknowledged', async () => {
  const stored = Promise.withResolvers<void>();
  rig.bridge.answerReport = () => stored.promise;
  device.send(frames.chargeEnd(), frames.chargeEnd(), frames.chargeEnd(), frames.chargeEnd());
  await eventually(() => expect(rig.gateway.counts.reports.dropped).toBe(2));
  stored.resolve();
  await device.hears('charge.end.ack', 2);
  await handled(2);
  expect(device.heard.filter(({ name }) => name === 'charge.end.ack')).toHaveLength(2);
});

test('heartbeats are reported once a minute, however many come', async () => {
  for (let i = 0; i < 5; i += 1) await handled(2 + i);
  expect(reported('heartbeat')).toHaveLength(1);
  expect(reported('heartbeat')).toMatchObject([
    { weight: 'heartbeat', fields: { iccid: '89860463112070319417', version: 'cV.1r46' } },
  ]);
});

test('the answer to a command is told by its outcome and not reported again', async () => {
  const { wireId } = rig.deliver('query');
  await device.hears('port.query');
  device.send(frames.queryReply(wireId));
  await eventually(() => expect(rig.bridge.endsOf('query')).toHaveLength(1));
  device.send(frames.queryReply(999_999));
  await handled(2);
  expect(reported('port.query.reply')).toHaveLength(1);
});

test('a report that also answers a query is stored and acknowledged as well', async () => {
  rig.deliver('query');
  await device.hears('port.query');
  device.send(frames.statusReport());
  await device.hears('status.report.ack');
  expect(rig.bridge.endsOf('query')).toMatchObject([{ kind: 'acked', result: { socket: 1 } }]);
  expect(reported('status.report')).toHaveLength(1);
});
