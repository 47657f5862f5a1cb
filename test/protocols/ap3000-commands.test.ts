import { Compile } from 'typebox/compile';
import { describe, expect, it } from 'vitest';
import { ap3000 } from '../../src/protocols/ap3000/index.ts';
import { bkv } from '../../src/protocols/bkv/index.ts';
import type { CommandSpec, Message } from '../../src/protocols/protocol.ts';
import {
  bytes,
  deviceId,
  fixture,
  handmade,
  hexOf,
  messagesOf,
  samples,
} from './ap3000-samples.ts';

const wireId = 0x1234;
const wireDevice = '3b37ab04';

function spec(name: string): CommandSpec {
  const found = ap3000.commands[name];
  if (found === undefined) throw new Error(`no command ${name}`);
  return found;
}

/** The first thing wrong with the params, or null. */
function faultOf(name: string, params: Record<string, unknown>): string | null {
  const { params: schema, check } = spec(name);
  if (!Compile(schema).Check(params)) return 'schema';
  return check?.(params) ?? null;
}

const encode = (name: string, params: Record<string, unknown>, id = wireId) =>
  hexOf(spec(name).encode(params, deviceId, id));

function up(msgId: number, cmd: number, payload: string): Message {
  return messagesOf(ap3000.decoder('up').push(handmade(wireDevice, msgId, cmd, payload)))[0]!;
}

const recognise = (name: string, params: Record<string, unknown>, message: Message) =>
  spec(name).recognise(params, wireId, message);

const orderHex = '12345678123456781234567812345678';
const start = { port: 1, mode: 'time', seconds: 60, orderNo: 'ORDER-7' };

describe('the command table', () => {
  it('has samples for exactly its commands', () => {
    expect(Object.keys(samples).sort()).toEqual(Object.keys(ap3000.commands).sort());
  });

  it.each(Object.entries(samples))(
    'encodes %s to a frame that is read without fault',
    (name, list) => {
      for (const params of list) {
        expect(faultOf(name, params)).toBeNull();
        const frame = spec(name).encode(params, deviceId, wireId);
        expect(frame.length).toBeLessThanOrEqual(ap3000.limits.frameBytes);
        const items = ap3000.decoder('down').push(frame);
        expect(items).toHaveLength(1);
        const [message] = messagesOf(items);
        expect(message).toMatchObject({ deviceId, direction: 'down' });
        expect(message!.msgId).toBe(name === 'card.answer' ? params['msgId'] : wireId);
        if (name === 'raw') continue;
        expect(message!.fields).not.toHaveProperty('undocumentedTail');
        expect(message!.fault).toBeUndefined();
      }
    },
  );

  it.each(Object.keys(samples))('refuses params that %s does not have', (name) => {
    expect(faultOf(name, { ...samples[name]![0], socket: 0 })).not.toBeNull();
  });

  it('keeps its promises about repeating and replacing consistent', () => {
    for (const [name, { repeatable, onAmbiguous, supersedes, priority, ack }] of Object.entries(
      ap3000.commands,
    )) {
      expect(onAmbiguous === 'resend', name).toBe(repeatable);
      expect(priority).toBeLessThanOrEqual(9);
      expect(ack === 'none', name).toBe(name === 'card.answer' || name === 'ota.auto');
      for (const other of supersedes) expect(ap3000.commands).toHaveProperty([other]);
    }
    expect(spec('charge.stop')).toMatchObject({
      priority: 9,
      repeatable: true,
      supersedes: ['charge.start', 'charge.modify'],
    });
    expect(spec('charge.start')).toMatchObject({
      priority: 7,
      ttlMs: 60_000,
      repeatable: false,
      onAmbiguous: 'probe',
    });
    expect(spec('raw').priority).toBe(bkv.commands['raw']?.priority);
  });

  it('lines up what a port is told, and what a device is told, but no queries', () => {
    const key = (name: string, params: Record<string, unknown>) => spec(name).orderKey(params);
    expect(key('charge.start', start)).toBe('port:1');
    expect(key('charge.start', { ...start, port: 'auto' })).toBe('port:auto');
    expect(key('charge.stop', { port: 1 })).toBe('port:1');
    expect(key('charge.modify', { port: 1 })).toBe('port:1');
    expect(key('cabinet.stop', { port: 1 })).toBe('port:1');
    expect(key('workmode.set', { mode: 1 })).toBe('device');
    expect(key('port.query', {})).toBeNull();
    expect(key('params.read', { group: 'basic' })).toBeNull();
    // or a set of one group would throw away a waiting set of another
    expect(key('params.set', { group: 'basic' })).not.toBe(key('params.set', { group: 'limits' }));
  });
});

describe('frames', () => {
  it.each([
    [
      'charge.start',
      {
        port: 1,
        mode: 'full',
        orderNo: orderHex,
        balanceCents: 356,
        maxSeconds: 28_800,
        overloadDeciW: 5000,
      },
      'charge_82_start.down',
    ],
    ['charge.stop', { port: 1, orderNo: orderHex }, 'charge_82_stop.down'],
    ['charge.modify', { port: 1, mode: 'time', seconds: 28_800 }, 'modify_8A.down'],
    ['params.set', { group: 'limits', overloadDeciW: 20_000 }, 'limits_85.down'],
    ['card.keys', { userKey: '159185191880', newKey: 'ffffffffffff' }, 'card_params_86.down'],
    ['device.restart', {}, 'reboot_87.down'],
    ['device.clear', {}, 'clear_88.down'],
    ['workmode.set', { mode: 0 }, 'work_mode_8D.down'],
    ['port.query', {}, 'query_81.down'],
    ['ota.auto', {}, 'auto_upgrade_E4.down'],
    [
      'card.answer',
      {
        msgId: 1,
        cardId: '7a8d05dd',
        accountState: 0,
        rateMode: 0,
        balanceOrExpiry: 10_000,
        port: 1,
      },
      'card_02.reply',
    ],
  ] as const)('builds %s as the vendor prints it', (name, params, sample) => {
    const { hex, msgId } = fixture(sample);
    expect(encode(name, params, Number(msgId))).toBe(hex);
  });

  it('builds the server change of the vendor’s sample', () => {
    const { hex } = fixture('host_set_server_34.down');
    const params = { host: 'baidu.com', port: 8888, modem: '4g', socketB: true };
    expect(hexOf(spec('server.set').encode(params, '76be0870', 0))).toBe(hex);
  });

  it('sends the appended fields as far as the last one given', () => {
    const payload = (more: object) => encode('charge.start', { ...start, ...more }).slice(24, -4);
    const order = Buffer.from('ORDER-7').toString('hex').padEnd(32, '0');
    const base = `000000000001013c00${order}`;
    expect(payload({})).toBe(`${base}00000000`);
    expect(payload({ qrLight: true })).toBe(`${base}0000000000`);
    expect(payload({ qrLight: false })).toBe(`${base}0000000001`);
    expect(payload({ shortCheck: true })).toBe(`${base}000000000000000002`);
    // a short circuit is checked for unless the client says otherwise
    expect(payload({ forceFullStop: true })).toBe(`${base}0000000000000000020001`);
    expect(payload({ fullPowerW: 9, fullPowerMaxMinutes: 30 })).toBe(
      `${base}0000000000000000020000091e`,
    );
  });

  it('translates time, energy and full into the unit of the wire', () => {
    const wire = (params: Record<string, unknown>) => {
      const frame = spec('charge.start').encode(
        { port: 'auto', orderNo: 'x', ...params },
        deviceId,
        1,
      );
      return messagesOf(ap3000.decoder('down').push(frame))[0]!.fields;
    };
    expect(wire({ mode: 'time', minutes: 2 })).toMatchObject({
      port: 255,
      rateMode: 0,
      durationSOrEnergyCentiKwh: 120,
    });
    expect(wire({ mode: 'energy', energyWh: 1500 })).toMatchObject({
      rateMode: 2,
      durationSOrEnergyCentiKwh: 150,
    });
    expect(wire({ mode: 'full' })).toMatchObject({ rateMode: 0, durationSOrEnergyCentiKwh: 0 });
  });

  it('fills a parameter group with the vendor’s defaults', () => {
    const payload = (params: Record<string, unknown>) => encode('params.set', params).slice(24, -4);
    expect(payload({ group: 'basic', unplugTimeS: 30 })).toBe('03001e00140807100eb400');
    expect(payload({ group: 'advanced' })).toBe('20031e0008070a2c01302a2c012c0108072c0150500001');
    expect(payload({ group: 'limits', overloadDeciW: 1, underVoltageDeciV: 1800 })).toBe(
      'a08c01008c0a0807',
    );
  });
});

describe('params', () => {
  it.each([
    ['charge.start', { ...start, seconds: undefined }, /needs seconds or minutes/],
    ['charge.start', { ...start, minutes: 1 }, /not both/],
    ['charge.start', { ...start, energyWh: 10 }, /leave it out/],
    ['charge.start', { port: 0, mode: 'energy', orderNo: 'x' }, /needs energyWh/],
    ['charge.start', { ...start, mode: 'energy', energyWh: 10 }, /leave them out/],
    ['charge.start', { ...start, mode: 'full' }, /leave them out/],
    ['charge.start', { port: 0, mode: 'full', energyWh: 10, orderNo: 'x' }, /leave it out/],
    ['charge.modify', { port: 0, mode: 'time' }, /needs seconds/],
    ['charge.modify', { port: 0, mode: 'energy', seconds: 5 }, /needs energyWh/],
    ['charge.modify', { port: 0, mode: 'time', seconds: 5, energyWh: 10 }, /leave it out/],
    ['params.set', { group: 'limits' }, /needs overloadDeciW/],
    ['params.set', { group: 'basic', portAlarmC: 1 }, /portAlarmC is not in group basic/],
  ] as const)('asks for what is missing: %s %o', (name, params, sentence) => {
    const given = Object.fromEntries(Object.entries(params).filter(([, v]) => v !== undefined));
    expect(faultOf(name, given)).toMatch(sentence);
  });

  it.each([
    ['charge.start', { ...start, port: 16 }],
    ['charge.start', { ...start, port: -1 }],
    ['charge.start', { ...start, port: 'any' }],
    ['charge.start', { ...start, seconds: 0 }],
    ['charge.start', { ...start, seconds: 65_536 }],
    ['charge.start', { port: 0, mode: 'time', minutes: 1093, orderNo: 'x' }],
    ['charge.start', { port: 0, mode: 'energy', energyWh: 15, orderNo: 'x' }],
    ['charge.start', { port: 0, mode: 'energy', energyWh: 655_360, orderNo: 'x' }],
    ['charge.start', { ...start, orderNo: '' }],
    ['charge.start', { ...start, orderNo: 'x'.repeat(17) }],
    ['charge.start', { ...start, orderNo: '訂單' }],
    ['charge.start', { ...start, orderNo: 'g'.repeat(32) }],
    ['charge.start', { ...start, fullPowerW: 256 }],
    ['charge.stop', { port: 1 }],
    ['charge.stop', { port: 'auto', orderNo: 'x' }],
    ['device.locate', { seconds: 0 }],
    ['device.locate', { seconds: 256 }],
    ['memory.read', { address: 0, length: 33 }],
    ['memory.write', { address: 0, data: '' }],
    ['memory.write', { address: 0, data: 'a' }],
    ['server.set', { host: 'x'.repeat(47), port: 1, modem: '4g' }],
    ['server.set', { host: 'x', port: 0, modem: '4g' }],
    ['server.set', { host: 'x', port: 1, modem: '5g' }],
    ['qr.set', { screen: 0, text: 'x'.repeat(73) }],
    ['qr.show', { text: 'x'.repeat(201) }],
    ['raw', { cmd: '8', payload: '' }],
    ['raw', { cmd: '82', payload: '0' }],
    ['raw', { cmd: '82', payload: '00'.repeat(499) }],
  ])('refuses %s %o', (name, params) => {
    expect(faultOf(name, params)).toBe('schema');
  });
});

describe('acks', () => {
  const orderText = Buffer.from('ORDER-7').toString('hex').padEnd(32, '0');

  it('takes the answer to a start for what it is', () => {
    expect(recognise('charge.start', start, up(wireId, 0x82, `00${orderText}010300`))).toEqual({
      accepted: true,
      result: { orderNo: 'ORDER-7', port: 1, pendingPorts: 3 },
    });
    expect(recognise('charge.start', start, up(wireId, 0x82, `01${orderText}010000`))).toEqual({
      accepted: false,
      code: '1',
      reason: 'no charger is plugged in; not executed',
      result: { code: '1', orderNo: 'ORDER-7', port: 1, pendingPorts: 0 },
    });
    expect(recognise('charge.start', start, up(wireId, 0x82, '63'))).toMatchObject({
      accepted: false,
      code: '99',
      reason: 'code 99, which the vendor does not name',
    });
  });

  it('spells an order number as the client did, else as text where it is text', () => {
    const reply = (hex: string) => up(wireId, 0x82, `00${hex}010000`);
    const orderNoOf = (params: Record<string, unknown>, message: Message) =>
      recognise('charge.stop', params, message)?.result['orderNo'];
    expect(orderNoOf({ port: 1, orderNo: orderText.toUpperCase() }, reply(orderText))).toBe(
      orderText.toUpperCase(),
    );
    expect(orderNoOf({ port: 1, orderNo: 'other' }, reply(orderText))).toBe('ORDER-7');
    expect(orderNoOf({ port: 1, orderNo: 'other' }, reply(orderHex))).toBe(orderHex);
    const none = '00'.repeat(16);
    expect(orderNoOf({ port: 1, orderNo: 'other' }, reply(none))).toBe(none);
  });

  it.each(Object.entries(samples).filter(([name]) => name !== 'port.query'))(
    'takes no other id, command or direction for an answer to %s',
    (name, list) => {
      for (const params of list) {
        const frame = spec(name).encode(params, deviceId, wireId);
        const cmd = frame[11]!;
        expect(recognise(name, params, up(wireId + 1, cmd, '00'.repeat(40)))).toBeNull();
        expect(recognise(name, params, up(wireId, cmd ^ 0x10, '00'.repeat(40)))).toBeNull();
        const [echo] = messagesOf(ap3000.decoder('down').push(frame));
        expect(recognise(name, params, echo!)).toBeNull();
      }
    },
  );

  it.each(
    Object.entries(samples).filter(
      ([name]) => !['port.query', 'params.read', 'card.answer', 'ota.auto'].includes(name),
    ),
  )('reads done and refused from the answer to %s', (name, list) => {
    for (const params of list) {
      const cmd = spec(name).encode(params, deviceId, wireId)[11]!;
      if (name === 'raw' && cmd !== 0x82) continue;
      expect(recognise(name, params, up(wireId, cmd, '00'))?.accepted).toBe(true);
      expect(recognise(name, params, up(wireId, cmd, '03'))).toMatchObject({
        accepted: false,
        code: '3',
        result: { code: '3' },
      });
      if (name !== 'raw') expect(recognise(name, params, up(wireId, cmd, ''))).toBeNull();
    }
  });

  it('gives the sentences of the tables', () => {
    expect(
      recognise('charge.modify', { port: 1, mode: 'time', seconds: 1 }, up(wireId, 0x8a, '02')),
    ).toMatchObject({ reason: 'the new limit is below what was already used' });
    expect(
      recognise('params.set', { group: 'limits', overloadDeciW: 1 }, up(wireId, 0x85, '01')),
    ).toMatchObject({ reason: 'a value is beyond its limits' });
  });

  it('gives what was read', () => {
    expect(
      recognise('params.read', { group: 'limits' }, up(wireId, 0x92, 'a08c204e8c0ae803')),
    ).toEqual({
      accepted: true,
      result: {
        maxChargeS: 36_000,
        overloadDeciW: 20_000,
        overVoltageDeciV: 2700,
        underVoltageDeciV: 1000,
      },
    });
    expect(recognise('params.read', { group: 'basic' }, up(wireId, 0x92, 'a08c204e'))).toBeNull();
    expect(recognise('memory.read', { address: 1, length: 2 }, up(wireId, 0x8b, '00aabb'))).toEqual(
      { accepted: true, result: { data: 'aabb' } },
    );
  });

  it('takes the port states that a query sets off for its answer, under whatever id', () => {
    const state = bytes(fixture('heartbeat_21.up').hex);
    const [message] = messagesOf(ap3000.decoder('up').push(state));
    expect(recognise('port.query', {}, message!)).toEqual({
      accepted: true,
      result: {
        voltageDeciV: 2200,
        ports: [
          { port: 0, status: 0, state: 'idle' },
          { port: 1, status: 0, state: 'idle' },
        ],
      },
    });
    expect(recognise('port.query', {}, up(wireId, 0x22, ''))).toBeNull();
    expect(recognise('port.query', {}, up(wireId, 0x21, '98'))).toBeNull();
  });

  it('takes any answer of the same command byte and id for a raw command', () => {
    const params = { cmd: '7F', payload: 'aa' };
    expect(recognise('raw', params, up(wireId, 0x7f, '0102'))).toEqual({
      accepted: true,
      result: { payloadHex: '0102' },
    });
    expect(recognise('raw', { cmd: '88', payload: '' }, up(wireId, 0x88, '01'))).toMatchObject({
      accepted: false,
      code: '1',
    });
  });
});
