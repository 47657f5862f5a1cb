/** `npm run bench -- NAME [--json] [options]`: one file a benchmark, each prints figures beside a reference of the same run. */
import { parseArgs } from 'node:util';
import { benchConnections } from './connections.ts';
import { benchLatency } from './latency.ts';
import { benchQueries } from './queries.ts';
import { print, printJson, type Report } from './report.ts';
import { benchThroughput } from './throughput.ts';
import { benchUplink } from './uplink.ts';
import { benchWake } from './wake.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    // throughput, latency, connections, uplink
    devices: { type: 'string', default: '10000' },
    commands: { type: 'string', default: '20000' },
    // throughput
    'ack-delay': { type: 'string', default: '0' },
    profile: { type: 'boolean', default: false },
    // latency, connections, uplink
    rate: { type: 'string' },
    // connections
    most: { type: 'string' },
    seconds: { type: 'string', default: '30' },
    heartbeat: { type: 'string', default: '30' },
    // queries
    'seed-devices': { type: 'string', default: '100000' },
    orders: { type: 'string', default: '1000000' },
    log: { type: 'string', default: '5000000' },
    // uplink
    reports: { type: 'string', default: '100000' },
    outage: { type: 'string', default: '60' },
    hang: { type: 'boolean', default: false },
    // wake
    returning: { type: 'string', default: '1000' },
    backlog: { type: 'string', default: '20000' },
    'drain-devices': { type: 'string', default: '200' },
    each: { type: 'string', default: '50' },
  },
});

const say = (line: string) => void process.stderr.write(`${line}\n`);
const devices = () => whole('devices', values.devices, 19_000);
const commands = () => whole('commands', values.commands, 200_000);

const benches: Record<string, () => Promise<Report>> = {
  throughput: () =>
    benchThroughput({
      ackDelayMs: whole('ack-delay', values['ack-delay'], 60_000),
      devices: devices(),
      commands: commands(),
      profile: values.profile,
      say,
    }),
  latency: () =>
    benchLatency({
      devices: devices(),
      commands: commands(),
      rate: whole('rate', values.rate ?? '1000', 4_000),
      say,
    }),
  connections: () =>
    benchConnections({
      devices: devices(),
      most: values.most === undefined ? null : whole('most', values.most, 28_000),
      rate: whole('rate', values.rate ?? '500', 2_000),
      seconds: whole('seconds', values.seconds, 120),
      heartbeatS: whole('heartbeat', values.heartbeat, 60),
      say,
    }),
  queries: () =>
    benchQueries({
      devices: whole('devices', values['seed-devices'], 1_000_000),
      orders: whole('orders', values.orders, 10_000_000),
      log: whole('log', values.log, 50_000_000),
      say,
    }),
  uplink: () =>
    benchUplink({
      devices: devices(),
      reports: whole('reports', values.reports, 1_000_000),
      rate: whole('rate', values.rate ?? '2000', 5_000),
      outageS: whole('outage', values.outage, 600),
      hang: values.hang,
      say,
    }),
  wake: () =>
    benchWake({
      returning: whole('returning', values.returning, 10_000),
      backlog: whole('backlog', values.backlog, 70_000),
      drainDevices: whole('drain-devices', values['drain-devices'], 5_000),
      each: whole('each', values.each, 500),
      say,
    }),
};

const [name = ''] = positionals;
const bench = Object.hasOwn(benches, name) ? benches[name] : undefined;
if (!bench) {
  const names = Object.keys(benches).join(', ');
  process.stderr.write(`there is no benchmark ${JSON.stringify(name)}; there are: ${names}\n`);
  process.exitCode = 2;
} else {
  const report = await bench();
  if (values.json) printJson(report);
  else print(report);
}

function whole(option: string, text: string, max: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 0 && value <= max) return value;
  throw new Error(`--${option} takes a whole number from 0 to ${max}, not ${text}`);
}
