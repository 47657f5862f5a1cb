import { Compile } from 'typebox/compile';
import { describe, expect, it } from 'vitest';
import type { Params } from '../../src/command.ts';
import type { Ack } from '../../src/outcome.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import { toHex } from '../../src/protocols/bytes.ts';
import type { Fields, Message } from '../../src/protocols/protocol.ts';
import { decodeOne, fixture } from './bkv-frames.ts';

const deviceId = '86004459453005';
const wireId = 0x001c9c2b;

const tiers = [
  { powerDeciW: 2000, priceCents: 25, minutes: 60 },
  { powerDeciW: 4000, priceCents: 50, minutes: 60 },
  { powerDeciW: 6000, priceCents: 100, minutes: 60 },
  { powerDeciW: 8000, priceCents: 150, minutes: 60 },
  { powerDeciW: 20000, priceCents: 500, minutes: 120 },
];
const feeTiers = [{ until: '23:59', electricityCents: 50, serviceCents: 50 }];
const hole = { socket: 2, port: 0 };

function spec(name: string) {
  const found = bkv.commands[name];
  if (found === undefined) throw new Error(`no command ${name}`);
  return found;
}

/** Null when schema and check have nothing against the params. */
function complaint(name: string, params: Params): string | null {
  const { params: schema, check } = spec(name);
  const compiled = Compile(schema);
  if (!compiled.Check(params)) {
    return compiled
      .Errors(params)
      .map(({ instancePath, message }) => `${instancePath} ${message}`)
      .join(', ');
  }
  return check?.(params) ?? null;
}

function frameOf(name: string, params: Params, id = deviceId, msgId = wireId): string {
  expect(complaint(name, params)).toBeNull();
  return toHex(spec(name).encode(params, id, msgId));
}

function dataOf(frame: string): string {
  return frame.slice(36, -6);
}

/** A reply as a device would write it. */
function reply(
  name: string,
  fields: Fields,
  msgId = wireId,
  more: { cmd?: number; subCmd?: number } = {},
): Message {
  return decodeOne(bkv.encode({ direction: 'up', name, deviceId, msgId, fields, ...more }), 'up');
}

function ackOf(name: string, params: Params, message: Message): Ack | null {
  return spec(name).recognise(params, wireId, message);
}

/** One valid set of params, and the message that it becomes, for each command. */
const examples: Record<string, { params: Params; message: string }> = {
  'charge.start': { params: { ...hole, mode: 'time', minutes: 240 }, message: 'control' },
  'charge.stop': { params: hole, message: 'control' },
  'port.query': { params: { socket: 1 }, message: 'port.query' },
  'params.set': { params: { socket: 2, maxMinutes: 600 }, message: 'params.set' },
  'params.read': { params: { socket: 2 }, message: 'params.read' },
  'network.refresh': {
    params: { channel: 4, nodes: [{ socket: 1, mac: '450030700247' }] },
    message: 'network.refresh',
  },
  'network.add': { params: { socket: 3, mac: '350030701247' }, message: 'network.add' },
  'network.delete': { params: { socket: 3 }, message: 'network.delete' },
  'voice.window': {
    params: { socket: 254, port: 0, buzzer: true, voice: false, windows: [] },
    message: 'voice.window',
  },
  'card.order': {
    params: { ...hole, businessNo: 26, mode: 'time', time: 48_000 },
    message: 'card.order',
  },
  'card.balance': {
    params: { ...hole, card: '000000298352', balanceCents: 5001 },
    message: 'card.balance',
  },
  'ota.start': {
    params: { host: '101.37.145.162', port: 21, fileName: 'GV.8r12.OTA' },
    message: 'ota',
  },
  raw: { params: { cmd: '00ff', payload: 'ABCD' }, message: 'unknown' },
};

describe('the command table', () => {
  it('has an example here for each of its commands', () => {
    expect(Object.keys(bkv.commands).sort()).toEqual(Object.keys(examples).sort());
  });

  it.each(Object.entries(examples))(
    'encodes %s to a frame that a device can read',
    (name, example) => {
      const message = decodeOne(Buffer.from(frameOf(name, example.params), 'hex'), 'down');
      expect(message).toMatchObject({ name: example.message, deviceId, msgId: wireId });
      expect(message.fault).toBeUndefined();
    },
  );

  it.each(Object.entries(examples))(
    'refuses %s with a field that it does not have',
    (name, { params }) => {
      expect(complaint(name, { ...params, surprise: 1 })).toMatch(/additional/);
    },
  );

  it('orders, replaces and repeats as each command needs', () => {
    const policies = Object.entries(bkv.commands).map(([name, own]) => [
      name,
      own.priority,
      own.ttlMs / 60_000,
      own.ack,
      own.repeatable ? 'repeat' : 'once',
      own.onAmbiguous,
      own.orderKey(examples[name]!.params),
      own.supersedes.join(),
    ]);
    expect(policies.sort()).toEqual([
      ['card.balance', 7, 1, 'none', 'repeat', 'resend', null, ''],
      ['card.order', 7, 1, 'reply', 'once', 'probe', 'port:2:0', ''],
      ['charge.start', 7, 1, 'reply', 'once', 'probe', 'port:2:0', ''],
      ['charge.stop', 9, 1, 'reply', 'repeat', 'resend', 'port:2:0', 'charge.start,card.order'],
      ['network.add', 3, 60, 'reply', 'repeat', 'resend', 'network', ''],
      ['network.delete', 3, 60, 'reply', 'repeat', 'resend', 'network', ''],
      [
        'network.refresh',
        3,
        60,
        'reply',
        'repeat',
        'resend',
        'network',
        'network.refresh,network.add,network.delete',
      ],
      ['ota.start', 1, 60, 'none', 'once', 'stop', 'ota', ''],
      ['params.read', 5, 60, 'reply', 'repeat', 'resend', null, ''],
      ['params.set', 3, 60, 'reply', 'repeat', 'resend', 'socket:2', 'params.set'],
      ['port.query', 5, 60, 'reply', 'repeat', 'resend', null, ''],
      ['raw', 5, 60, 'reply', 'once', 'stop', null, ''],
      ['voice.window', 3, 60, 'reply', 'repeat', 'resend', 'voice', 'voice.window'],
    ]);
  });
});

describe('the bytes of a command', () => {
  it.each([
    [
      'start by time',
      'charge.start',
      { ...hole, mode: 'time', minutes: 240 },
      '0008070200010100f00000',
    ],
    [
      'start by energy, capped',
      'charge.start',
      { ...hole, mode: 'energy', minutes: 60, energyWh: 500 },
      '00080702000100003c01f4',
    ],
    [
      'start by energy, up to the longest time',
      'charge.start',
      { ...hole, mode: 'energy', energyWh: 500 },
      '0008070200010003840' + '1f4',
    ],
    ['stop', 'charge.stop', hole, '0008070200000100000000'],
    ['delete', 'network.delete', { socket: 7 }, '00010a07'],
    ['raw', 'raw', { cmd: '0015', payload: '00011D02' }, '00011d02'],
  ])('is right for %s', (_what, name, params, data) => {
    expect(dataOf(frameOf(name, params))).toBe(data);
  });

  it.each([
    ['control_07_start.down (checksum', 'charge.start', { ...hole, mode: 'time', minutes: 240 }],
    ['control_07_stop.down', 'charge.stop', hole],
    [
      'power_tier_start_17.down (outer cmd 0x0015)',
      'charge.start',
      { socket: 1, port: 0, mode: 'tiers', amountCents: 100, tiers },
    ],
    [
      'service_fee_start_1007.down',
      'charge.start',
      { socket: 1, port: 0, mode: 'fee', paidCents: 100, serviceFeeBy: 'energy', feeTiers },
    ],
    ['query_status_1D.down', 'port.query', { socket: 1 }],
    [
      'param_set_1011.down',
      'params.set',
      {
        socket: 2,
        maxMinutes: 600,
        fullChargeDelayS: 7200,
        noLoadDelayS: 120,
        fullPowerDeciW: 100,
        noLoadPowerDeciW: 8,
        highTemperatureC: 85,
        maxPowerDeciW: 7000,
      },
    ],
    ['param_query_1012.down', 'params.read', { socket: 2 }],
    [
      'network_refresh_08.down',
      'network.refresh',
      {
        channel: 4,
        nodes: [
          { socket: 1, mac: '450030700247' },
          { socket: 2, mac: '450030700743' },
          { socket: 3, mac: '350030701247' },
          { socket: 4, mac: '259102402320' },
        ],
      },
    ],
    ['network_add_09.down', 'network.add', { socket: 3, mac: '350030701247' }],
    [
      'voice_1B.down',
      'voice.window',
      {
        socket: 1,
        port: 1,
        buzzer: false,
        voice: false,
        windows: [{ from: '00:00', to: '23:59' }],
      },
    ],
    [
      'card_order_0B.down (by time)',
      'card.order',
      { socket: 1, port: 0, businessNo: 26, mode: 'time', time: 48_000 },
    ],
    [
      'card_order_0B.down (by power tiers)',
      'card.order',
      { socket: 65, port: 1, businessNo: 0x53, mode: 'tiers', amountCents: 200, tiers },
    ],
    [
      'card_balance_1A.reply',
      'card.balance',
      { socket: 2, port: 1, card: '000000298352', balanceCents: 5001 },
    ],
    ['ota_0007.down', 'ota.start', { host: '101.37.145.162', port: 21, fileName: 'GV.8r12.OTA' }],
  ])('is that of the vendor frame %s', (name, command, params) => {
    const frame = fixture(name);
    expect(frameOf(command, params, frame.gatewayId, Number(frame.msgId))).toBe(frame.hex);
  });

  it('fits the largest network list', () => {
    const nodes = Array.from({ length: 250 }, (_, i) => ({
      socket: i + 1,
      mac: `A500000000${(i + 1).toString(16).padStart(2, '0')}`,
    }));
    const frame = frameOf('network.refresh', { channel: 15, nodes });
    expect(frame.length / 2).toBe(1775);
    expect(decodeOne(Buffer.from(frame, 'hex'), 'down').fields['nodes']).toHaveLength(250);
  });
});

describe('params', () => {
  const tooMany = Array.from({ length: 251 }, (_, i) => ({
    socket: (i % 250) + 1,
    mac: '450030700247',
  }));

  it.each([
    ['charge.start', { ...hole, mode: 'time' }, /mode time needs minutes/],
    ['charge.start', { ...hole, mode: 'energy', minutes: 5 }, /mode energy needs energyWh/],
    ['charge.start', { ...hole, mode: 'tiers', tiers }, /mode tiers needs amountCents/],
    [
      'charge.start',
      { ...hole, mode: 'fee', paidCents: 1 },
      /mode fee needs serviceFeeBy, feeTiers/,
    ],
    [
      'charge.start',
      { ...hole, mode: 'time', minutes: 1, energyWh: 1 },
      /does not use energyWh; leave it out/,
    ],
    ['charge.start', { ...hole, mode: 'monthly' }, /mode/],
    ['charge.start', { ...hole, mode: 'time', minutes: 901 }, /minutes/],
    ['charge.start', { ...hole, mode: 'time', minutes: 0 }, /minutes/],
    ['charge.start', { ...hole, mode: 'energy', energyWh: 65_536 }, /energyWh/],
    [
      'charge.start',
      { ...hole, mode: 'tiers', amountCents: 1, tiers: [...tiers, ...tiers] },
      /tiers/,
    ],
    [
      'charge.start',
      {
        ...hole,
        mode: 'fee',
        paidCents: 1,
        serviceFeeBy: 'time',
        feeTiers: [{ ...feeTiers[0], until: '22:00' }],
      },
      /must end at 23:59, not 22:00/,
    ],
    [
      'charge.start',
      {
        ...hole,
        mode: 'fee',
        paidCents: 1,
        serviceFeeBy: 'time',
        feeTiers: [
          { ...feeTiers[0], until: '08:00' },
          { ...feeTiers[0], until: '07:00' },
          feeTiers[0],
        ],
      },
      /07:00 follows 08:00/,
    ],
    ['charge.start', { socket: 251, port: 0, mode: 'time', minutes: 1 }, /socket/],
    ['charge.start', { socket: 1, port: 2, mode: 'time', minutes: 1 }, /port/],
    ['charge.stop', { socket: 1 }, /port/],
    ['params.set', { socket: 1 }, /at least one of fullChargeDelayS/],
    ['params.set', { socket: 1, highTemperatureC: 256 }, /highTemperatureC/],
    ['network.refresh', { channel: 16, nodes: [{ socket: 1, mac: '450030700247' }] }, /channel/],
    ['network.refresh', { channel: 1, nodes: [] }, /nodes/],
    ['network.refresh', { channel: 1, nodes: tooMany }, /nodes/],
    ['network.refresh', { channel: 1, nodes: tooMany.slice(0, 2) }, /mac 450030700247 twice/],
    [
      'network.refresh',
      {
        channel: 1,
        nodes: [
          { socket: 1, mac: '45003070024a' },
          { socket: 1, mac: '450030700248' },
        ],
      },
      /socket 1 twice/,
    ],
    ['network.add', { socket: 0, mac: '450030700247' }, /socket/],
    ['network.add', { socket: 1, mac: '45003070024' }, /mac/],
    [
      'voice.window',
      { ...examples['voice.window']!.params, socket: 251 },
      /254 for all sockets, not 251/,
    ],
    [
      'voice.window',
      { ...examples['voice.window']!.params, windows: [{ from: '24:00', to: '01:00' }] },
      /from/,
    ],
    ['card.order', { ...hole, businessNo: 1, mode: 'time' }, /needs time/],
    [
      'card.order',
      { ...hole, businessNo: 1, mode: 'tiers', time: 3, amountCents: 1, tiers },
      /does not use time/,
    ],
    ['card.balance', { ...hole, card: '298352', balanceCents: 1 }, /card/],
    ['ota.start', { host: '1.2.3.256', port: 21, fileName: 'a' }, /host/],
    ['ota.start', { host: '1.2.3.4', port: 21, fileName: 'fourteen.bytes' }, /fileName/],
    ['raw', { cmd: '15', payload: '' }, /cmd/],
    ['raw', { cmd: '0015', payload: 'abc' }, /payload/],
    ['raw', { cmd: '0015', payload: 'ab'.repeat(2001) }, /payload/],
  ])('of %s are refused with what to change: %j', (name, params, wanted) => {
    expect(complaint(name, params as Params)).toMatch(wanted);
  });
});

describe('the answer to a command', () => {
  const accepted = (result: Record<string, unknown>): Ack => ({ accepted: true, result });
  const controlled = { result: 1, socketNo: 2, holeNo: 0, businessNo: '0068' };

  it('of the vendor frame to a start is its business number, 104', () => {
    const message = decodeOne(fixture('control_07.reply').hex, 'up');
    expect(ackOf('charge.start', examples['charge.start']!.params, message)).toEqual(
      accepted({ businessNo: 104, socket: 2, port: 0 }),
    );
    expect(ackOf('charge.stop', hole, message)).toEqual(
      accepted({ businessNo: 104, socket: 2, port: 0 }),
    );
  });

  it('is a refusal with the code of the device', () => {
    const message = reply('control.reply', { ...controlled, result: 0 });
    expect(ackOf('charge.start', examples['charge.start']!.params, message)).toMatchObject({
      accepted: false,
      code: '0',
      reason: expect.stringMatching(/failed/),
    });
    const odd = reply('control.reply', { ...controlled, result: 7 });
    expect(ackOf('charge.stop', hole, odd)).toMatchObject({ accepted: false, code: '7' });
  });

  it('comes under the outer command of older devices too', () => {
    const message = reply('control.reply', controlled, wireId, { cmd: 0x0005 });
    expect(ackOf('charge.start', hole, message)).toMatchObject({ accepted: true });
  });

  it('to a start by tiers or fee is read in each form it may have', () => {
    const params = { ...hole, mode: 'tiers', amountCents: 1, tiers };
    for (const cmd of [0x0005, 0x0015]) {
      const message = reply('tiers.start.reply', controlled, wireId, { cmd });
      expect(ackOf('charge.start', params, message)).toEqual(
        accepted({ businessNo: 104, socket: 2, port: 0 }),
      );
    }
    const kv = [
      { key: '0x4A', value: 2 },
      { key: '0x08', value: 0 },
      { key: '0x0F', value: 1 },
    ];
    expect(ackOf('charge.start', params, reply('fee.start.reply', { kv }))).toEqual(
      accepted({ socket: 2, port: 0 }),
    );
    const failed = [{ key: '0x0F', value: 0 }];
    expect(ackOf('charge.start', params, reply('fee.start.reply', { kv: failed }))).toMatchObject({
      accepted: false,
      code: '0',
    });
  });

  it('to a start by tiers is not guessed from a layout of another size', () => {
    const message = reply('tiers.start.reply', { ...controlled, surplusHex: '00' });
    expect(message.fault).toBeDefined();
    expect(ackOf('charge.start', hole, message)).toBeNull();
  });

  it('to a query is the state of the ports', () => {
    const message = decodeOne(fixture('query_status_1D.reply').hex, 'up');
    const port = {
      status: 0x80,
      flags: ['online'],
      charging: false,
      businessNo: 0,
      voltageDeciV: 2287,
      powerDeciW: 0,
      currentMilliA: 1,
      energyWh: 0,
      durationS: 0,
    };
    const holes = [
      { port: 0, ...port },
      { port: 1, ...port },
    ];
    expect(spec('port.query').recognise({ socket: 1 }, message.msgId, message)).toEqual(
      accepted({ socket: 1, holes }),
    );
    expect(spec('port.query').recognise({ socket: 1 }, message.msgId + 1, message)).toBeNull();
  });

  it('to a query may be a status report of that socket, and of that only', () => {
    const message = decodeOne(fixture('status_report_1017.up').hex, 'up');
    const ack = ackOf('port.query', { socket: 1 }, message);
    expect(ack).toMatchObject({
      accepted: true,
      result: { socket: 1, holes: [{ port: 0, voltageDeciV: 2275, charging: false }, { port: 1 }] },
    });
    expect(ackOf('port.query', { socket: 2 }, message)).toBeNull();
  });

  it('to reading parameters is their values', () => {
    const message = decodeOne(fixture('param_query_1012.reply').hex, 'up');
    expect(spec('params.read').recognise({ socket: 2 }, message.msgId, message)).toEqual(
      accepted({
        socket: 2,
        fullChargeDelayS: 7200,
        noLoadDelayS: 120,
        fullPowerDeciW: 100,
        noLoadPowerDeciW: 8,
        highTemperatureC: 85,
        maxPowerDeciW: 7000,
        maxMinutes: 600,
        tricklePercent: 10,
        maxCurrentMilliA: 5000,
        buttonBaseAmount: 0,
        antiPulseTime: 45,
      }),
    );
  });

  it.each([
    ['params.set', 'param_set_1011.reply', { socket: 2 }],
    ['network.refresh', 'network_refresh_08.reply', {}],
    ['network.add', 'network_add_09.reply', {}],
    ['voice.window', 'voice_1B.reply', { socket: 1, port: 1 }],
    ['card.order', 'card_order_0F.reply', { socket: 1, port: 0 }],
  ])('to %s is that of the vendor frame', (name, frame, result) => {
    const message = decodeOne(fixture(frame).hex, 'up');
    const { params } = examples[name]!;
    expect(spec(name).recognise(params, message.msgId, message)).toEqual(accepted(result));
    expect(spec(name).recognise(params, message.msgId + 1, message)).toBeNull();
  });

  it('to each acked command is taken when it fits, refused when it failed, and left alone otherwise', () => {
    const kvReply = (ack: number) => ({
      kv: [
        { key: '0x4A', value: 2 },
        { key: '0x0F', value: ack },
      ],
    });
    const replies: Record<string, (code: number) => Message> = {
      'charge.start': (code) => reply('control.reply', { ...controlled, result: code }),
      'charge.stop': (code) => reply('control.reply', { ...controlled, result: code }),
      'params.set': (code) => reply('params.set.reply', kvReply(code)),
      'params.read': (code) => reply('params.read.reply', kvReply(code)),
      'network.refresh': (code) => reply('network.refresh.reply', { result: code }),
      'network.add': (code) => reply('network.add.reply', { result: code }),
      'network.delete': (code) => reply('network.delete.reply', { result: code }),
      'voice.window': (code) => reply('voice.window.reply', { ...controlled, result: code }),
      'card.order': (code) => reply('card.order.reply', { ...controlled, result: code }),
    };
    const heartbeat = decodeOne(fixture('heartbeat.up').hex, 'up');
    for (const [name, replyOf] of Object.entries(replies)) {
      const { params } = examples[name]!;
      expect(ackOf(name, params, replyOf(1)), name).toMatchObject({ accepted: true });
      expect(ackOf(name, params, replyOf(0)), name).toMatchObject({ accepted: false, code: '0' });
      expect(spec(name).recognise(params, wireId + 1, replyOf(1)), name).toBeNull();
      expect(spec(name).recognise(params, 0, heartbeat), name).toBeNull();
      expect(ackOf(name, params, { ...replyOf(1), protocol: 'ap3000' }), name).toBeNull();
      expect(ackOf(name, params, { ...replyOf(1), direction: 'down' }), name).toBeNull();
      for (const [other, otherReply] of Object.entries(replies)) {
        const same = otherReply(1).name === replyOf(1).name;
        if (!same) expect(ackOf(name, params, otherReply(1)), `${name} by ${other}`).toBeNull();
      }
    }
  });

  it('to a command without ack is never recognised', () => {
    for (const name of ['card.balance', 'ota.start']) {
      expect(ackOf(name, examples[name]!.params, reply('control.reply', controlled))).toBeNull();
    }
  });

  it('to a raw command is any frame of its outer command and message id', () => {
    const raw = { cmd: '0015', payload: '0008070200010100f00000' };
    expect(ackOf('raw', raw, reply('control.reply', controlled))).toEqual(
      accepted({
        businessNo: 104,
        socket: 2,
        port: 0,
        message: 'control.reply',
        payload: '0005070102000068',
      }),
    );
    const refused = reply('control.reply', { ...controlled, result: 0 });
    expect(ackOf('raw', raw, refused)).toMatchObject({ accepted: false, code: '0' });
    const unknown = reply('unknown', { payloadHex: '000177ff' }, wireId, { cmd: 0x0015 });
    expect(ackOf('raw', raw, unknown)).toEqual(
      accepted({ message: 'unknown', payload: '000177ff' }),
    );
    expect(ackOf('raw', raw, reply('network.add.reply', { result: 1 }))).toBeNull();
    expect(ackOf('raw', raw, reply('control.reply', controlled, wireId + 1))).toBeNull();
  });
});
