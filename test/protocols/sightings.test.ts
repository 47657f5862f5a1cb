import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  endReasonOfStop,
  orderSources,
  portStates,
  portStatuses,
  startSources,
  stopReasons,
} from '../../src/protocols/ap3000/codes.ts';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import { orderNoToWire } from '../../src/protocols/ap3000/order-number.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { kv } from '../../src/protocols/bkv/kv.ts';
import { protocols } from '../../src/protocols/index.ts';
import type { Fields, Message, Protocol } from '../../src/protocols/protocol.ts';
import { endReasons, type Sighting } from '../../src/protocols/sighting.ts';
import { fixture as ap3000Fixture, bytes, messagesOf } from './ap3000-samples.ts';
import { fixture as bkvFixture } from './bkv-frames.ts';

const at = Date.UTC(2026, 0, 31, 12);
const minuteMs = 60_000;
const stored = (value: Fields): Fields => JSON.parse(JSON.stringify(value)) as Fields;

/** What a frame's message says, as it comes out of a store. */
function heard(protocol: Protocol, hex: string): Message {
  const [message] = messagesOf(protocol.decoder('up').push(new Uint8Array(bytes(hex))));
  if (message === undefined) throw new Error(`no frame in ${hex}`);
  return { ...message, fields: stored(message.fields) };
}

function seenIn(protocol: Protocol, hex: string, time = at): Sighting[] {
  const { name, fields } = heard(protocol, hex);
  return protocol.sightings({ name, fields, at: time });
}

/** The frame that a device would send, as hex. */
function frame(protocol: Protocol, deviceId: string, name: string, fields: Fields, msgId = 0) {
  const written = protocol.encode({ direction: 'up', name, deviceId, msgId, fields });
  return Buffer.from(written).toString('hex');
}

const bkvFrame = (name: string, fields: Fields) => frame(bkv, '86004459453005', name, fields);
const ap3000Frame = (name: string, fields: Fields) => frame(ap3000, '04ab373b', name, fields);

const only = (sightings: readonly Sighting[]): Sighting => {
  expect(sightings).toHaveLength(1);
  return sightings[0]!;
};

const bkvPort = { kind: 'port', socket: 1, state: 'idle', code: 0x80, businessNo: null };
const bkvOrder = { kind: 'order', orderNo: null, event: 'ended', endCode: 0x98 } as const;
const ap3000Port = { kind: 'port', socket: 0 };
const vendorOrder = '20190901180000130030380102030405';
const ap3000Order = {
  kind: 'order',
  orderKey: `o:1:${vendorOrder}`,
  socket: 0,
  port: 1,
  businessNo: null,
  orderNo: vendorOrder,
  source: 'server',
};

describe('a report of BKV', () => {
  const idleReport = { voltageV: 227.5, powerW: 0, currentA: 0.001, energyWh: 0, durationS: 0 };
  const idleReply = { voltageV: 228.7, powerW: 0, currentA: 0.001, energyWh: 0, durationS: 0 };
  const table: [string, Fields[]][] = [
    ['heartbeat.up', []],
    [
      'status_report_1017.up',
      [0, 1].map((port) => ({
        ...bkvPort,
        port,
        readings: { ...idleReport, temperatureC: 37 },
      })),
    ],
    [
      'query_status_1D.reply',
      [0, 1].map((port) => ({ ...bkvPort, port, readings: { ...idleReply, temperatureC: 41 } })),
    ],
    [
      'exception_1010.up',
      [
        { kind: 'port', socket: 2, port: 0, state: 'idle', code: 0x80, readings: {} },
        { kind: 'port', socket: 2, port: 1, state: 'charging', code: 0xb0, readings: {} },
      ],
    ],
    // a start and a stop are answered alike
    ['control_07.reply', []],
    // asks for a charge, and says "charging" when nothing charges yet
    ['card_swipe_0B.up', []],
    ['card_order_0F.reply', []],
    [
      'charge_end_02.up',
      [
        {
          ...bkvOrder,
          orderKey: 'b:2:0:104',
          socket: 2,
          port: 0,
          businessNo: '104',
          source: null,
          startedAt: at - 45 * minuteMs,
          endedAt: at,
          endReason: 'no-load',
          readings: {
            powerW: 0,
            currentA: 0.001,
            energyWh: 80,
            durationS: 2700,
            temperatureC: 48,
          },
        },
      ],
    ],
    [
      'power_tier_end_18.up',
      [
        {
          ...bkvOrder,
          orderKey: 'b:1:0:23',
          socket: 1,
          port: 0,
          businessNo: '23',
          source: 'server',
          startedAt: at - 36 * minuteMs,
          // the clock of the sample is years behind: that of the report counts
          endedAt: at,
          endReason: 'no-load',
          amountCents: 15,
          readings: { powerW: 0, currentA: 0.002, energyWh: 1, durationS: 2160, temperatureC: 45 },
        },
      ],
    ],
    [
      'charge_end_1004.up',
      [
        {
          ...bkvOrder,
          orderKey: 'b:1:0:51',
          socket: 1,
          port: 0,
          businessNo: '51',
          source: 'server',
          startedAt: at - minuteMs,
          endedAt: at,
          endReason: 'no-load',
          amountCents: 0,
          readings: { powerW: 0, currentA: 0, energyWh: 0, durationS: 60, temperatureC: 42 },
        },
      ],
    ],
    [
      'card_end_0C.up (by time)',
      [
        {
          ...bkvOrder,
          orderKey: 'b:1:0:26',
          socket: 1,
          port: 0,
          businessNo: '26',
          source: 'card',
          card: '000000000002',
          startedAt: at - 31 * minuteMs,
          endedAt: at,
          endReason: 'no-load',
          readings: { powerW: 0, currentA: 0.002, energyWh: 2, durationS: 1860, temperatureC: 45 },
        },
      ],
    ],
    [
      'card_end_0C.up (by power tiers)',
      [
        {
          ...bkvOrder,
          orderKey: 'b:65:1:83',
          socket: 65,
          port: 1,
          businessNo: '83',
          source: 'card',
          card: '000000000002',
          startedAt: at - 6 * minuteMs,
          endedAt: at,
          endReason: 'no-load',
          amountCents: 2,
          readings: { powerW: 0, currentA: 0.001, energyWh: 0, durationS: 360, temperatureC: 40 },
        },
      ],
    ],
    ['card_balance_1A.up', []],
  ];

  it.each(table)('%s is seen as it is', (name, sightings) => {
    expect(seenIn(bkv, bkvFixture(name).hex)).toEqual(sightings);
  });

  it('takes the end of a charge from the device where its clock can be right', () => {
    // both samples end at a time of day in UTC+8
    const tiersAt = Date.UTC(2020, 5, 8, 6, 21, 7);
    const feeAt = Date.UTC(2024, 7, 23, 2, 17, 29);
    const tiers = only(seenIn(bkv, bkvFixture('power_tier_end_18.up').hex, tiersAt + minuteMs));
    const fee = only(seenIn(bkv, bkvFixture('charge_end_1004.up').hex, feeAt + minuteMs));
    expect(tiers).toMatchObject({ endedAt: tiersAt, startedAt: tiersAt - 36 * minuteMs });
    expect(fee).toMatchObject({ endedAt: feeAt, startedAt: feeAt - minuteMs });
    const ahead = seenIn(bkv, bkvFixture('charge_end_1004.up').hex, feeAt - 11 * minuteMs);
    expect(only(ahead)).toMatchObject({ endedAt: feeAt - 11 * minuteMs });
  });

  it.each([
    [0x80, 'idle', 'other'],
    [0x88, 'idle', 'no-load'],
    [0x90, 'charging', 'other'],
    [0x98, 'charging', 'no-load'],
    [0xb0, 'charging', 'quota-up'],
    [0xb8, 'charging', 'no-load'],
    [0xd0, 'fault', 'fault-metering'],
    [0x94, 'fault', 'fault-temperature'],
    [0x92, 'fault', 'fault-current'],
    [0x91, 'fault', 'overload'],
    [0x00, 'unknown', 'other'],
  ])('reads status %i of a port as %s and of an end as %s', (code, state, endReason) => {
    const hex = code.toString(16).padStart(2, '0');
    const hole = [kv('holeNo', 1), kv('holeStatus', hex)];
    const cluster = kv('socketStatusCluster', [kv('socketNo', 3), kv('hole', hole)]);
    const seen = seenIn(bkv, bkvFrame('status.report', { kv: [cluster] }));
    expect(seen).toEqual([{ kind: 'port', socket: 3, port: 1, state, code, readings: {} }]);
    const { fields } = heard(bkv, bkvFixture('charge_end_02.up').hex);
    const end = seenIn(bkv, bkvFrame('charge.end', { ...fields, holeStatus: `0x${hex}` }));
    expect(only(end)).toMatchObject({ endReason, endCode: code });
  });

  it.each([
    [1, 'time-up'],
    [2, 'energy-up'],
    [3, 'quota-up'],
  ])('knows of a card with billing mode %i that what is used up is %s', (mode, endReason) => {
    const { fields } = heard(bkv, bkvFixture('card_end_0C.up (by time)').hex);
    const changed = { ...fields, billingMode: mode, holeStatus: '0xb0' };
    expect(only(seenIn(bkv, bkvFrame('card.end', changed)))).toMatchObject({ endReason });
  });

  it('knows the charge of a hole only while it charges under a number', () => {
    const charge = (status: string, number: string) => {
      const hole = [
        kv('holeNo', 0),
        kv('holeStatus', status),
        kv('businessNo', number),
        kv('chargedMin', 3),
      ];
      const cluster = kv('socketStatusCluster', [kv('socketNo', 1), kv('hole', hole)]);
      return seenIn(bkv, bkvFrame('status.report', { kv: [cluster] })).slice(1);
    };
    expect(charge('90', '0009')).toMatchObject([
      { orderKey: 'b:1:0:9', event: 'charging', startedAt: at - 3 * minuteMs, source: null },
    ]);
    expect(charge('80', '0009')).toEqual([]);
    expect(charge('90', '0000')).toEqual([]);
  });

  it('leaves out what no sensor measured and what erased memory reads as', () => {
    const { fields } = heard(bkv, bkvFixture('charge_end_02.up').hex);
    const blank = {
      ...fields,
      tempC: 0,
      powerDeciW: 0xffff,
      currentMilliA: 0xffff,
      energyWh: 0xffff,
      chargedMin: 0xffff,
    };
    const end = only(seenIn(bkv, bkvFrame('charge.end', blank)));
    expect(end.readings).toEqual({});
    expect(end).not.toHaveProperty('startedAt');
  });
});

describe('a message of AP3000', () => {
  const settled = { durationS: 3600, energyWh: 480 };
  const drawn = { powerW: 100, voltageV: 220, currentA: 0.455, temperatureC: 20 };
  const table: [string, Fields[]][] = [
    [
      'heartbeat_01.up',
      [
        {
          ...ap3000Port,
          port: 0,
          state: 'idle',
          code: 0,
          readings: { voltageV: 218.8, powerW: 0, temperatureC: -33 },
        },
        {
          ...ap3000Port,
          port: 1,
          state: 'full',
          code: 3,
          readings: { voltageV: 218.8, powerW: 22.8, temperatureC: -33 },
        },
      ],
    ],
    [
      'heartbeat_21.up',
      // its temperature would be 60 degrees of frost
      [0, 1].map((port) => ({
        ...ap3000Port,
        port,
        state: 'idle',
        code: 0,
        readings: { voltageV: 220 },
      })),
    ],
    ['register_20.up', []],
    ['time_22.up', []],
    ['card_02.up', []],
    // a start and a stop are answered alike
    ['charge_82.ack', []],
    [
      'power_06.up',
      [
        {
          ...ap3000Port,
          port: 1,
          state: 'charging',
          code: 1,
          orderNo: vendorOrder,
          readings: { ...settled, ...drawn },
        },
        {
          ...ap3000Order,
          event: 'charging',
          startedAt: at - 60 * minuteMs,
          maxPowerW: 120,
          readings: { ...settled, ...drawn },
        },
      ],
    ],
    [
      'settlement_03.up',
      [
        {
          ...ap3000Order,
          event: 'ended',
          startedAt: at - 60 * minuteMs,
          endedAt: at,
          maxPowerW: 100,
          endReason: 'full',
          endCode: 1,
          readings: settled,
        },
      ],
    ],
    ['host_heartbeat_11.up', []],
  ];

  it.each(table)('%s is seen as it is', (name, sightings) => {
    expect(seenIn(ap3000, ap3000Fixture(name).hex)).toEqual(sightings);
  });

  const settlement = (changes: Fields) =>
    seenIn(
      ap3000,
      ap3000Frame('settlement', {
        ...heard(ap3000, ap3000Fixture('settlement_03.up').hex).fields,
        ...changes,
      }),
    );
  const power = (portStatus: number) =>
    seenIn(
      ap3000,
      ap3000Frame('power', {
        ...heard(ap3000, ap3000Fixture('power_06.up').hex).fields,
        portStatus,
      }),
    );
  const codes = (table: object) => Object.keys(table).map(Number);

  it('has every documented number in the words that the protocols share', () => {
    expect(codes(portStates)).toEqual(codes(portStatuses));
    expect(codes(endReasonOfStop)).toEqual(codes(stopReasons));
    expect(codes(orderSources)).toEqual(codes(startSources));
  });

  it.each(codes(stopReasons))('names the reason of stop %i', (stopReason) => {
    const endReason = endReasonOfStop[stopReason];
    expect(endReasons).toContain(endReason);
    expect(endReason).not.toBe('other');
    expect(only(settlement({ stopReason }))).toMatchObject({ endReason, endCode: stopReason });
  });

  it.each([0, 29, 200])('keeps the undocumented stop reason %i as another', (stopReason) => {
    const seen = only(settlement({ stopReason }));
    expect(seen).toMatchObject({ endReason: 'other', endCode: stopReason });
  });

  it.each(codes(portStatuses))('names port status %i', (code) => {
    const list = { voltageDeciV: 2200, ports: 1, portStatus: [code], signal: 9, ambientTempRaw: 0 };
    const seen = only(seenIn(ap3000, ap3000Frame('heartbeat', list)));
    expect(seen).toMatchObject({ state: portStates[code], code });
    expect(seen.readings).toEqual({ voltageV: 220 });
  });

  it.each([12, 17, 255])('does not guess the undocumented port status %i', (code) => {
    const list = { voltageDeciV: 0, ports: 1, portStatus: [code], signal: 9, ambientTempRaw: 0 };
    const seen = only(seenIn(ap3000, ap3000Frame('heartbeat', list)));
    expect(seen).toMatchObject({ state: 'unknown', code, readings: {} });
  });

  it.each([
    [0, 'idle'],
    [1, 'charging'],
    [2, 'plugged'],
    [3, 'full'],
    [4, 'fault'],
    [5, 'charging'],
    [12, 'fault'],
  ])(
    'reads status %i of a power report as %s, and never as the end of its charge',
    (code, state) => {
      expect(power(code)).toMatchObject([
        { kind: 'port', state, code },
        { kind: 'order', event: 'charging' },
      ]);
    },
  );

  it.each([
    [0, 'offline', { card: '7a8d05dd' }],
    [1, 'server', {}],
    [3, 'code', {}],
    [9, null, {}],
  ])('tells that start source %i is %s', (startSource, source, card) => {
    const seen = only(settlement({ startSource, cardOrCode: '7a8d05dd' }));
    expect(seen).toMatchObject({ source, ...card });
    expect('card' in seen).toBe('card' in card);
  });

  it('takes the time of a settlement from its timestamp where that can be right', () => {
    const timestamp = at / 1000 - 86_400;
    const told = { timestamp, secondMaxPowerDeciW: 0 };
    expect(only(settlement(told))).toMatchObject({ endedAt: timestamp * 1000 });
    expect(only(settlement({ ...told, timestamp: 0 }))).toMatchObject({ endedAt: at });
  });

  it('sees a charge that ended behind a closed door, and one that a card began', () => {
    const { secondMaxPowerDeciW: _, ...finished } = heard(
      ap3000,
      ap3000Fixture('settlement_03.up').hex,
    ).fields;
    expect(seenIn(ap3000, ap3000Frame('cabinet.finished', finished))).toEqual(settlement({}));
    const confirm = {
      port: 2,
      startSource: 0,
      cardId: '7a8d05dd',
      durationS: 3600,
      orderNo: orderNoToWire('A-1'),
    };
    expect(seenIn(ap3000, ap3000Frame('order.confirm', confirm))).toEqual([
      {
        kind: 'order',
        orderKey: 'o:2:A-1',
        socket: 0,
        port: 2,
        event: 'started',
        businessNo: null,
        orderNo: 'A-1',
        source: 'offline',
        card: '7a8d05dd',
        startedAt: at,
        readings: {},
      },
    ]);
  });

  it.each(['0'.repeat(32), 'f'.repeat(32)])('takes %s for no order', (orderNo) => {
    expect(settlement({ orderNo })).toEqual([]);
  });
});

describe('a command that succeeded', () => {
  const done = (command: string, params: Fields, result: Fields | null) => ({
    command,
    params,
    result,
    at,
    commandId: 'c-1',
  });
  const hole = { socket: 2, port: 1 };
  const began = { event: 'started', startedAt: at, readings: {}, commandId: 'c-1' };

  it.each([
    ['charge.start', hole, { ...hole, businessNo: 104 }, 'b:2:1:104', 'server'],
    ['charge.start', hole, { businessNo: 104 }, 'b:2:1:104', 'server'],
    ['card.order', { ...hole, businessNo: 26 }, hole, 'b:2:1:26', 'card'],
    ['card.order', { ...hole, businessNo: 26 }, { ...hole, businessNo: 26 }, 'b:2:1:26', 'card'],
  ])('%s of BKV began a charge: %j, %j', (command, params, result, orderKey, source) => {
    expect(bkv.sightingsOfResult(done(command, params, result))).toEqual([
      {
        ...began,
        kind: 'order',
        ...hole,
        orderKey,
        businessNo: orderKey.split(':')[3],
        orderNo: null,
        source,
      },
    ]);
  });

  it.each([
    ['charge.start', hole, hole],
    ['charge.start', hole, { ...hole, businessNo: 0 }],
    ['charge.start', hole, null],
    ['charge.start', hole, { ...hole, businessNo: 104, code: '0' }],
    ['charge.stop', hole, { ...hole, businessNo: 104 }],
    ['params.set', { socket: 2 }, { socket: 2 }],
  ])('%s of BKV tells no charge: %j, %j', (command, params, result) => {
    expect(bkv.sightingsOfResult(done(command, params, result))).toEqual([]);
  });

  it('of BKV that asked for ports tells what the report of the same would', () => {
    const answer = heard(bkv, bkvFixture('query_status_1D.reply').hex);
    const params = { socket: 1 };
    const ack = bkv.commands['port.query']!.recognise(params, answer.msgId, answer);
    const seen = bkv.sightingsOfResult(done('port.query', params, stored(ack!.result)));
    const reported = seenIn(bkv, bkvFixture('query_status_1D.reply').hex);
    // the result does not have the temperature
    expect(seen).toEqual(
      reported.map((one) => {
        const { temperatureC: _, ...readings } = one.readings;
        return { ...one, readings };
      }),
    );
    expect(seen).toHaveLength(2);
  });

  it.each([
    [{ port: 1, orderNo: 'A-1' }, { orderNo: 'A-1', port: 1, pendingPorts: 0 }, 'o:1:A-1'],
    [{ port: 'auto', orderNo: 'A-1' }, { orderNo: 'A-1', port: 3 }, 'o:3:A-1'],
    [{ port: 1, orderNo: 'A-1' }, {}, 'o:1:A-1'],
    [{ port: 1, orderNo: 'AB'.repeat(16) }, {}, `o:1:${'ab'.repeat(16)}`],
  ])('charge.start of AP3000 began a charge: %j, %j', (params, result, orderKey) => {
    const [, port, orderNo] = orderKey.split(':');
    expect(ap3000.sightingsOfResult(done('charge.start', params, result))).toEqual([
      {
        ...began,
        kind: 'order',
        orderKey,
        socket: 0,
        port: Number(port),
        businessNo: null,
        orderNo,
        source: 'server',
      },
    ]);
  });

  it.each([
    ['charge.start', { port: 'auto', orderNo: 'A-1' }, { orderNo: 'A-1', port: 255 }],
    ['charge.start', { port: 1, orderNo: 'A-1' }, { orderNo: 'A-1', port: 1, code: '3' }],
    ['charge.stop', { port: 1, orderNo: 'A-1' }, { orderNo: 'A-1', port: 1 }],
    ['port.query', {}, null],
  ])('%s of AP3000 tells no charge: %j, %j', (command, params, result) => {
    expect(ap3000.sightingsOfResult(done(command, params, result))).toEqual([]);
  });
});

describe('a charge from its start to its end', () => {
  /** What the device's answer to a command leads to, by way of a store. */
  function answered(
    protocol: Protocol,
    command: string,
    params: Fields,
    hex: string,
    time: number,
  ) {
    const message = heard(protocol, hex);
    const ack = protocol.commands[command]!.recognise(params, message.msgId, message);
    expect(ack?.accepted).toBe(true);
    const result = stored(ack!.result);
    return protocol.sightingsOfResult({ command, params, result, at: time, commandId: 'c-1' });
  }
  const told = (sightings: readonly Sighting[]) =>
    sightings.map((one) =>
      one.kind === 'port'
        ? `${one.socket}/${one.port} ${one.state}`
        : [one.orderKey, one.event, one.readings.energyWh, one.readings.durationS, one.endReason]
            .filter((part) => part !== undefined)
            .join(' '),
    );

  it('is one order of BKV, its end repeated', () => {
    const hole = [
      kv('holeNo', 0),
      kv('holeStatus', '90'),
      kv('businessNo', '0068'),
      kv('voltageDeciV', 2275),
      kv('powerDeciW', 1070),
      kv('currentMilliA', 480),
      kv('energyWh', 53),
      kv('chargedMin', 30),
    ];
    const cluster = kv('socketStatusCluster', [kv('socketNo', 2), kv('hole', hole)]);
    const status = bkvFrame('status.report', { kv: [cluster] });
    const reply = bkvFixture('control_07.reply').hex;
    const end = bkvFixture('charge_end_02.up').hex;
    const params = { socket: 2, port: 0, mode: 'time', minutes: 240 };
    const sightings = [
      ...answered(bkv, 'charge.start', params, reply, at),
      ...seenIn(bkv, reply, at),
      ...seenIn(bkv, status, at + 30 * minuteMs),
      ...seenIn(bkv, end, at + 45 * minuteMs),
      ...seenIn(bkv, end, at + 45 * minuteMs + 10_000),
    ];
    expect(told(sightings)).toEqual([
      'b:2:0:104 started',
      '2/0 charging',
      'b:2:0:104 charging 53 1800',
      'b:2:0:104 ended 80 2700 no-load',
      'b:2:0:104 ended 80 2700 no-load',
    ]);
    const starts = sightings.flatMap((one) => (one.kind === 'order' ? [one.startedAt] : []));
    expect(starts).toEqual([at, at, at, at + 10_000]);
  });

  it('is one order of AP3000, its settlement repeated after half an hour', () => {
    const ack = ap3000Frame('charge.control.reply', {
      result: 0,
      orderNo: vendorOrder,
      port: 1,
      pendingPorts: 0,
    });
    const params = { port: 1, mode: 'full', orderNo: vendorOrder };
    const settlement = ap3000Fixture('settlement_03.up').hex;
    const power = ap3000Fixture('power_06.up').hex;
    const sightings = [
      ...answered(ap3000, 'charge.start', params, ack, at),
      ...seenIn(ap3000, power, at + 60 * minuteMs),
      ...seenIn(ap3000, settlement, at + 60 * minuteMs),
      ...seenIn(ap3000, settlement, at + 90 * minuteMs),
      // a report from before the end that comes after it is still no more than what it says
      ...seenIn(ap3000, power, at + 91 * minuteMs),
    ];
    expect(told(sightings)).toEqual([
      `o:1:${vendorOrder} started`,
      '0/1 charging',
      `o:1:${vendorOrder} charging 480 3600`,
      `o:1:${vendorOrder} ended 480 3600 full`,
      `o:1:${vendorOrder} ended 480 3600 full`,
      '0/1 charging',
      `o:1:${vendorOrder} charging 480 3600`,
    ]);
  });
});

describe('reports that orders are made of', () => {
  it.each([
    [bkv, bkvFixture('charge_end_02.up').hex],
    [bkv, bkvFixture('power_tier_end_18.up').hex],
    [bkv, bkvFixture('charge_end_1004.up').hex],
    [bkv, bkvFixture('card_end_0C.up').hex],
    [ap3000, ap3000Fixture('settlement_03.up').hex],
  ])('are money where they end a charge: %#', (protocol, hex) => {
    expect(protocol.weight(heard(protocol, hex))).toBe('money');
  });

  it.each([
    [bkv, bkvFixture('status_report_1017.up').hex],
    [ap3000, ap3000Fixture('power_06.up').hex],
  ])('are state, which no throttle thins out, while it runs: %#', (protocol, hex) => {
    expect(protocol.weight(heard(protocol, hex))).toBe('state');
  });
});

describe.each(protocols)('fields of any kind, told by $name,', (protocol) => {
  const reports = [
    ...new Set([
      ...['status.report', 'port.query.reply', 'exception.report', 'charge.end', 'card.end'],
      ...['tiers.end', 'fee.end', 'heartbeat', 'heartbeat.legacy', 'power', 'order.confirm'],
      ...['settlement', 'cabinet.finished', '__proto__', 'constructor'],
    ]),
  ];
  const names = [
    ...['kv', 'socketNo', 'holeNo', 'holes', 'holeStatus', 'businessNo', 'energyWh', 'chargedMin'],
    ...['endTime', 'billingMode', 'cardNo', 'port', 'portStatus', 'powerDeciW', 'orderNo'],
    ...['stopReason', 'startSource', 'timestamp', 'socket', 'status', 'result', 'name', 'value'],
    ...['hole1ChargeStatus', 'durationS', 'tempC', 'ambientTempRaw', 'portTempRaw'],
  ];
  const leaf = fc.oneof(
    fc.jsonValue(),
    fc.integer({ min: 0, max: 300 }),
    fc.constantFrom('socketStatusCluster', 'hole', '0x90', '90', '0068', 'ab'.repeat(16), null),
  );
  const { fields } = fc.letrec<{ fields: Fields; value: unknown }>((tie) => ({
    value: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      leaf,
      tie('fields'),
      fc.array(tie('value'), { maxLength: 4 }),
    ),
    fields: fc.dictionary(fc.constantFrom(...names), tie('value')),
  }));
  const given = fc.oneof(fields, fc.jsonValue() as fc.Arbitrary<Fields>);

  /** Only whole ports, words of the closed lists, and numbers that a database takes. */
  function expectSound(sightings: readonly Sighting[]): void {
    for (const one of sightings) {
      expect(Number.isInteger(one.port) && Number.isInteger(one.socket)).toBe(true);
      for (const value of Object.values(one.readings)) expect(Number.isFinite(value)).toBe(true);
      if (one.kind === 'order' && one.endReason !== undefined) {
        expect(endReasons).toContain(one.endReason);
      }
      expect(stored(one)).toEqual(one);
    }
  }

  it('are no reason to throw in a report', () => {
    fc.assert(
      fc.property(fc.constantFrom(...reports), given, (name, values) => {
        expectSound(protocol.sightings({ name, fields: values, at }));
      }),
      { numRuns: 1500 },
    );
  });

  it('are no reason to throw in a result', () => {
    const commands = [...Object.keys(protocol.commands), '__proto__'];
    fc.assert(
      fc.property(fc.constantFrom(...commands), given, given, (command, params, result) => {
        expectSound(protocol.sightingsOfResult({ command, params, result, at, commandId: 'c' }));
      }),
      { numRuns: 1500 },
    );
  });
});
