/** `npm run bench -- NAME [--json] [options]`: one file a benchmark, each prints figures beside a reference of the same run. */
import { parseArgs } from 'node:util';
import { print, printJson } from './report.ts';
import { benchThroughput } from './throughput.ts';

const benches = {
  throughput: benchThroughput,
} as const;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    'ack-delay': { type: 'string', default: '0' },
    devices: { type: 'string', default: '10000' },
    commands: { type: 'string', default: '20000' },
    profile: { type: 'boolean', default: false },
  },
});

const [name = ''] = positionals;
if (!Object.hasOwn(benches, name)) {
  process.stderr.write(
    `there is no benchmark ${JSON.stringify(name)}; there is: ${Object.keys(benches).join(', ')}\n`,
  );
  process.exitCode = 2;
} else {
  const report = await benches[name as keyof typeof benches]({
    ackDelayMs: whole('ack-delay', values['ack-delay'], 60_000),
    devices: whole('devices', values.devices, 19_000),
    commands: whole('commands', values.commands, 200_000),
    profile: values.profile,
    say: (line) => process.stderr.write(`${line}\n`),
  });
  if (values.json) printJson(report);
  else print(report);
}

function whole(option: string, text: string, max: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 0 && value <= max) return value;
  throw new Error(`--${option} takes a whole number from 0 to ${max}, not ${text}`);
}
