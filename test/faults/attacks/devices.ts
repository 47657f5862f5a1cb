/** Well-behaved devices in a process of their own. */
import { startChild } from './child.ts';

export type ConnectRequest = {
  host: string;
  port: number;
  ids: readonly string[];
  perSecond: number;
  everyMs: number;
};

export type DevicesSeen = {
  loggedIn: number;
  /** Connections that ended. None of them comes back, so that none goes unnoticed. */
  lost: number;
  queries: number;
  /** From a beat to its answer, of every beat since the mark. */
  beatMs: number[];
};

export type Devices = {
  readonly ids: readonly string[];
  /** Measures anew from here on. */
  mark(): Promise<void>;
  seen(): Promise<DevicesSeen>;
  end(): Promise<void>;
};

/** Resolves when all of them are logged in. */
export async function startDevices(request: ConnectRequest): Promise<Devices> {
  const child = startChild('./devices-process.ts');
  await child.ask('connect', request);
  return {
    ids: request.ids,
    mark: () => child.ask('mark'),
    seen: () => child.ask('seen'),
    end: () => child.end(),
  };
}
