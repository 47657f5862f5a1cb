/** The life of a charge at a port: reports while it runs, and its end reported until the server has it. */
import type { Message } from '../protocols/protocol.ts';
import { draw } from './knobs.ts';
import type { Device, EndReason, Port } from './model.ts';
import type { FleetStats } from './stats.ts';
import type { Wheel } from './wheel.ts';

export type Charging = {
  /** Follows a charge that a behaviour has just begun; `durationMs` null: until it is stopped. */
  begun(device: Device, port: Port, durationMs: number | null): void;
  /** Takes over a new duration, counted from the start of the charge. */
  prolonged(device: Device, port: Port, durationMs: number | null): void;
  /** Ends the charge and reports it. */
  ended(device: Device, port: Port, why: EndReason): void;
  /** Reports the port as it is now, shortly. */
  report(device: Device, port: Port): void;
  /** Sends an end that is still unreported; called at login. */
  resume(device: Device): void;
  /** True when the answer belonged to a report of an end, which is then forgotten. */
  settled(device: Device, answer: Message): boolean;
};

export type ChargingDeps = { wheel: Wheel; stats: FleetStats; now: () => number };

/** A change is reported this soon after its cause, as real devices were seen to do. */
const changeReportMs = 500;

export function createCharging({ wheel, stats, now }: ChargingDeps): Charging {
  const charging: Charging = {
    begun(device, port, durationMs) {
      port.charge += 1;
      port.charging = true;
      port.startedAt = now();
      const { charge } = port;
      const repeatMs = device.knobs.reportMs ?? device.behaviour.reportMs;
      const tell = () => {
        if (!port.charging || port.charge !== charge) return;
        send(device, port);
        wheel.after(repeatMs, tell);
      };
      wheel.after(Math.min(changeReportMs, repeatMs), tell);
      const { chargeMs } = device.knobs;
      endAfter(device, port, chargeMs === null ? durationMs : draw(chargeMs, device.random));
    },
    prolonged(device, port, durationMs) {
      if (device.knobs.chargeMs !== null || durationMs === null) return;
      endAfter(device, port, Math.max(0, port.startedAt + durationMs - now()));
    },
    ended(device, port, why) {
      if (!port.charging) return;
      port.charging = false;
      device.settlements.push(device.behaviour.settlement(device, port, why));
      wheel.after(device.knobs.settlementMs, () => {
        send(device, port);
        settle(device);
      });
    },
    report(device, port) {
      wheel.after(changeReportMs, () => send(device, port));
    },
    resume(device) {
      device.settlementSent = null;
      settle(device);
    },
    settled(device, answer) {
      const first = device.settlements[0];
      if (!first || !device.behaviour.settles(answer, first)) return false;
      device.settlements.shift();
      device.settlementSent = null;
      stats.settlementsAcked += 1;
      if (device.settlements.length > 0)
        wheel.after(device.knobs.settlementMs, () => settle(device));
      return true;
    },
  };

  function endAfter(device: Device, port: Port, durationMs: number | null): void {
    if (durationMs === null) return;
    // a prolonged charge outlives its first timer: only the newest end counts
    const endsAt = now() + durationMs;
    const { charge } = port;
    port.endsAt = endsAt;
    wheel.after(durationMs, () => {
      if (port.charge === charge && port.endsAt === endsAt) charging.ended(device, port, 'ordered');
    });
  }

  function send(device: Device, port: Port): void {
    if (device.link.send(device.behaviour.portReport(device, port))) stats.reports += 1;
  }

  /** Sends the oldest unacknowledged end, and again until it is acknowledged. One at a time, as devices do. */
  function settle(device: Device): void {
    const first = device.settlements[0];
    if (!first || first === device.settlementSent || !device.loggedIn) return;
    if (!device.link.send(first.frame)) return;
    stats.settlements += 1;
    device.settlementSent = first;
    const repeatMs = device.knobs.settlementRepeatMs ?? device.behaviour.settlementRepeatMs;
    wheel.after(repeatMs, () => {
      if (device.settlementSent !== first) return;
      device.settlementSent = null;
      settle(device);
    });
  }

  return charging;
}
