/** Carries what devices said from the uplink stream into the store: at least once, each report once. */
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { Report } from '../src/bridge/gateway-bridge.ts';
import type { StreamEntry } from '../src/bridge/stream-reader.ts';
import { DownlinkError, messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import type { Protocol } from '../src/protocols/protocol.ts';
import type { Sighting } from '../src/protocols/sighting.ts';
import type { Devices, Reports, StoredReport } from '../src/store/contract.ts';
import type { Orders, Ports, SightedOrder, SightedPort } from '../src/store/device-data.ts';
import { createSeenFilter, type Seen } from './seen-filter.ts';

export type UplinkWriterDeps = {
  devices: Pick<Devices, 'seen'>;
  reports: Pick<Reports, 'add'>;
  ports: Pick<Ports, 'note'>;
  orders: Pick<Orders, 'note'>;
  protocols: readonly Pick<Protocol, 'name' | 'sightings' | 'sightingsOfResult'>[];
  metrics: Metrics;
  log: Log;
};

const UplinkReport = Type.Object({
  deviceId: Type.String({ minLength: 1, maxLength: 32 }),
  protocol: Type.String({ maxLength: 16 }),
  name: Type.String({ maxLength: 64 }),
  weight: Type.Enum(['heartbeat', 'state', 'money'] as const),
  at: Type.Integer({ minimum: 0 }),
  msgId: Type.Integer({ minimum: 0 }),
  fields: Type.Record(Type.String(), Type.Unknown()),
  frame: Type.String({ maxLength: 8192 }),
});
const check = Compile(UplinkReport);

/** What a heartbeat or a register says of the device itself, by the names of both protocols. */
const factNames = new Set([
  'iccid',
  'imei',
  'version',
  'fwVersion',
  'csq',
  'signal',
  'ports',
  'deviceType',
  'workMode',
  'moduleType',
  'hostType',
  'virtualId',
]);

/** A start that succeeded, told by the worker that settled it: no frame of its own, and so no row of the log. */
const commandDone = 'command.succeeded';
const CommandDone = Type.Object({
  commandId: Type.String({ minLength: 1, maxLength: 64 }),
  command: Type.String({ maxLength: 64 }),
  params: Type.Record(Type.String(), Type.Unknown()),
  result: Type.Union([Type.Record(Type.String(), Type.Unknown()), Type.Null()]),
});
const checkDone = Compile(CommandDone);

/** What a batch of entries comes to. */
type Harvest = {
  seen: Map<string, Seen>;
  reports: StoredReport[];
  ports: SightedPort[];
  orders: SightedOrder[];
};

export function createUplinkWriter(deps: UplinkWriterDeps) {
  const { devices, reports, ports, orders, protocols, metrics, log } = deps;
  const seenFilter = createSeenFilter();

  function read({ entryId, text }: StreamEntry): { entryId: string; report: Report } | null {
    try {
      const report: unknown = JSON.parse(text);
      if (check.Check(report)) return { entryId, report };
    } catch {
      // falls through: said below
    }
    log.warn({ entryId, text: text.slice(0, 300) }, 'report unreadable');
    return null;
  }

  function harvest(entries: readonly StreamEntry[]): Harvest {
    const found: Harvest = { seen: new Map(), reports: [], ports: [], orders: [] };
    for (const entry of entries) {
      const readable = read(entry);
      if (!readable) continue;
      const { report, entryId } = readable;
      noteSeen(found.seen, report);
      metrics.uplinkReports.inc({ weight: report.weight });
      // Heartbeats live on as lastSeenAt, facts and ports; only what carries state or money is a row.
      if (report.weight !== 'heartbeat' && report.name !== commandDone) {
        found.reports.push({ entryId, ...report });
      }
      const { deviceId, at } = report;
      for (const sighting of sightingsIn(report)) {
        if (sighting.kind === 'port') found.ports.push({ ...sighting, deviceId, at });
        else found.orders.push({ ...sighting, deviceId, at });
      }
    }
    return found;
  }

  function sightingsIn({ protocol: spoken, deviceId, ...report }: Report): readonly Sighting[] {
    const protocol = protocols.find(({ name }) => name === spoken);
    if (!protocol) return [];
    if (report.name !== commandDone) return protocol.sightings(report);
    if (checkDone.Check(report.fields)) {
      return protocol.sightingsOfResult({ ...report.fields, at: report.at });
    }
    log.warn({ deviceId, fields: report.fields }, 'end of a command unreadable');
    return [];
  }

  /** Waits while the ledger is away. What it does not take for good must not hold up all that follows. */
  async function tolerated(count: number, store: () => Promise<unknown>): Promise<void> {
    if (count === 0) return;
    try {
      await store();
    } catch (error) {
      if (error instanceof DownlinkError && error.code === 'LEDGER_UNAVAILABLE') throw error;
      log.error({ count, error: messageOf(error) }, 'reports not stored: the ledger refused some');
    }
  }

  return {
    /** Any part of it may be done again with the same entries. */
    async handle(entries: StreamEntry[]): Promise<ReadonlySet<string>> {
      const found = harvest(entries);
      const news = seenFilter.news([...found.seen.values()]);
      const results = await Promise.allSettled([
        tolerated(news.length, async () => {
          await devices.seen(news);
          seenFilter.written(news);
        }),
        tolerated(found.reports.length, () => reports.add(found.reports)),
        tolerated(found.ports.length, () => ports.note(found.ports)),
        tolerated(found.orders.length, () => orders.note(found.orders)),
      ]);
      const failure = results.find((result) => result.status === 'rejected');
      if (failure) throw failure.reason;
      return new Set();
    },
  };
}

function noteSeen(seen: Map<string, Seen>, report: Report): void {
  const { deviceId, protocol, at, fields } = report;
  const known = seen.get(deviceId);
  const facts = known?.facts ?? {};
  if (report.weight === 'heartbeat') {
    for (const [name, value] of Object.entries(fields)) {
      if (factNames.has(name)) facts[name] = value;
    }
  }
  seen.set(deviceId, { deviceId, protocol, at: Math.max(at, known?.at ?? 0), facts });
}
