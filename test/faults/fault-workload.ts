/**
 * What the fault runs send: commands of both protocols, of which most carry bytes that no other command
 * to that device carries. It knows the command tables from their documents alone.
 */

export type Planned = {
  body: {
    deviceId: string;
    command: string;
    params: Record<string, unknown>;
    ttlMs: number;
    ackTimeoutMs: number;
    attempts: number;
    backoffMs?: number;
  };
  repeatable: boolean;
  /** Hex that stands in a frame to this device if and only if it is this command's. */
  content?: string;
};

/** Far beyond the run: nothing may expire in it. */
const ttlMs = 600_000;
/** Far more than the devices take, and short enough not to wait long for those that keep silent. */
const ackTimeoutMs = 6_000;
/** Each fault may cost an attempt. */
const attempts = 8;

/** Round after round over all devices; device and number make every command its own. */
export function planCommands(deviceIds: readonly string[], count: number): Planned[] {
  return Array.from({ length: count }, (_, i) => {
    const deviceId = deviceIds[i % deviceIds.length]!;
    const round = Math.floor(i / deviceIds.length);
    // Where a device begins in its list differs, so that every kind is under way at any moment.
    const turn = round + (i % deviceIds.length);
    return deviceId.length === 14 ? bkv(deviceId, turn, round) : ap3000(deviceId, turn, round);
  });
}

function bkv(deviceId: string, turn: number, round: number): Planned {
  const socket = round + 1;
  // Each command of a device speaks of a socket of its own: device id, then the element `socket`.
  const socketElement = `${deviceId}03014a${hex(socket, 2)}`;
  switch (turn % 6) {
    case 0: {
      const minutes = 100 + round;
      return planned(
        deviceId,
        'charge.start',
        { socket, port: 0, mode: 'time', minutes },
        // 0008 07 <socket> <port> <on> <by time> <minutes> <energy>
        { repeatable: false, content: `000807${hex(socket, 2)}000101${hex(minutes, 4)}0000` },
      );
    }
    case 1:
      return planned(
        deviceId,
        'charge.stop',
        { socket, port: 1 },
        { content: `000807${hex(socket, 2)}0100` },
      );
    case 2:
      return planned(deviceId, 'params.read', { socket }, { content: socketElement });
    case 3: {
      const params = { socket, maxMinutes: 300 + round };
      return planned(deviceId, 'params.set', params, { content: socketElement });
    }
    case 4:
      return planned(
        deviceId,
        'network.delete',
        { socket },
        // 0001 0a <socket>
        { content: `00010a${hex(socket, 2)}` },
      );
    default:
      return planned(
        deviceId,
        'port.query',
        { socket },
        // 0001 1d <socket>
        { content: `00011d${hex(socket, 2)}` },
      );
  }
}

function ap3000(deviceId: string, turn: number, round: number): Planned {
  const orderNo = `${hex(round + 1, 8)}${deviceId}`.padEnd(32, '7');
  switch (turn % 6) {
    case 0: {
      const seconds = 3_600 + round;
      const low = hex(seconds, 4);
      return planned(
        deviceId,
        'charge.start',
        { port: 0, mode: 'time', seconds, orderNo },
        // <port> <on> <seconds, low byte first> <order>
        { repeatable: false, content: `0001${low.slice(2)}${low.slice(0, 2)}${orderNo}` },
      );
    }
    case 1:
      return planned(
        deviceId,
        'params.set',
        { group: 'basic', floatPercent: 20 + round },
        // 83, the defaults of three fields, then this one
        { content: `8303000a00${hex(20 + round, 2)}` },
      );
    case 2:
      return planned(deviceId, 'params.read', { group: 'basic' });
    case 3:
      return planned(deviceId, 'device.locate', { seconds: round + 1 });
    case 4:
      return planned(deviceId, 'params.read', { group: 'advanced' });
    default:
      return planned(
        deviceId,
        'charge.stop',
        // Nothing charges there, so the device refuses; it would ignore the stop of another order.
        { port: 1, orderNo },
        { content: `01000000${orderNo}` },
      );
  }
}

function planned(
  deviceId: string,
  command: string,
  params: Record<string, unknown>,
  { repeatable = true, content }: { repeatable?: boolean; content?: string } = {},
): Planned {
  return {
    body: { deviceId, command, params, ttlMs, ackTimeoutMs, attempts },
    repeatable,
    ...(content !== undefined && { content }),
  };
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
