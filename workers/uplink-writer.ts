/** Carries what devices said from the uplink stream into the store: at least once, each report once. */
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { Report } from '../src/bridge/gateway-bridge.ts';
import type { StreamEntry } from '../src/bridge/stream-reader.ts';
import { DownlinkError, messageOf } from '../src/errors.ts';
import type { Log } from '../src/log/log.ts';
import type { Metrics } from '../src/metrics/metrics.ts';
import type { Devices, Reports, StoredReport } from '../src/store/contract.ts';

export type UplinkWriterDeps = {
  devices: Pick<Devices, 'seen'>;
  reports: Reports;
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

type Sighting = {
  deviceId: string;
  protocol: string;
  at: number;
  facts: Record<string, unknown>;
};

export function createUplinkWriter({ devices, reports, metrics, log }: UplinkWriterDeps) {
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

  /** Waits while the ledger is away. What it does not take for good must not hold up all that follows. */
  async function tolerated(store: () => Promise<void>, count: number): Promise<void> {
    if (count === 0) return;
    try {
      await store();
    } catch (error) {
      if (error instanceof DownlinkError && error.code === 'LEDGER_UNAVAILABLE') throw error;
      log.error({ count, error: messageOf(error) }, 'reports not stored: the ledger refused some');
    }
  }

  return {
    async handle(entries: StreamEntry[]): Promise<ReadonlySet<string>> {
      const sightings = new Map<string, Sighting>();
      const stored: StoredReport[] = [];
      for (const entry of entries) {
        const found = read(entry);
        if (!found) continue;
        const { report, entryId } = found;
        note(sightings, report);
        metrics.uplinkReports.inc({ weight: report.weight });
        // Heartbeats live on as lastSeenAt and facts; only what carries state or money is a row.
        if (report.weight !== 'heartbeat') stored.push({ entryId, ...report });
      }
      await tolerated(() => devices.seen([...sightings.values()]), sightings.size);
      await tolerated(() => reports.add(stored), stored.length);
      return new Set();
    },
  };
}

function note(sightings: Map<string, Sighting>, report: Report): void {
  const { deviceId, protocol, at, fields } = report;
  const known = sightings.get(deviceId);
  const facts = known?.facts ?? {};
  if (report.weight === 'heartbeat') {
    for (const [name, value] of Object.entries(fields)) {
      if (factNames.has(name)) facts[name] = value;
    }
  }
  sightings.set(deviceId, { deviceId, protocol, at: Math.max(at, known?.at ?? 0), facts });
}
