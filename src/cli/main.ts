#!/usr/bin/env node
/** The `downlink` command. It reads arguments; everything else is done where it belongs. */
import { readFileSync } from 'node:fs';
import { Argument, Command, InvalidArgumentError, Option } from 'commander';
import { loadConfig } from '../config/config.ts';
import { DownlinkError, messageOf } from '../errors.ts';

const print = (line: string) => void process.stdout.write(`${line}\n`);

const program = new Command('downlink')
  .description('Durable commands to devices on plain TCP.')
  .version(versionOf())
  .showHelpAfterError();

program
  .command('start')
  .description('start one role, or one of each under a supervisor')
  .addOption(
    new Option('--role <role>', 'which role')
      .choices(['all', 'gateway', 'worker', 'api'])
      .default('all'),
  )
  .option('--data <dir>', 'where private stores keep their data (role all)', '.downlink')
  .option(
    '--gateways <n>',
    'gateway processes that share the port (roles all and gateway)',
    whole,
    1,
  )
  .action(async ({ role, data, gateways }) => {
    const { start } = await import('./start.ts');
    await start({ role, dataDir: data, gateways });
  });

const db = program.command('db').description('the schema of the ledger');
db.command('migrate')
  .description('apply what is missing')
  .action(async () => {
    const { migrate } = await import('../store/migrate.ts');
    const applied = await migrate({ url: databaseUrl() });
    for (const name of applied) print(`applied ${name}`);
    if (applied.length === 0) print('nothing to apply');
  });
db.command('status')
  .description('list applied and missing migrations')
  .action(async () => {
    const { migrationStatus } = await import('../store/migrate.ts');
    const { applied, pending } = await migrationStatus({ url: databaseUrl() });
    for (const name of applied) print(`applied ${name}`);
    for (const name of pending) print(`missing ${name}`);
  });
db.command('rollback')
  .description('undo the last migrations')
  .option('--steps <n>', 'how many', whole, 1)
  .action(async ({ steps }) => {
    const { rollback } = await import('../store/migrate.ts');
    for (const name of await rollback({ url: databaseUrl(), steps })) print(`undone ${name}`);
  });
db.command('slow')
  .description('list the statements that take long on average')
  .option('--mean <ms>', 'from this mean on', positive, 100)
  .option('--limit <n>', 'at most so many', whole, 20)
  .action(async ({ mean, limit }) => {
    const { printSlow } = await import('./db-slow.ts');
    const width = process.stdout.columns;
    const wanted = { url: databaseUrl(), meanMs: mean, limit, ...(width && { width }) };
    if (!(await printSlow(wanted, print))) process.exitCode = 1;
  });
db.command('seed')
  .description('fill an empty database with made-up devices and their data, for benchmarks')
  .option('--devices <n>', 'devices, with their ports', whole, 100_000)
  .option('--orders <n>', 'orders of 90 days', whole, 1_000_000)
  .option('--log <n>', 'rows of the command log, of 14 days', whole, 5_000_000)
  .option('--in-use', 'also into a database that holds something else')
  .action(async ({ devices, orders, log, inUse }) => {
    const { runSeed } = await import('./db-seed.ts');
    const { ms } = await runSeed({
      url: databaseUrl(),
      devices,
      orders,
      log,
      besideForeign: inUse === true,
      stream: process.stderr,
    });
    print(
      `seeded ${devices} devices, ${orders} orders, ${log} log rows in ${(ms / 1000).toFixed(1)} s`,
    );
  });

program
  .command('doctor')
  .description('say what is found on this machine and what is missing')
  .action(async () => {
    const { runDoctor } = await import('./doctor.ts');
    if (!(await runDoctor(print))) process.exitCode = 1;
  });

const frame = program.command('frame').description('read and write frames of the device protocols');
frame
  .command('decode')
  .description('print one JSON object per frame found, and per run of skipped bytes')
  .argument('<hex...>')
  .action(async (hex: string[]) => {
    const { decodeFrames } = await import('./frame.ts');
    for (const found of decodeFrames(hex)) print(JSON.stringify(found));
  });
frame
  .command('encode')
  .description('print the frame of a command as hex')
  .argument('<protocol>')
  .argument('<device>')
  .argument('<command>')
  .addArgument(new Argument('[params-json]').default('{}'))
  .option('--msg-id <n>', 'message id on the wire', whole, 1)
  .action(async (protocol, device, command, params, { msgId }) => {
    const { encodeFrame } = await import('./frame.ts');
    print(encodeFrame({ protocol, deviceId: device, command, params, msgId }));
  });

program
  .command('demo')
  .description('start everything, connect simulated devices, send commands and compare the ends')
  .option('--keep', 'stay up afterwards')
  .option('--devices <n>', 'simulated devices of both protocols', whole, 200)
  .option('--commands <n>', 'commands to send', whole, 2_000)
  .option('--seed <n>', 'of everything that is left to chance', whole, 7)
  .option('--json', 'print one JSON object in place of the table')
  .action(async (options) => {
    const { runDemo } = await import('./demo.ts');
    await runDemo(options);
  });

program
  .command('simulate')
  .description('run simulated devices against a gateway, until Ctrl-C')
  .requiredOption('--tcp <host:port>', 'where the gateway listens')
  .option('--devices <n>', 'how many', whole, 100)
  .addOption(
    new Option('--protocol <name>', 'what they speak')
      .choices(['bkv', 'ap3000', 'both'])
      .default('both'),
  )
  .option('--ack-delay <ms>', 'from a command to its answer; one number or FROM-TO', range, 0)
  .option('--loss <p>', 'probability that a command gets no answer', probability, 0)
  .option('--refusal <p>', 'probability that a command is refused', probability, 0)
  .option('--disconnect <p>', 'probability that a command breaks the connection', probability, 0)
  .option('--garbage <p>', 'probability of noise around a frame', probability, 0)
  .option('--late <p>', 'probability that an answer comes after its deadline', probability, 0)
  .option('--seed <n>', 'of everything that is left to chance', whole, 1)
  .option('--log <file>', 'write every command frame as a line of JSON')
  .option('--json', 'report as JSON')
  .action(async (given) => {
    const { runSimulate } = await import('./simulate.ts');
    const { ackDelay: ackDelayMs, loss, refusal, disconnect, garbage, late, ...options } = given;
    await runSimulate({
      ...options,
      knobs: { ackDelayMs, loss, refusal, disconnect, garbage, late },
    });
  });

try {
  await program.parseAsync();
} catch (error) {
  const code = error instanceof DownlinkError ? ` (${error.code})` : '';
  process.stderr.write(`downlink: ${messageOf(error)}${code}\n`);
  process.exitCode = 1;
}

function databaseUrl(): string {
  const { url } = loadConfig().database;
  if (url) return url;
  throw new DownlinkError('CONFIG_INVALID', 'DATABASE_URL is not set; say which database to use');
}

function whole(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 0) return value;
  throw new InvalidArgumentError('It takes a whole number.');
}

function positive(text: string): number {
  const value = Number(text);
  if (text !== '' && value >= 0 && Number.isFinite(value)) return value;
  throw new InvalidArgumentError('It takes a number, 0 or more.');
}

function probability(text: string): number {
  const value = Number(text);
  if (text !== '' && value >= 0 && value <= 1) return value;
  throw new InvalidArgumentError('It takes a number from 0 to 1.');
}

function range(text: string): number | [number, number] {
  const [from = '', to = from] = text.split('-');
  const bounds: [number, number] = [whole(from), whole(to)];
  if (bounds[0] > bounds[1]) throw new InvalidArgumentError('FROM is more than TO.');
  return bounds[0] === bounds[1] ? bounds[0] : bounds;
}

function versionOf(): string {
  // From the sources the package is two folders up, from dist/ three.
  for (const up of ['../../package.json', '../../../package.json']) {
    try {
      const { name, version } = JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8'));
      if (name === 'downlink') return version;
    } catch {
      // not there: look further up
    }
  }
  return 'unknown';
}
