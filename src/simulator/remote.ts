/** A fleet in a process of its own: `main.ts` is the child, this is how a bench or test talks to it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { DownlinkError } from '../errors.ts';
import type { Fields } from '../protocols/protocol.ts';
import type { FleetOptions, PortState } from './fleet.ts';
import type { FleetLogOptions, LogEntry } from './fleet-log.ts';
import type { Knobs } from './knobs.ts';
import type { RoundTrips } from './round-trips.ts';
import type { FleetStats } from './stats.ts';

/** What can be asked of a device by name. */
export type Steer =
  | { what: 'silence'; on: boolean }
  | { what: 'refuseNext'; count: number }
  | { what: 'loseAnswers'; count: number }
  | { what: 'dropConnection' }
  | { what: 'setKnobs'; knobs: Partial<Knobs> }
  | { what: 'endCharge'; port: number; socket: number }
  | { what: 'say'; name: string; fields: Fields };

/**
 * A line of JSON on the child's standard input; each is answered by one line `{ id, result }` or
 * `{ id, error }` on its standard output. The child ends when its input ends.
 */
export type Request = { id: number } & (
  | { do: 'start'; options: RemoteFleetOptions }
  | { do: 'stats' }
  | { do: 'roundTrips'; clear: boolean }
  | { do: 'entries'; fromSeq: number; limit: number }
  | { do: 'setKnobs'; knobs: Partial<Knobs> }
  | { do: 'device'; deviceId: string }
  | { do: 'steer'; deviceId: string; steer: Steer }
  | { do: 'stop' }
);

export type Response = { id: number; result: unknown } | { id: number; error: string };

export type RemoteFleetOptions = Omit<FleetOptions, 'log' | 'clock'> & { log?: FleetLogOptions };

/** What a start is answered with: when the first device was let off, and when all were logged in. */
export type RemoteStart = { deviceIds: readonly string[]; startedAt: number; readyAt: number };

export type RemoteDevice = {
  loggedIn: boolean;
  connection: number;
  unsettled: number;
  ports: PortState[];
};

export type RemoteFleet = {
  readonly pid: number;
  deviceIds: readonly string[];
  /** Unix milliseconds: from the first connection to the last login. */
  readonly startedAt: number;
  readonly readyAt: number;
  stats(): Promise<FleetStats>;
  /** From heartbeats to their answers; `clear` begins anew. */
  roundTrips(clear?: boolean): Promise<RoundTrips>;
  /** All entries from this number on; throws when the child had to drop some of them. */
  entries(fromSeq?: number): Promise<LogEntry[]>;
  setKnobs(knobs: Partial<Knobs>): Promise<void>;
  device(deviceId: string): Promise<RemoteDevice>;
  steer(deviceId: string, steer: Steer): Promise<unknown>;
  /** Disconnects the devices and ends the process; its log is read before. */
  stop(): Promise<void>;
};

const extension = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';
const program = fileURLToPath(new URL(`./main.${extension}`, import.meta.url));
const entriesPerRequest = 5000;

/** Starts a fleet in a child process; resolves when every device is logged in. */
export async function startRemoteFleet(options: RemoteFleetOptions): Promise<RemoteFleet> {
  const child = spawn(process.execPath, [program], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ask = createAsk(child);
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const end = async () => {
    child.stdin.end();
    await ended;
  };
  let begun: RemoteStart;
  try {
    begun = (await ask({ do: 'start', options })) as RemoteStart;
  } catch (error) {
    await end();
    throw error;
  }
  return {
    pid: child.pid!,
    ...begun,
    stats: async () => (await ask({ do: 'stats' })) as FleetStats,
    roundTrips: async (clear = false) => (await ask({ do: 'roundTrips', clear })) as RoundTrips,
    async entries(fromSeq = 1) {
      const all: LogEntry[] = [];
      for (let next = fromSeq; ; ) {
        const part = (await ask({
          do: 'entries',
          fromSeq: next,
          limit: entriesPerRequest,
        })) as LogEntry[];
        all.push(...part);
        if (part.length < entriesPerRequest) return all;
        next = part.at(-1)!.seq + 1;
      }
    },
    async setKnobs(knobs) {
      await ask({ do: 'setKnobs', knobs });
    },
    device: async (deviceId) => (await ask({ do: 'device', deviceId })) as RemoteDevice,
    steer: (deviceId, steer) => ask({ do: 'steer', deviceId, steer }),
    async stop() {
      await ask({ do: 'stop' });
      await end();
    },
  };
}

type Unnumbered<T> = T extends { id: number } ? Omit<T, 'id'> : never;

function createAsk(child: ChildProcess): (request: Unnumbered<Request>) => Promise<unknown> {
  type Waiter = { resolve: (value: unknown) => void; reject: (error: Error) => void };
  const waiters = new Map<number, Waiter>();
  let lastId = 0;
  let gone = false;
  createInterface({ input: child.stdout! }).on('line', (line) => {
    const response = JSON.parse(line) as Response;
    const waiter = waiters.get(response.id);
    waiters.delete(response.id);
    if ('error' in response) waiter?.reject(new DownlinkError('INTERNAL', response.error));
    else waiter?.resolve(response.result);
  });
  // what is written to a dead child is answered by its end
  child.stdin!.on('error', () => undefined);
  child.once('exit', (code, signal) => {
    gone = true;
    for (const { reject } of waiters.values()) reject(over(signal ?? code));
    waiters.clear();
  });
  return (request) =>
    new Promise((resolve, reject) => {
      if (gone) {
        reject(over('an earlier end'));
        return;
      }
      lastId += 1;
      waiters.set(lastId, { resolve, reject });
      child.stdin!.write(`${JSON.stringify({ id: lastId, ...request })}\n`);
    });
}

function over(how: unknown): DownlinkError {
  return new DownlinkError('INTERNAL', `the process of the simulated fleet is gone: ${how}`);
}
