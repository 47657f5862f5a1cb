/** `downlink simulate`: a fleet of devices for a gateway that runs elsewhere. */
import { setTimeout as delay } from 'node:timers/promises';
import { DownlinkError, messageOf } from '../errors.ts';
import { onSignal } from '../lifecycle/lifecycle.ts';
import { createFleet } from '../simulator/fleet.ts';
import { createFleetLog } from '../simulator/fleet-log.ts';
import type { Knobs } from '../simulator/knobs.ts';
import type { FleetStats } from '../simulator/stats.ts';

export type SimulateOptions = {
  /** HOST:PORT of the gateway. */
  tcp: string;
  devices?: number;
  protocol?: 'bkv' | 'ap3000' | 'both';
  /** Physical ids on one AP3000 connection. */
  perHost?: number;
  /** Numbers of the devices begin here. */
  firstNumber?: number;
  connectPerSecond?: number;
  seed?: number;
  /** JSON-lines file of every command frame. */
  log?: string;
  /** One JSON object per report in place of a line. */
  json?: boolean;
  reportEveryMs?: number;
  knobs?: Partial<Knobs>;
};

const defaultReportEveryMs = 5000;
/** Commands kept in memory when there is no file to keep them. */
const keptEntries = 10_000;
const mixes = {
  bkv: { bkv: 1 },
  ap3000: { ap3000: 1 },
  both: { bkv: 1, ap3000: 1 },
} as const;

/** Runs a fleet until Ctrl-C. */
export async function runSimulate(options: SimulateOptions): Promise<void> {
  const { devices = 100, protocol = 'both', json = false, seed = 1 } = options;
  const { reportEveryMs = defaultReportEveryMs } = options;
  const stop = new AbortController();
  const forget = (['SIGINT', 'SIGTERM'] as const).map((signal) =>
    onSignal(signal, () => {
      stop.abort();
      for (const one of forget) one();
    }),
  );
  const fleet = createFleet({
    ...addressOf(options.tcp),
    devices,
    mix: mixes[protocol],
    seed,
    // a gateway that is away is waited for
    startTimeoutMs: 2_147_483_647,
    log: createFleetLog(
      options.log === undefined ? { capacity: keptEntries } : { capacity: 0, file: options.log },
    ),
    ...given(options, 'perHost', 'firstNumber', 'connectPerSecond', 'knobs'),
  });
  const say = (line: string) => process.stderr.write(`${line}\n`);
  say(`${devices} devices connect to ${options.tcp}; Ctrl-C ends them`);
  fleet.start().then(
    () => say(`all ${devices} devices are logged in`),
    (error: unknown) => say(messageOf(error)),
  );
  let before = fleet.stats();
  try {
    for (;;) {
      await delay(reportEveryMs, undefined, { signal: stop.signal });
      const stats = fleet.stats();
      const line = json
        ? JSON.stringify({ at: Date.now(), ...stats })
        : lineOf(stats, before, reportEveryMs);
      process.stdout.write(`${line}\n`);
      before = stats;
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    for (const one of forget) one();
    await fleet.stop();
  }
}

function lineOf(stats: FleetStats, before: FleetStats, everyMs: number): string {
  const perSecond = Math.round(((stats.received - before.received) * 1000) / everyMs);
  return [
    `${stats.loggedIn}/${stats.devices} logged in`,
    `${perSecond} commands/s`,
    `${stats.acks} acks`,
    `${stats.nacks} nacks`,
    `${stats.unanswered} unanswered`,
    `${stats.duplicates} repeated`,
    `${stats.disconnects} drops`,
  ].join(' · ');
}

function addressOf(text: string): { host: string; port: number } {
  const [, bracketed, plain, port] = /^(?:\[([0-9a-f:]+)\]|([^:\s]*)):(\d{1,5})$/i.exec(text) ?? [];
  const number = Number(port);
  if (!(number >= 1 && number <= 65_535)) {
    const sentence = `"${text}" is no address of a gateway; write HOST:PORT such as 127.0.0.1:9999`;
    throw new DownlinkError('CONFIG_INVALID', sentence);
  }
  return { host: bracketed ?? (plain || '127.0.0.1'), port: number };
}

/** Those of the options that are there. */
function given<T extends object, K extends keyof T>(options: T, ...names: K[]): Pick<T, K> {
  const entries = names.filter((name) => options[name] !== undefined);
  return Object.fromEntries(entries.map((name) => [name, options[name]])) as Pick<T, K>;
}
