/**
 * A fleet as a process of its own. It reads requests as lines of JSON from its standard input and answers
 * each with a line on its standard output; `remote.ts` has both shapes. It ends when its input ends, so
 * that it never outlives who started it.
 *
 *   {"id":1,"do":"start","options":{"host":"127.0.0.1","port":9999,"devices":100}}
 *   {"id":1,"result":{"deviceIds":["82200000000001", …],"startedAt":…,"readyAt":…}}
 */
import { createInterface } from 'node:readline';
import { DownlinkError, messageOf } from '../errors.ts';
import { createFleet, type Fleet } from './fleet.ts';
import { createFleetLog } from './fleet-log.ts';
import type { RemoteStart, Request, Steer } from './remote.ts';

let fleet: Fleet | null = null;

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const request = JSON.parse(line) as Request;
  const { id } = request;
  answer(request).then(
    (result) => reply({ id, result: result ?? null }),
    (error: unknown) => reply({ id, error: messageOf(error) }),
  );
});
lines.on('close', () => {
  void fleet?.stop().finally(() => process.exit(0));
  if (!fleet) process.exit(0);
});

async function answer(request: Request): Promise<unknown> {
  if (request.do === 'start') {
    const { log, ...options } = request.options;
    fleet = createFleet({ ...options, log: createFleetLog(log) });
    const startedAt = Date.now();
    await fleet.start();
    return { deviceIds: fleet.deviceIds, startedAt, readyAt: Date.now() } satisfies RemoteStart;
  }
  if (!fleet) throw new DownlinkError('BAD_REQUEST', 'the fleet is not started; send start first');
  switch (request.do) {
    case 'stats':
      return fleet.stats();
    case 'roundTrips':
      return fleet.roundTrips(request.clear);
    case 'entries':
      return entriesOf(fleet, request.fromSeq, request.limit);
    case 'setKnobs':
      return fleet.setKnobs(request.knobs);
    case 'device': {
      const { loggedIn, connection, unsettled, ports } = fleet.device(request.deviceId);
      return { loggedIn, connection, unsettled, ports };
    }
    case 'steer':
      return steer(fleet, request.deviceId, request.steer);
    case 'stop':
      return fleet.stop();
  }
}

function entriesOf({ log }: Fleet, fromSeq: number, limit: number) {
  if (fromSeq <= log.dropped) {
    const text = `the log no longer holds entry ${fromSeq}: it dropped ${log.dropped}`;
    throw new DownlinkError('NOT_FOUND', text);
  }
  return log.entries(fromSeq).slice(0, limit);
}

function steer(fleet: Fleet, deviceId: string, order: Steer): unknown {
  const device = fleet.device(deviceId);
  switch (order.what) {
    case 'silence':
      return device.silence(order.on);
    case 'refuseNext':
      return device.refuseNext(order.count);
    case 'loseAnswers':
      return device.loseAnswers(order.count);
    case 'dropConnection':
      return device.dropConnection();
    case 'setKnobs':
      return device.setKnobs(order.knobs);
    case 'endCharge':
      return device.endCharge(order.port, order.socket);
    case 'say':
      return device.say(order.name, order.fields);
  }
}

function reply(response: object): void {
  process.stdout.write(`${JSON.stringify(response)}\n`);
}
