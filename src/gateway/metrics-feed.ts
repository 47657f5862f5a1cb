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
    // Told at 0 too: the first event of a series is an increase only if it began before.
    if (since === 0 && told.has(key)) return;
    told.set(key, value);
    instrument.inc(labels, since);
  }

  function addFrames(direction: 'in' | 'out', frames: Counts['framesIn']): void {
    for (const [protocol, names] of Object.entries(frames)) {
      for (const [command, value] of Object.entries(names)) {
        const labels = { direction, protocol, command };
        add(`${direction} ${protocol} ${command}`, value, metrics.gatewayFrames, labels);
      }
    }
  }

  function addEach(
    kind: string,
    values: Record<string, number>,
    instrument: Instrument,
    label: string,
  ): void {
    for (const [name, value] of Object.entries(values)) {
      add(`${kind} ${name}`, value, instrument, { [label]: name });
    }
  }

  function publish(): void {
    addFrames('in', counts.framesIn);
    addFrames('out', counts.framesOut);
    add('bytes in', counts.bytesIn, metrics.tcpBytes, { direction: 'in' });
    add('bytes out', counts.bytesOut, metrics.tcpBytes, { direction: 'out' });
    addEach('refused', counts.refused, metrics.tcpRejected, 'reason');
    addEach('closed', counts.closed, metrics.tcpClosed, 'reason');
    addEach('login', counts.loginFailures, metrics.gatewayLoginFailures, 'reason');
    add('accepted', counts.accepted, metrics.tcpAccepted, {});
    add('throttled', counts.throttled, metrics.tcpThrottled, {});
    add('takeovers', counts.takeovers, metrics.gatewayTakeovers, {});
    addEach('garbage', counts.garbageBytes, metrics.gatewayDecodeErrors, 'reason');
    add('fault', counts.faults, metrics.gatewayDecodeErrors, { reason: 'fault' });
    addEach('report', counts.reports.stored, metrics.uplinkReports, 'weight');
  }

  return { publish } satisfies MetricsFeed;
}
