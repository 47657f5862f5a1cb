/** Carries the gateway's counts into its metrics, so that the hot path touches no instrument. */
import type { Metrics } from '../metrics/metrics.ts';
import type { Counts } from './counts.ts';

export type MetricsFeed = {
  /** Adds what was counted since the last time. */
  publish(): void;
};

type Instrument = { inc(labels: Record<string, string>, by: number): void };

export function createMetricsFeed({ metrics, counts }: { metrics: Metrics; counts: Counts }) {
  const told = new Map<string, number>();

  function add(key: string, value: number, instrument: Instrument, labels: Record<string, string>) {
    const since = value - (told.get(key) ?? 0);
    if (since === 0) return;
    told.set(key, value);
    instrument.inc(labels, since);
  }

  function publish(): void {
    for (const [protocol, value] of Object.entries(counts.framesIn)) {
      add(`in ${protocol}`, value, metrics.gatewayFrames, { direction: 'in', protocol });
    }
    for (const [protocol, value] of Object.entries(counts.framesOut)) {
      add(`out ${protocol}`, value, metrics.gatewayFrames, { direction: 'out', protocol });
    }
    for (const [reason, value] of Object.entries(counts.garbageBytes)) {
      add(`garbage ${reason}`, value, metrics.gatewayDecodeErrors, { reason });
    }
    add('fault', counts.faults, metrics.gatewayDecodeErrors, { reason: 'fault' });
    for (const [weight, value] of Object.entries(counts.reports.stored)) {
      add(`report ${weight}`, value, metrics.uplinkReports, { weight });
    }
  }

  return { publish } satisfies MetricsFeed;
}
